-- One job, with its payload and its error, and buttons for what may be done to it.
--   $id: the job
--   $done, $count: what a button has just done

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'jobs', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'jobs')) as properties;

set id = (select case when $id ~ '^[0-9]{1,18}$' then $id end);

-- What of it is shown; NULL: there is no such job. A payload is cut to what a page can bear.
set job = (
  select json_build_object(
    'task', job.task_identifier,
    'state', job.state,
    'why', job.why,
    'controls', pg_temp.controls(job.task_identifier),
    'error', pg_temp.cut(left(job.last_error, 20000), 8000),
    'size', octet_length(job.payload::text),
    'payload', case
      when octet_length(job.payload::text) <= 65536 then pg_temp.cut(jsonb_pretty(job.payload::jsonb), 8000)
      else left(job.payload::text, 8000) || '…'
    end
  )
  from kongtask.job_states as job
  where job.id = $id::bigint
);

select 'alert' as component, 'yellow' as color, 'ghost' as icon, 'There is no such job' as title,
  'Jobs that succeed are deleted.' as description
where $job is null;

select 'title' as component, 'Job ' || $id as contents, 2 as level where $job is not null;

select 'alert' as component,
  case job ->> 'state' when 'failed' then 'red' when 'retrying' then 'orange' else 'azure' end as color,
  'info-circle' as icon,
  job ->> 'state' as title,
  job ->> 'why' as description
from (select $job::json as job) as shown
where job ->> 'why' is not null;

select 'form' as component, 'do.sql' as action, 'cancel' as id, '' as validate, 'kt-hidden' as class
where $job is not null;
select 'hidden' as type, field.name, field.value
from (values ('action', 'cancel'), ('id', $id)) as field (name, value)
where $job is not null;

select 'form' as component, 'do.sql' as action, 'redrive' as id, '' as validate, 'kt-hidden' as class
where $job is not null;
select 'hidden' as type, field.name, field.value
from (values ('action', 'redrive'), ('id', $id), ('task', ($job::json) ->> 'task')) as field (name, value)
where $job is not null;

select 'form' as component, 'do.sql' as action, 'retry' as id, '' as validate, 'kt-hidden' as class
where $job is not null;
select 'hidden' as type, field.name, field.value
from (values ('action', 'retry'), ('id', $id)) as field (name, value)
where $job is not null;

select 'button' as component where $job is not null;
select button.title, button.icon, button.color, button.form, button.tooltip
from (select $job::json as job) as shown
cross join lateral (
  values
    (job ->> 'state' = 'failed' and (job ->> 'controls')::boolean and pg_temp.calls('redrive'),
      'Retry', 'refresh', 'primary', 'redrive', 'Gives it its attempts again. It is due at once.'),
    (job ->> 'state' in ('retrying', 'scheduled') and pg_temp.calls('reschedule_jobs'),
      case job ->> 'state' when 'retrying' then 'Retry now' else 'Run now' end, 'player-play', 'primary', 'retry',
      'It is due at once.'),
    (job ->> 'state' <> 'failed' and (job ->> 'controls')::boolean and pg_temp.calls('cancel'),
      'Cancel', 'ban', 'danger', 'cancel', 'It fails for good. If it runs, its handler is interrupted.')
) as button (is_shown, title, icon, color, form, tooltip)
where
  button.is_shown
  and $job is not null
  and sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is not null;

select 'datagrid' as component where $job is not null;
select item.title, item.description, item.link, item.color, item.footer
from kongtask.job_states as job
cross join lateral (
  values
    (1, 'State', job.state, null, pg_temp.state_color(job.state), null),
    (2, 'Task', job.task_identifier, 'task.sql?task=' || pg_temp.encoded(job.task_identifier), null, null),
    (3, 'Attempts', job.attempts || ' of ' || job.max_attempts, null, null, null),
    (4, 'Due', pg_temp.at(job.run_at), null, null, pg_temp.ago(job.run_at)),
    (5, 'Added', pg_temp.at(job.created_at), null, null, pg_temp.ago(job.created_at)),
    (6, 'Priority', job.priority::text, null, null, null),
    (7, 'Queue', job.queue_name, 'queue.sql?queue=' || pg_temp.encoded(job.queue_name), null, null),
    (8, 'Key', job.key, null, null, null),
    (9, 'Flags', (select string_agg(flag, ', ') from jsonb_object_keys(job.flags) as flag), null, null, null),
    (10, 'Claimed by', job.locked_by, null, null, pg_temp.ago(job.locked_at))
) as item (place, title, description, link, color, footer)
where job.id = $id::bigint and item.description is not null
order by item.place;

select 'code' as component where ($job::json) ->> 'error' is not null;
select 'Latest error' as title, ($job::json) ->> 'error' as contents where ($job::json) ->> 'error' is not null;

select 'code' as component where $job is not null;
select
  'Payload' as title,
  case when (($job::json) ->> 'size')::int > length(($job::json) ->> 'payload') + 8000
    then 'The beginning of ' || pg_size_pretty((($job::json) ->> 'size')::bigint) end as description,
  ($job::json) ->> 'payload' as contents
where $job is not null;

-- What became of its attempts, where that is kept.
set history = (select case when pg_temp.reads('runs') then 'sqlpage/runs.sql' end);
select 'dynamic' as component, sqlpage.run_sql($history, json_build_object('id', $id)) as properties
where $history is not null;
