-- Returns a row if a worker holds a queue.
--   $1 text: the queue
--   $2 text: the worker's id
select 1
from @extschema@.job_queues as queue
where queue.queue_name operator(pg_catalog.=) $1 and queue.locked_by operator(pg_catalog.=) $2
