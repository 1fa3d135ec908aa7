-- The job of a queue that is next, among those of some tasks. The queue's name as a range, and first in the order: so that
-- only the index of queues has that order.
select
  job.id,
  job.priority,
  job.run_at,
  job.task_identifier
from @extschema@.jobs as job
where
  job.queue_name operator(pg_catalog.>=) $1
  and job.queue_name operator(pg_catalog.<=) $1
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.run_at operator(pg_catalog.<=) $2
  and job.task_identifier operator(pg_catalog.=) any ($3)
  and ($4 is null or (job.flags operator(pg_catalog.?|) $4) is not true)
order by job.queue_name, job.priority, job.run_at, job.id
limit 1
