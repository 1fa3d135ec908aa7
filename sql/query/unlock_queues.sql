update @extschema@.job_queues
set locked_by = null, locked_at = null
where job_queues.locked_by operator(pg_catalog.=) any ($1)
