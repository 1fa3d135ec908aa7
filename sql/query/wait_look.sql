-- Returns the task of a job, whether it has failed for good, who wrote and locked its row, its last_error, and what its row says of
-- it as a row of kongtask.runs.
--   $1 bigint: the job
select
  row(
    job.id,
    job.task_identifier,
    job.queue_name,
    job.key,
    'failed',
    job.attempts,
    null,
    job.updated_at,
    null,
    null,
    job.last_error,
    null,
    null
  )::kongtask.runs,
  job.task_identifier,
  job.attempts operator(pg_catalog.>=) job.max_attempts and job.locked_by is null,
  job.xmin,
  job.xmax,
  job.last_error
from @extschema@.jobs as job
where job.id operator(pg_catalog.=) $1
