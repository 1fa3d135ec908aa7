-- One schedule, with its next runs, and buttons.
--   $name: the schedule
--   $done: what a button has just done

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'schedules', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'schedules')) as properties;

select 'title' as component, 'Schedule ' || pg_temp.cut($name, 128) as contents, 2 as level;

select 'alert' as component, 'yellow' as color, 'ghost' as icon, 'There is no such schedule' as title
where not exists (select from kongtask.schedules as schedule where schedule.name = $name);

select 'alert' as component, 'red' as color, 'alert-triangle' as icon, 'It cannot fire' as title, schedule.problem as description
from kongtask.schedules as schedule where schedule.name = $name and schedule.problem is not null;

select 'form' as component, 'do.sql' as action, action.id, '' as validate, 'kt-hidden' as class
from (values ('run')) as action (id);
select 'hidden' as type, field.name, field.value from (values ('action', 'run'), ('name', $name)) as field (name, value);

select 'form' as component, 'do.sql' as action, action.id, '' as validate, 'kt-hidden' as class
from (values ('switch')) as action (id);
select 'hidden' as type, field.name, field.value
from (
  values
    ('action', (
      select case when schedule.active then 'deactivate' else 'activate' end
      from kongtask.schedules as schedule where schedule.name = $name
    )),
    ('name', $name)
) as field (name, value);

select 'button' as component;
select button.title, button.icon, button.color, button.form, button.tooltip
from kongtask.schedules as schedule
cross join lateral (
  values
    (pg_temp.calls('run_schedule'), 'Run now', 'player-play', 'primary', 'run', 'Adds a job now. The next run stays as it is.'),
    (pg_temp.calls('alter_schedule') and schedule.active, 'Deactivate', 'player-pause', 'yellow', 'switch', 'It does not fire any more.'),
    (pg_temp.calls('alter_schedule') and not schedule.active, 'Activate', 'player-play', 'success', 'switch', 'It fires from now on.')
) as button (is_shown, title, icon, color, form, tooltip)
where
  schedule.name = $name
  and button.is_shown
  and (pg_temp.is_owner() or pg_has_role(schedule.role, 'usage'))
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null;

select 'datagrid' as component;
select item.title, item.description, item.link, item.footer
from kongtask.schedules as schedule
cross join lateral (
  values
    (1, 'When', schedule.cron, null, kongtask.describe_cron(schedule.cron)),
    (2, 'Time zone', schedule.timezone, null, null),
    (3, 'Task', schedule.task, 'task.sql?task=' || pg_temp.encoded(schedule.task), null),
    (4, 'Active', case when schedule.active then 'yes' else 'no' end, null, null),
    (5, 'Scheduled by', schedule.role, null, pg_temp.at(schedule.scheduled_at)),
    (6, 'Last run', pg_temp.at(schedule.last_run_at), null, pg_temp.ago(schedule.last_run_at)),
    (7, 'Its job', schedule.last_job_id::text, 'job.sql?id=' || schedule.last_job_id, null),
    (8, 'Missed', schedule.missed_count::text, null, 'what is missed: ' || schedule.missed),
    (9, 'Skipped', schedule.skipped_count::text, null, 'overlap: ' || schedule.overlap),
    (10, 'Queue', schedule.queue_name, 'queue.sql?queue=' || pg_temp.encoded(schedule.queue_name), null),
    (11, 'Key', schedule.job_key, null, null),
    (12, 'From', pg_temp.at(schedule.starts_at), null, null),
    (13, 'To', pg_temp.at(schedule.ends_at), null, null)
) as item (place, title, description, link, footer)
where schedule.name = $name and item.description is not null
order by item.place;

select 'list' as component, 'Next runs' as title, true as compact, 'None' as empty_title;
select pg_temp.at(run.at) as title, pg_temp.ago(run.at) as description, 'clock' as icon
from kongtask.schedules as schedule
cross join lateral kongtask.next_runs(
  schedule.cron, schedule.timezone, greatest(now(), schedule.starts_at), 5
) as run (at)
where schedule.name = $name and schedule.active and schedule.problem is null and run.at <= coalesce(schedule.ends_at, 'infinity');

select 'code' as component;
select 'Payload' as title, pg_temp.cut(left(schedule.payload::text, 20000), 8000) as contents
from kongtask.schedules as schedule where schedule.name = $name;
