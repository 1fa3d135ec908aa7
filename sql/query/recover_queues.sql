update @extschema@.job_queues
set locked_by = null, locked_at = null
where
  pg_catalog.starts_with(job_queues.locked_by, $1)
  and not (job_queues.locked_by operator(pg_catalog.=) any ($2))
