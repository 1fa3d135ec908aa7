-- Records a failed attempt of a job that a worker still holds.
--   $1 bigint: the job
--   $2 text: the message
--   $3 interval[]: the back-offs of its task
--   $4 integer: max_attempts of its task
--   $5 text: the worker's id
update @extschema@.jobs
set
  max_attempts = @attempts_left@,
  last_error = $2,
  run_at = @backoff@,
  locked_by = null,
  locked_at = null
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_by operator(pg_catalog.=) $5
returning jobs
