-- Deletes a job, whichever worker holds it.
--   $1 bigint: the job
delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) $1
returning jobs
