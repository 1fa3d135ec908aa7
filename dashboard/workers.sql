-- The worker processes of this server, what each runs, and how far it has come.

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'workers', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'workers', 'refresh', '5')) as properties;

select
  'table' as component, 'job' as markdown, true as small, true as hover, 'pid' as raw_numbers,
  'No worker is needed: they come with jobs, and go.' as empty_description;
select
  worker.pid,
  worker.state,
  worker.database,
  worker.role,
  worker.task_identifier as task,
  case
    when worker.database = current_database() then format('[%s](job.sql?id=%s)', worker.job_id, worker.job_id)
    else worker.job_id::text
  end as job,
  pg_temp.ago(worker.since) as since,
  concat_ws(
    ' ',
    worker.done || coalesce(' of ' || worker.total, ''),
    '(' || round(100.0 * worker.done / nullif(worker.total, 0)) || ' %)',
    pg_temp.cut(worker.message, 120)
  ) as progress,
  case worker.state when 'running' then 'blue' when 'unresponsive' then 'red' end as _sqlpage_color
from kongtask.workers as worker
order by worker.database <> current_database(), worker.database, worker.state desc, worker.since
limit 500;
