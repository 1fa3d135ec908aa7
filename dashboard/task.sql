-- One task: its options, its counters, how long its attempts took, and buttons.
--   $task: the task
--   $done, $count: what a button has just done

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'tasks', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'tasks')) as properties;

select 'title' as component, 'Task ' || pg_temp.cut($task, 128) as contents, 2 as level;

select 'alert' as component, 'yellow' as color, 'player-pause' as icon,
  case
    when pause.task is null then 'Paused, as all tasks are' else 'Paused' || coalesce(' in queue ' || pause.queue_name, '')
  end as title,
  concat_ws(
    ', ',
    'by ' || pause.role || ' since ' || pg_temp.at(pause.since),
    'until ' || pg_temp.at(pause.until),
    pause.reason
  ) as description
from kongtask.pauses as pause
where pause.task = $task or pause.task is null and pause.queue_name is null;

select 'alert' as component, 'yellow' as color, 'ghost' as icon, 'It is not registered here' as title,
  'Its jobs wait for an external worker.' as description
where not exists (select from kongtask.tasks as task where task.identifier = $task);

select 'form' as component, 'do.sql' as action, 'resume' as id, '' as validate, 'kt-hidden' as class;
select 'hidden' as type, field.name, field.value from (values ('action', 'resume'), ('task', $task)) as field (name, value);

select 'form' as component, 'do.sql' as action, 'redrive' as id, '' as validate, 'kt-hidden' as class;
select 'hidden' as type, field.name, field.value from (values ('action', 'redrive'), ('task', $task)) as field (name, value);

select 'button' as component;
select 'Jobs' as title, 'list-details' as icon, 'secondary' as outline,
  'jobs.sql?task=' || pg_temp.encoded($task) as link;
select 'Failed jobs' as title, 'alert-triangle' as icon, 'secondary' as outline,
  'jobs.sql?state=failed&task=' || pg_temp.encoded($task) as link;
select button.title, button.icon, button.color, button.form, button.tooltip
from (
  values
    (pg_temp.calls('redrive'), 'Redrive failed jobs', 'refresh', 'primary', 'redrive',
      'Gives up to 1,000 jobs that have failed for good their attempts again.'),
    (pg_temp.calls('resume'), 'Resume', 'player-play', 'success', 'resume', 'Its waiting jobs begin.')
) as button (is_shown, title, icon, color, form, tooltip)
where
  button.is_shown
  and pg_temp.controls($task)
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null
  and (button.form <> 'resume' or exists (select from kongtask.pauses as pause where pause.task = $task and pause.queue_name is null));

select 'datagrid' as component, 'Options' as title
where exists (select from kongtask.tasks as task where task.identifier = $task);
select item.title, item.description
from kongtask.tasks as task
cross join lateral (
  values
    (1, 'Handler', task.handler),
    (2, 'Runs as', task.role),
    (3, 'Registered', pg_temp.at(task.registered_at)),
    (4, 'Jobs in a transaction', task.max_batch::text),
    (5, 'Timeout', task.timeout::text),
    (6, 'Attempts', task.max_attempts::text),
    (7, 'Back-off', array_to_string(task.backoff, ', ')),
    (8, 'In place', case task.in_place when true then 'yes' else 'no' end)
) as item (place, title, description)
where task.identifier = $task and item.description is not null
order by item.place;

select 'datagrid' as component, 'Since ' || pg_temp.at(stats.stats_reset) as title
from kongtask.stat_tasks as stats where stats.task = $task;
select item.title, item.description, item.color
from kongtask.stat_tasks as stats
cross join lateral (
  values
    (1, 'Added', stats.added::text, null),
    (2, 'Completed', stats.succeeded::text, null),
    (3, 'Failed attempts', stats.failed::text, case when stats.failed > 0 then 'orange' end),
    (4, 'Failed for good', stats.discarded::text, case when stats.discarded > 0 then 'red' end),
    (5, 'Cancelled', stats.cancelled::text, null),
    (6, 'Put off', stats.snoozed::text, null),
    (7, 'Timed out', stats.timed_out::text, null),
    (8, 'Crashed', stats.crashed::text, case when stats.crashed > 0 then 'red' end),
    (9, 'Running', stats.running::text, null),
    (10, 'Longest wait', pg_temp.ms(stats.max_wait_time), null),
    (11, 'Longest run', pg_temp.ms(stats.max_run_time), null),
    (12, 'Last success', pg_temp.ago(stats.last_success_at), null),
    (13, 'Last failure', pg_temp.ago(stats.last_failure_at), null)
) as item (place, title, description, color)
where stats.task = $task and item.description is not null
order by item.place;

select 'code' as component where exists (select from kongtask.stat_tasks as stats where stats.task = $task and stats.last_error is not null);
select 'Latest error' as title, pg_temp.cut(stats.last_error, 4000) as contents
from kongtask.stat_tasks as stats where stats.task = $task and stats.last_error is not null;

select 'html' as component, '<div class="kt-charts mt-3">' as html;

select 'chart' as component, 'bar' as type, 'How long attempts took' as title, 220 as height, 'green' as color, 'kt-runs' as id;
select 'attempts' as series, case when bin.le < 'infinity' then 'to ' || pg_temp.ms(bin.le) else 'longer' end as x, bin.count as y
from kongtask.stat_histogram($task, 'run') as bin
where
  bin.le between
    (select min(least(low.le, 0.5)) from kongtask.stat_histogram($task, 'run') as low where low.count > 0)
    and (select max(high.le) from kongtask.stat_histogram($task, 'run') as high where high.count > 0)
order by bin.le;

select 'chart' as component, 'bar' as type, 'How long jobs had waited' as title, 220 as height, 'azure' as color, 'kt-waits' as id;
select 'attempts' as series, case when bin.le < 'infinity' then 'to ' || pg_temp.ms(bin.le) else 'longer' end as x, bin.count as y
from kongtask.stat_histogram($task, 'wait') as bin
where
  bin.le between
    (select min(least(low.le, 0.5)) from kongtask.stat_histogram($task, 'wait') as low where low.count > 0)
    and (select max(high.le) from kongtask.stat_histogram($task, 'wait') as high where high.count > 0)
order by bin.le;

select 'html' as component, '</div>' as html;

select
  'form' as component, 'do.sql' as action, 'Pause this task' as title, 'Pause' as validate, 'player-pause' as validate_icon,
  'yellow' as validate_color, 'pause' as id
where
  pg_temp.calls('pause') and pg_temp.controls($task)
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null;
select field.type, field.name, field.value, field.label, field.placeholder, field.description, field.width
from (
  values
    ('hidden', 'action', 'pause', null, null, null, null),
    ('hidden', 'task', $task, null, null, null, null),
    ('text', 'until', null, 'For how long', '30 minutes', 'Empty: until it is resumed.', 6),
    ('text', 'reason', null, 'Why', null, 'For those who look at the pause.', 6)
) as field (type, name, value, label, placeholder, description, width)
where
  pg_temp.calls('pause') and pg_temp.controls($task)
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null;
