-- What is paused, with buttons.
--   $done: what a button has just done

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'pauses', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'pauses')) as properties;

select 'table' as component, true as small, true as hover, 'Nothing is paused.' as empty_description;
select
  coalesce(pause.task, 'all') as task,
  coalesce(pause.queue_name, 'any or none') as queue,
  pg_temp.ago(pause.since) as since,
  coalesce(pg_temp.at(pause.until), 'it is resumed') as until,
  pause.role as by,
  pause.reason as why
from kongtask.pauses as pause
order by pause.since desc;

-- One form for all of them: a pause is known by its task and its queue.
select
  'form' as component, 'do.sql' as action, 'Resume' as title, 'Resume' as validate, 'player-play' as validate_icon,
  'success' as validate_color, 'resume' as id
where
  pg_temp.calls('resume')
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null
  and exists (select from kongtask.pauses as pause where pg_temp.controls(pause.task));
select field.type, field.name, field.label, field.value, field.options, field.width, field.description
from (
  values
    ('hidden', 'action', null, 'resume', null, null, null),
    ('select', 'task', 'Task of the pause', '', (
      select json_agg(json_build_object('value', coalesce(choice.task, ''), 'label', coalesce(choice.task, 'all')))
      from (select distinct pause.task from kongtask.pauses as pause where pg_temp.controls(pause.task)) as choice
    ), 6, null),
    ('select', 'queue', 'Queue of the pause', '', (
      select json_agg(json_build_object('value', coalesce(choice.queue_name, ''), 'label', coalesce(choice.queue_name, 'any or none')))
      from (select distinct pause.queue_name from kongtask.pauses as pause where pg_temp.controls(pause.task)) as choice
    ), 6, null)
) as field (type, name, label, value, options, width, description)
where
  pg_temp.calls('resume')
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null
  and exists (select from kongtask.pauses as pause where pg_temp.controls(pause.task));

select
  'form' as component, 'do.sql' as action, 'Pause' as title, 'Pause' as validate, 'player-pause' as validate_icon,
  'yellow' as validate_color, 'pause' as id
where
  pg_temp.calls('pause')
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null
  and (pg_temp.is_owner() or exists (select from kongtask.tasks as task where pg_temp.controls(task.identifier)));
select field.type, field.name, field.label, field.value, field.options, field.placeholder, field.description, field.width
from (
  values
    ('hidden', 'action', null, 'pause', null, null, null, null),
    ('select', 'task', 'Task', '', (
      select json_agg(json_build_object('value', choice.value, 'label', choice.label) order by choice.place, choice.label)
      from (
        select 0 as place, '' as value, 'all' as label where pg_temp.is_owner()
        union all
        select 1, task.identifier, task.identifier from kongtask.tasks as task where pg_temp.controls(task.identifier)
      ) as choice
    ), null, null, 6),
    ('text', 'queue', 'Queue', null, null, 'any or none', 'Empty: all its jobs, in a queue or not.', 6),
    ('text', 'until', 'For how long', null, null, '30 minutes', 'Empty: until it is resumed.', 6),
    ('text', 'reason', 'Why', null, null, null, 'For those who look at the pause.', 6)
) as field (type, name, label, value, options, placeholder, description, width)
where
  pg_temp.calls('pause')
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null
  and (pg_temp.is_owner() or exists (select from kongtask.tasks as task where pg_temp.controls(task.identifier)));
