update @extschema@.jobs
set
  attempts = least(jobs.attempts, jobs.max_attempts operator(pg_catalog.-) 1),
  locked_by = null,
  locked_at = null
where
  pg_catalog.starts_with(jobs.locked_by, $1)
  and not (jobs.locked_by operator(pg_catalog.=) any ($2))
