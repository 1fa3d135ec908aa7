-- Records a failed attempt of a job that a worker still holds.
--   $1 bigint: the job
--   $2 text: the worker's id
--   $3 text: the message
update @extschema@.jobs
set
  last_error = $3,
  run_at = @backoff@,
  locked_by = null,
  locked_at = null
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_by operator(pg_catalog.=) $2
returning jobs
