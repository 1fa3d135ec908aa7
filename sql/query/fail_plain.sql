-- Records the failure of a first attempt in place. Skips the job if another transaction has locked or claimed it.
--   $1 bigint: the job
--   $2 text: the message
--   $3 interval[]: the back-offs of its task
--   $4 integer: max_attempts of its task
update @extschema@.jobs
set
  attempts = jobs.attempts operator(pg_catalog.+) 1,
  max_attempts = @attempts_left@,
  last_error = $2,
  run_at = @backoff@
where jobs.id operator(pg_catalog.=) (
  select job.id
  from @extschema@.jobs as job
  where job.id operator(pg_catalog.=) $1 and job.locked_at is null
  for update
  skip locked
)
returning jobs
