update @extschema@.jobs
set
  last_error = coalesce($3, 'Manually marked as failed'),
  attempts = jobs.max_attempts
