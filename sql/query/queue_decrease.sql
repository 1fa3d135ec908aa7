update @extschema@.job_queues
set job_count = job_queues.job_count operator(pg_catalog.-) 1
where job_queues.queue_name operator(pg_catalog.=) $1
returning job_queues.job_count, job_queues.locked_at is null
