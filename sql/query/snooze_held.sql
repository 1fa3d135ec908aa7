-- Unlocks a job that a worker still holds, due again after a delay, and does not count the attempt. Skips a job whose key
-- and further attempts add_job or remove_job has taken meanwhile.
--   $1 bigint: the job
--   $2 text: the worker's id
--   $3 interval: the delay
--   $4 integer: the attempts as the worker claimed it
--   $5 text: the key as the worker claimed it
update @extschema@.jobs
set
  attempts = greatest(jobs.attempts operator(pg_catalog.-) 1, 0),
  run_at = pg_catalog.clock_timestamp() operator(pg_catalog.+) $3,
  locked_by = null,
  locked_at = null
where
  jobs.id operator(pg_catalog.=) $1
  and jobs.locked_by operator(pg_catalog.=) $2
  and jobs.attempts operator(pg_catalog.=) $4
  and coalesce(jobs.key, '') operator(pg_catalog.=) coalesce($5, '')
returning jobs
