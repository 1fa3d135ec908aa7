-- Returns what the jobs of a schedule are like: the columns of schedule_lock.
--   $1 text: the schedule's name
select
  true,
  null::pg_catalog.timestamptz,
  entry.task,
  entry.payload,
  coalesce(
    entry.queue_name,
    case when entry.overlap operator(pg_catalog.=) 'queue' then 'cron:' operator(pg_catalog.||) entry.name end
  ),
  entry.priority,
  entry.max_attempts,
  entry.job_key,
  entry.job_key_mode,
  entry.flags,
  entry.overlap,
  pg_catalog.date_part('epoch', entry.jitter),
  coalesce(entry.runs_as, kongtask.role_named(entry.role))::pg_catalog.oid,
  entry.role
from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1
