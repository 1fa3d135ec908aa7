-- Returns jobs of one priority that can run, in order. Locks nothing. Jobs that a kongtask worker has locked are among them,
-- with its id: the caller knows without clocks whether it lives.
--   $1 integer: the priority
--   $2 timestamptz: the run_at to begin at
--   $3 bigint: the id to begin at
--   $4 timestamptz: now
--   $5 timestamptz: locks of external workers before this time are dead
--   $6 text[]: the tasks
--   $7 text[]: forbidden flags
--   $8 bigint: how many at most
select
  job.id,
  job.run_at,
  job.task_identifier,
  job.queue_name is not null,
  job.key is null and job.locked_at is null and job.attempts operator(pg_catalog.=) 0,
  case when pg_catalog.starts_with(job.locked_by, 'kongtask:') then job.locked_by end
from @extschema@.jobs as job
where
  job.priority operator(pg_catalog.=) $1
  and (job.run_at, job.id) operator(pg_catalog.>=) ($2, $3)
  and job.run_at operator(pg_catalog.<=) $4
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and (
    job.locked_at is null
    or job.locked_at operator(pg_catalog.<) $5
    or pg_catalog.starts_with(job.locked_by, 'kongtask:')
  )
  and job.task_identifier operator(pg_catalog.=) any ($6)
  and ($7 is null or (job.flags operator(pg_catalog.?|) $7) is not true)
  and (
    job.queue_name is null
    or pg_catalog.starts_with(job.locked_by, 'kongtask:')
    or not exists (
      select 1
      from @extschema@.job_queues as queue
      where
        queue.queue_name operator(pg_catalog.=) job.queue_name
        and queue.locked_at is not null
        and (queue.locked_at operator(pg_catalog.>=) $5 or pg_catalog.starts_with(queue.locked_by, 'kongtask:'))
    )
  )
order by job.run_at, job.id
limit $8
