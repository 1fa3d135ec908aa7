-- Returns what jobs are limited by: their ids, payloads and queues.
--   $1 bigint[]: ids
select
  job.id,
  job.payload,
  job.queue_name
from @extschema@.jobs as job
where job.id operator(pg_catalog.=) any ($1)
