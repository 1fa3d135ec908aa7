-- Fails jobs for good that are not running.
--   $1 bigint[]: ids
--   $2 text[]: the ids of the workers that live
--   $3 text: the message
update @extschema@.jobs
set
  last_error = coalesce($3, 'Manually marked as failed'),
  attempts = jobs.max_attempts
where jobs.id operator(pg_catalog.=) any (@idle_jobs@)
returning jobs.*
