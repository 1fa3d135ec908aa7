-- Deletes the job that has a key, unless it is running.
--   $1 text: the key
delete from @extschema@.jobs
where jobs.key operator(pg_catalog.=) $1 and jobs.locked_at is null
returning jobs
