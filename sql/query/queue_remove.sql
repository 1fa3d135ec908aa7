-- Removes the row of a queue that is not locked. Skips it if another transaction has locked the row.
--   $1 text: the queue
delete from @extschema@.job_queues
where job_queues.queue_name operator(pg_catalog.=) any (
  array(
    select queue.queue_name
    from @extschema@.job_queues as queue
    where queue.queue_name operator(pg_catalog.=) $1 and queue.locked_at is null
    for update
    skip locked
  )
)
