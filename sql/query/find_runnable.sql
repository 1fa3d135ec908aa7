-- Locks the first job of a priority that can run. Returns its id, its queue, and the time before which locks are dead.
--   $1 text[]: the tasks; NULL for all
--   $2 interval: the age at which a lock is dead
--   $3 text[]: forbidden flags
--   $4 timestamptz: now
--   $5 text[]: paused queues; NULL if no queue is paused
--   $6 text[]: queues in which tasks are paused
--   $7 text[]: the tasks that are paused in these
--   $8 text[]: tasks to leave out
--   $9 text[]: the ids of the workers that live
--   $10 text[]: queues to leave out
--   $11 integer: the priority
select
  job.id,
  job.queue_name,
  $4 operator(pg_catalog.-) $2
from @extschema@.jobs as job
where
  job.priority operator(pg_catalog.=) $11
  and (
    job.locked_at is null
    or job.locked_at operator(pg_catalog.<) ($4 operator(pg_catalog.-) $2) and job.locked_by operator(pg_catalog.<>) all ($9)
  )
  and job.run_at operator(pg_catalog.<=) $4
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.task_identifier operator(pg_catalog.<>) all ($8)
  and ($1 is null or job.task_identifier operator(pg_catalog.=) any ($1))
  and (@paused@) is not true
  and ($3 is null or (job.flags operator(pg_catalog.?|) $3) is not true)
  and (
    job.queue_name is null
    or job.queue_name operator(pg_catalog.<>) all ($10)
    and not exists (
      select 1
      from @extschema@.job_queues as queue
      where
        queue.queue_name operator(pg_catalog.=) job.queue_name
        and queue.locked_at is not null
        and not (
          queue.locked_at operator(pg_catalog.<) ($4 operator(pg_catalog.-) $2)
          and queue.locked_by operator(pg_catalog.<>) all ($9)
        )
    )
  )
order by job.run_at, job.id
limit 1
for update of job
skip locked
