-- Returns those of some queues that are locked. The locks of kongtask workers count whatever their age.
--   $1 text[]: the queues
--   $2 timestamptz: locks of external workers before this time are dead
select queue.queue_name
from @extschema@.job_queues as queue
where
  queue.queue_name operator(pg_catalog.=) any ($1)
  and queue.locked_at is not null
  and (queue.locked_at operator(pg_catalog.>=) $2 or pg_catalog.starts_with(queue.locked_by, 'kongtask:'))
