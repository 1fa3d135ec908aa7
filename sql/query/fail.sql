update @extschema@.jobs
set
  last_error = $3,
  run_at = greatest(pg_catalog.now(), jobs.run_at) operator(pg_catalog.+)
    (pg_catalog.exp(least(jobs.attempts, 10)) operator(pg_catalog.*) '1 second'::pg_catalog.interval),
  locked_by = null,
  locked_at = null
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_by operator(pg_catalog.=) $2
returning jobs
