-- Deletes jobs that the transaction has locked.
--   $1 bigint[]: ids
delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any ($1)
