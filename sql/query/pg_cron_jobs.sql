-- Returns the jobs of pg_cron that the current role may see: number, name (early versions have none), schedule, payload of
-- the task kongtask.sql, where it runs if not here, its role, that role's name, whether it is active, and the time zone.
select
  job.jobid,
  pg_catalog.to_jsonb(job) operator(pg_catalog.->>) 'jobname',
  job.schedule,
  pg_catalog.json_build_object('command', job.command),
  case
    when job.database operator(pg_catalog.<>) pg_catalog.current_database()
      then pg_catalog.format('database "%s"', job.database)
    when
      job.nodename operator(pg_catalog.<>) all ('{"",localhost,127.0.0.1,::1}')
      and not pg_catalog.starts_with(job.nodename, '/')
      or job.nodeport::pg_catalog.text operator(pg_catalog.<>) pg_catalog.current_setting('port')
      then pg_catalog.format('%s:%s', job.nodename, job.nodeport)
  end,
  role.oid,
  job.username,
  job.active,
  -- pg_cron's own default, where it has the setting.
  coalesce(pg_catalog.current_setting('cron.timezone', true), 'GMT')
from cron.job
left join pg_catalog.pg_roles as role on job.username operator(pg_catalog.=) role.rolname::pg_catalog.text
order by job.jobid
