-- Returns jobs whose scheduled time has come, in no order of importance. As in search.sql, jobs that a kongtask worker has
-- locked are among them.
--   $1 timestamptz: scheduled at this time or later
--   $2 timestamptz: and at this time or before: now
--   $3 timestamptz: locks of external workers before this time are dead
--   $4 text[]: the tasks
--   $5 text[]: forbidden flags
--   $6 bigint: how many at most
select
  job.id,
  job.run_at,
  job.task_identifier,
  job.queue_name is not null,
  job.key is null and job.locked_at is null and job.attempts operator(pg_catalog.=) 0,
  case when pg_catalog.starts_with(job.locked_by, 'kongtask:') then job.locked_by end,
  job.priority
from @extschema@.jobs as job
where
  job.run_at operator(pg_catalog.>) job.created_at
  and job.run_at operator(pg_catalog.>=) $1
  and job.run_at operator(pg_catalog.<=) $2
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and (
    job.locked_at is null
    or job.locked_at operator(pg_catalog.<) $3
    or pg_catalog.starts_with(job.locked_by, 'kongtask:')
  )
  and job.task_identifier operator(pg_catalog.=) any ($4)
  and ($5 is null or (job.flags operator(pg_catalog.?|) $5) is not true)
  and (
    job.queue_name is null
    or pg_catalog.starts_with(job.locked_by, 'kongtask:')
    or not exists (
      select 1
      from @extschema@.job_queues as queue
      where
        queue.queue_name operator(pg_catalog.=) job.queue_name
        and queue.locked_at is not null
        and (queue.locked_at operator(pg_catalog.>=) $3 or pg_catalog.starts_with(queue.locked_by, 'kongtask:'))
    )
  )
order by job.run_at
limit $6
