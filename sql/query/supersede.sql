update @extschema@.jobs
set key = null, attempts = jobs.max_attempts
where jobs.key operator(pg_catalog.=) $1
returning jobs
