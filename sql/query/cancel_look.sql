-- Returns the task of a job, whether it has failed for good, and whether an external worker has claimed it.
--   $1 bigint: the job
select
  job.task_identifier,
  job.attempts operator(pg_catalog.>=) job.max_attempts and job.locked_by is null,
  coalesce(not pg_catalog.starts_with(job.locked_by, 'kongtask:'), false)
from @extschema@.jobs as job
where job.id operator(pg_catalog.=) $1
