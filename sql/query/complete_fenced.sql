delete from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any ($1) and jobs.locked_by operator(pg_catalog.=) $2
