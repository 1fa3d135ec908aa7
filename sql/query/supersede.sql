-- Takes the key and further attempts of a job that is running.
--   $1 text: the key
update @extschema@.jobs
set key = null, attempts = jobs.max_attempts
where jobs.key operator(pg_catalog.=) $1
returning jobs
