-- Whether queue $1 can be taken, if it has a row: a lock that is older than $2 is dead, unless it is one of $3, who are known to live.
select
  queue.locked_at is null
  or queue.locked_at operator(pg_catalog.<) $2 and queue.locked_by operator(pg_catalog.<>) all ($3)
from @extschema@.job_queues as queue
where queue.queue_name operator(pg_catalog.=) $1
