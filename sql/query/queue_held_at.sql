-- Returns a row if a worker holds a queue whose row is at an address.
--   $1 text: the queue
--   $2 text: the worker's id
--   $3 tid: the address
select 1
from @extschema@.job_queues as queue
where
  queue.ctid operator(pg_catalog.=) $3
  and queue.queue_name operator(pg_catalog.=) $1
  and queue.locked_by operator(pg_catalog.=) $2
