-- Returns the queues that a worker has locked, each with the job that it runs, the worker, and the time. The job is the one that
-- the queue was locked for, or a later one that the worker has gone on with: it is among the queue's first. NULL if it is not found
-- there: on its last attempt, it is in no index of queues.
select
  queue.queue_name,
  coalesce(
    (
      select locked.id
      from @extschema@.jobs as locked
      where locked.id operator(pg_catalog.=) queue.job_id and locked.locked_by operator(pg_catalog.=) queue.locked_by
    ),
    (
      select running.id
      from (
        select
          job.id,
          job.locked_by
        from @extschema@.jobs as job
        where
          job.queue_name operator(pg_catalog.=) queue.queue_name
          and job.attempts operator(pg_catalog.<) job.max_attempts
        order by job.queue_name, job.priority, job.run_at, job.id
        limit 100
      ) as running
      where running.locked_by operator(pg_catalog.=) queue.locked_by
      limit 1
    )
  ),
  queue.locked_by,
  queue.locked_at
from @extschema@.job_queues as queue
where queue.locked_at is not null
