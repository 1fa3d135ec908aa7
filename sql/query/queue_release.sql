-- Releases a queue that a worker holds.
--   $1 text: the queue
--   $2 text: the worker's id
delete from @extschema@.job_queues
where job_queues.queue_name operator(pg_catalog.=) $1 and job_queues.locked_by operator(pg_catalog.=) $2
