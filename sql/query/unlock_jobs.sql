-- Unlocks the jobs of some external workers.
--   $1 text[]: the ids of the workers
update @extschema@.jobs
set locked_by = null, locked_at = null
where jobs.locked_by operator(pg_catalog.=) any ($1)
