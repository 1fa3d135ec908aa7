update @extschema@.jobs
set
  run_at = coalesce($2, jobs.run_at),
  priority = coalesce($3, jobs.priority),
  attempts = coalesce($4, jobs.attempts),
  max_attempts = coalesce($5, jobs.max_attempts)
