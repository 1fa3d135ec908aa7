delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) $1
returning jobs
