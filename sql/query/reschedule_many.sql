-- Changes jobs that are not running. NULL leaves a column as it is.
--   $1 bigint[]: ids
--   $2 text[]: the ids of the workers that live
--   $3 timestamptz: run_at
--   $4 integer: the priority
--   $5 integer: attempts
--   $6 integer: max_attempts
update @extschema@.jobs
set
  run_at = coalesce($3, jobs.run_at),
  priority = coalesce($4, jobs.priority),
  attempts = coalesce($5, jobs.attempts),
  max_attempts = coalesce($6, jobs.max_attempts)
where jobs.id operator(pg_catalog.=) any (@idle_jobs@)
returning jobs.*
