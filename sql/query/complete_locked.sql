delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any ($1)
