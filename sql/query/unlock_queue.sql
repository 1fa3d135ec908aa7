update @extschema@.job_queues
set locked_by = null, locked_at = null
where job_queues.queue_name operator(pg_catalog.=) $1 and job_queues.locked_by operator(pg_catalog.=) $2
