-- Releases jobs of a worker, and does not count the attempts. Returns their queues.
--   $1 bigint: the lowest id
--   $2 bigint: the highest id
--   $3 text: the worker's id
update @extschema@.jobs
set
  attempts = greatest(jobs.attempts operator(pg_catalog.-) 1, 0),
  locked_by = null,
  locked_at = null
where
  jobs.id operator(pg_catalog.>=) $1
  and jobs.id operator(pg_catalog.<=) $2
  and jobs.locked_by operator(pg_catalog.=) $3
returning jobs.queue_name
