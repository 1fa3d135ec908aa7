-- Returns the queue of a job.
--   $1 bigint: the job
select job.queue_name
from @extschema@.jobs as job
where job.id operator(pg_catalog.=) $1
