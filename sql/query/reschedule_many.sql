update @extschema@.jobs
set
  run_at = coalesce($3, jobs.run_at),
  priority = coalesce($4, jobs.priority),
  attempts = coalesce($5, jobs.attempts),
  max_attempts = coalesce($6, jobs.max_attempts)
