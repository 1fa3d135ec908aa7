-- Returns whether a queue can be locked, if its row is at an address: it is no lock, or a dead one.
--   $1 text: the queue
--   $2 timestamptz: locks before this time are dead
--   $3 text[]: the ids of the workers that live: their locks are not
--   $4 tid: the address
select
  queue.locked_at is null
  or queue.locked_at operator(pg_catalog.<) $2 and queue.locked_by operator(pg_catalog.<>) all ($3)
from @extschema@.job_queues as queue
where queue.ctid operator(pg_catalog.=) $4 and queue.queue_name operator(pg_catalog.=) $1
