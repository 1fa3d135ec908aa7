-- The attempt that a crash ended. How many crashes one after another, last_error tells. Killed once, a job may have been in
-- the way of somebody: it runs again at once, and the attempt is not counted.
update @extschema@.jobs
set
  attempts = case
    when crash.number operator(pg_catalog.>=) $4 then jobs.max_attempts
    when crash.number operator(pg_catalog.>) 1 or $3 then least(jobs.attempts operator(pg_catalog.+) 1, jobs.max_attempts)
    else jobs.attempts
  end,
  last_error = pg_catalog.format($2, crash.number, $4),
  run_at = case
    when crash.number operator(pg_catalog.>) 1 or $3
      then
        greatest(pg_catalog.now(), jobs.run_at) operator(pg_catalog.+)
        (pg_catalog.exp(least(jobs.attempts operator(pg_catalog.+) 1, 10)) operator(pg_catalog.*) '1 second'::pg_catalog.interval)
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
      $4
    ) operator(pg_catalog.+) 1 as number
  from @extschema@.jobs as job
  where job.id operator(pg_catalog.=) $1
) as crash
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_at is null
returning jobs.attempts operator(pg_catalog.>=) jobs.max_attempts, jobs.task_identifier, jobs.last_error
