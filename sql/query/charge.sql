-- Charges a job with the attempt that a crash ended. Its last_error tells how many crashes came one after another. A job
-- that was killed once may have been killed for another reason: it runs again at once, and the attempt is not counted.
--   $1 bigint: the job
--   $2 text: the format of last_error
--   $3 interval[]: the back-offs of its task
--   $4 integer: max_attempts of its task
--   $5 boolean: whether the worker crashed, rather than was killed
--   $6 integer: how many crashes in a row fail it for good
update @extschema@.jobs
set
  attempts = case
    when crash.number operator(pg_catalog.>=) $6 then jobs.max_attempts
    when crash.number operator(pg_catalog.>) 1 or $5 then least(jobs.attempts operator(pg_catalog.+) 1, jobs.max_attempts)
    else jobs.attempts
  end,
  max_attempts = case
    when crash.number operator(pg_catalog.<) $6 and (crash.number operator(pg_catalog.>) 1 or $5)
      then
        @attempts_left@
    else jobs.max_attempts
  end,
  last_error = pg_catalog.format($2, crash.number, $6),
  run_at = case
    when crash.number operator(pg_catalog.>) 1 or $5
      then
        @backoff@
    else jobs.run_at
  end
from (
  select
    -- One that was given further attempts after its last crash starts anew.
    pg_catalog.mod(
      coalesce(
        pg_catalog.substring(job.last_error, '^worker process crashed while it ran this job: crash ([0-9]+) of')::pg_catalog.int4,
        0
      ),
      $6
    ) operator(pg_catalog.+) 1 as number,
    job.attempts operator(pg_catalog.+) 1 as attempt
  from @extschema@.jobs as job
  where job.id operator(pg_catalog.=) $1
) as crash
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_at is null
returning jobs, jobs.attempts operator(pg_catalog.>=) jobs.max_attempts, jobs.last_error,
  crash.number operator(pg_catalog.>) 1 or $5, crash.attempt
