-- One queue, with buttons.
--   $queue: the queue
--   $done: what a button has just done

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'queues', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'queues')) as properties;

select 'title' as component, 'Queue ' || pg_temp.cut($queue, 128) as contents, 2 as level;

select 'alert' as component, 'yellow' as color, 'player-pause' as icon, 'Paused' as title,
  concat_ws(
    ', ', 'task ' || pause.task, 'by ' || pause.role || ' since ' || pg_temp.at(pause.since), 'until ' || pg_temp.at(pause.until),
    pause.reason
  ) as description
from kongtask.pauses as pause
where pause.queue_name = $queue;

select 'form' as component, 'do.sql' as action, 'resume' as id, '' as validate, 'kt-hidden' as class;
select 'hidden' as type, field.name, field.value from (values ('action', 'resume'), ('queue', $queue)) as field (name, value);

select 'button' as component;
select 'Jobs' as title, 'list-details' as icon, 'secondary' as outline,
  'jobs.sql?queue=' || pg_temp.encoded($queue) as link;
select 'Resume' as title, 'player-play' as icon, 'success' as color, 'resume' as form
where
  pg_temp.calls('resume') and pg_temp.is_owner()
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null
  and exists (select from kongtask.pauses as pause where pause.queue_name = $queue and pause.task is null);

set found = (select row_to_json(queue)::text from kongtask.queues as queue where queue.queue_name = $queue);

select 'datagrid' as component where $found is not null;
select item.title, item.description, item.link
from json_to_record($found::json) as queue (
  jobs bigint, ready bigint, failed bigint, running bigint, since timestamptz, locked_by text, head bigint, oldest_wait interval
)
cross join lateral (
  values
    (1, 'Jobs', queue.jobs::text, null),
    (2, 'Due', queue.ready::text, null),
    (3, 'Failed for good', queue.failed::text, null),
    (4, 'Runs', queue.running::text, 'job.sql?id=' || queue.running),
    (5, 'Since', pg_temp.at(queue.since), null),
    (6, 'Worker', queue.locked_by, null),
    (7, 'Next', queue.head::text, 'job.sql?id=' || queue.head),
    (8, 'Oldest wait', pg_temp.short(queue.oldest_wait), null)
) as item (place, title, description, link)
where item.description is not null
order by item.place;

select 'text' as component;
select 'No job is in this queue.' as contents
where $found is null;

select
  'form' as component, 'do.sql' as action, 'Pause this queue' as title, 'Pause' as validate, 'player-pause' as validate_icon,
  'yellow' as validate_color, 'pause' as id
where
  pg_temp.calls('pause') and pg_temp.is_owner()
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null;
select field.type, field.name, field.value, field.label, field.placeholder, field.description, field.width
from (
  values
    ('hidden', 'action', 'pause', null, null, null, null),
    ('hidden', 'queue', $queue, null, null, null, null),
    ('text', 'until', null, 'For how long', '30 minutes', 'Empty: until it is resumed.', 6),
    ('text', 'reason', null, 'Why', null, 'For those who look at the pause.', 6)
) as field (type, name, value, label, placeholder, description, width)
where
  pg_temp.calls('pause') and pg_temp.is_owner()
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null;
