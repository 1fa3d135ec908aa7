-- Renews the locks of some workers' queues. Skips rows that another transaction has locked.
--   $1 text[]: the ids of the workers
update @extschema@.job_queues
set locked_at = pg_catalog.now()
where job_queues.queue_name operator(pg_catalog.=) any (
  array(
    select queue.queue_name
    from @extschema@.job_queues as queue
    where queue.locked_by operator(pg_catalog.=) any ($1)
    for update
    skip locked
  )
)
