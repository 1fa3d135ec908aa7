-- Jobs of queue $1 that are due at $2, in the order in which they run, from ($4, $5, $6) on, at most $7. $3: forbidden flags. The
-- queue's name as a range, and first in the order: so that only the index of queues has that order.
select
  job.id,
  job.priority,
  job.run_at,
  job.task_identifier
from @extschema@.jobs as job
where
  job.queue_name operator(pg_catalog.>=) $1
  and job.queue_name operator(pg_catalog.<=) $1
  and (job.priority, job.run_at, job.id) operator(pg_catalog.>=) ($4, $5, $6)
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.run_at operator(pg_catalog.<=) $2
  and ($3 is null or (job.flags operator(pg_catalog.?|) $3) is not true)
order by job.queue_name, job.priority, job.run_at, job.id
limit $7
