-- Returns due jobs of a queue, in the order in which they run. The queue's name comes first in the order, so that only the index of
-- queues has that order, and is part of the position to go on from, so that the index is read from there.
--   $1 text: the queue
--   $2 timestamptz: now
--   $3 text[]: forbidden flags
--   $4 integer: the priority to go on from
--   $5 timestamptz: the run_at to go on from
--   $6 bigint: the id to go on from
--   $7 bigint: how many at most
select
  job.id,
  job.priority,
  job.run_at,
  job.task_identifier
from @extschema@.jobs as job
where
  (job.queue_name, job.priority, job.run_at, job.id) operator(pg_catalog.>=) ($1, $4, $5, $6)
  and job.queue_name operator(pg_catalog.<=) $1
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.run_at operator(pg_catalog.<=) $2
  and ($3 is null or (job.flags operator(pg_catalog.?|) $3) is not true)
order by job.queue_name, job.priority, job.run_at, job.id
limit $7
