-- Releases a queue that a worker holds, if its row is at an address, and keeps the row. Returns the row's new address.
--   $1 text: the queue
--   $2 text: the worker's id
--   $3 tid: the address
update @extschema@.job_queues
set locked_by = null, locked_at = null, job_id = null
where
  job_queues.ctid operator(pg_catalog.=) $3
  and job_queues.queue_name operator(pg_catalog.=) $1
  and job_queues.locked_by operator(pg_catalog.=) $2
returning job_queues.ctid
