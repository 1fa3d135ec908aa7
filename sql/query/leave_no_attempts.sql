-- Counts all attempts of a job that a worker still holds as made.
--   $1 bigint: the job
--   $2 text: the worker's id
update @extschema@.jobs
set attempts = jobs.max_attempts
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_by operator(pg_catalog.=) $2
