-- Locks a queue whose row is no lock, or a dead one. Returns the row's address; no row if another transaction has locked the
-- row.
--   $1 text: the queue
--   $2 text: the worker's id
--   $3 timestamptz: now
--   $4 bigint: the job that runs
update @extschema@.job_queues
set job_count = 1, locked_by = $2, locked_at = $3, job_id = $4
where job_queues.queue_name operator(pg_catalog.=) any (
  array(
    select queue.queue_name
    from @extschema@.job_queues as queue
    where queue.queue_name operator(pg_catalog.=) $1
    for update
    skip locked
  )
)
returning job_queues.ctid
