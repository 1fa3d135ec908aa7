delete from @extschema@.jobs
where jobs.ctid operator(pg_catalog.=) any (
  array(
    select job.ctid
