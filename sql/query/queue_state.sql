-- Returns whether a queue that has a row can be locked: it is no lock, or a dead one.
--   $1 text: the queue
--   $2 timestamptz: locks before this time are dead
--   $3 text[]: the ids of the workers that live: their locks are not
select
  queue.locked_at is null
  or queue.locked_at operator(pg_catalog.<) $2 and queue.locked_by operator(pg_catalog.<>) all ($3)
from @extschema@.job_queues as queue
where queue.queue_name operator(pg_catalog.=) $1
