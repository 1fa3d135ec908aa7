-- The queue that job $1 is in.
select job.queue_name
from @extschema@.jobs as job
where job.id operator(pg_catalog.=) $1
