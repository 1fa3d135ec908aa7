-- Locks a queue whose row is a dead lock, in a schema of version 0.2.0 or before.
--   $1 text: the queue
--   $2 text: the worker's id
--   $3 timestamptz: now
update @extschema@.job_queues
set job_count = 1, locked_by = $2, locked_at = $3
where job_queues.queue_name operator(pg_catalog.=) any (
  array(
    select queue.queue_name
    from @extschema@.job_queues as queue
    where queue.queue_name operator(pg_catalog.=) $1
    for update
    skip locked
  )
)
