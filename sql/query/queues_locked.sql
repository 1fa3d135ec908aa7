-- Returns the queues that a worker has locked, each with the job that it runs, the worker, and the time.
select
  queue.queue_name,
  queue.job_id,
  queue.locked_by,
  queue.locked_at
from @extschema@.job_queues as queue
where queue.locked_at is not null
