delete from @extschema@.job_queues
where job_queues.queue_name operator(pg_catalog.=) $1 and job_queues.job_count operator(pg_catalog.<=) 0
