-- Returns when the first job of a queue falls due that comes before a priority; NULL if there is none.
--   $1 text: the queue
--   $2 timestamptz: now
--   $3 integer: the priority
select pg_catalog.min(job.run_at)
from @extschema@.jobs as job
where
  job.queue_name operator(pg_catalog.>=) $1
  and (job.queue_name, job.priority) operator(pg_catalog.<) ($1, $3)
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.run_at operator(pg_catalog.>) $2
