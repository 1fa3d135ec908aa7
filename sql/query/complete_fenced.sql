-- Deletes jobs that a worker still holds.
--   $1 bigint[]: ids
--   $2 text: the worker's id
delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any ($1) and jobs.locked_by operator(pg_catalog.=) $2
