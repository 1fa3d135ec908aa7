-- Returns the task of a job.
--   $1 bigint: the job
select job.task_identifier
from @extschema@.jobs as job
where job.id operator(pg_catalog.=) $1
