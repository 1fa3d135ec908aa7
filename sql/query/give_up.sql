-- Fails a job for good whose failure the transaction has recorded.
--   $1 bigint: the job
--   $2 text: last_error
update @extschema@.jobs
set attempts = jobs.max_attempts, last_error = $2
where jobs.id operator(pg_catalog.=) $1
returning jobs
