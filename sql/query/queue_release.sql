-- Releases queue $1, if worker $2 holds it.
delete from @extschema@.job_queues
where job_queues.queue_name operator(pg_catalog.=) $1 and job_queues.locked_by operator(pg_catalog.=) $2
