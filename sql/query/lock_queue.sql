update @extschema@.job_queues
set locked_by = $2, locked_at = $3
where job_queues.queue_name operator(pg_catalog.=) $1
