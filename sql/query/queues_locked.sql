-- Returns the queues that a worker has locked, each with the job that it runs, the worker, and the time.
select
  queue.queue_name,
  (
    select running.id
    from @extschema@.jobs as running
    where
      running.queue_name operator(pg_catalog.=) queue.queue_name
      and running.locked_by operator(pg_catalog.=) queue.locked_by
    order by running.priority, running.run_at, running.id
    limit 1
  ),
  queue.locked_by,
  queue.locked_at
from @extschema@.job_queues as queue
where queue.locked_at is not null
