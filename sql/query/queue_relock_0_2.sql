-- As version 0.2.0 of the extension has it. Locks queue $1, whose row is of a lock that is dead, for worker $2, at $3.
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
