-- Deletes jobs that are not running.
--   $1 bigint[]: ids
--   $2 text[]: the ids of the workers that live
delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any (@idle_jobs@)
returning jobs.*
