update @extschema@.jobs
set
  last_error = $3,
  run_at = greatest(pg_catalog.now(), jobs.run_at) operator(pg_catalog.+)
    (pg_catalog.exp(least(jobs.attempts, 10))::pg_catalog.text operator(pg_catalog.||) ' seconds')::pg_catalog.interval,
  locked_by = null,
  locked_at = null
where jobs.id operator(pg_catalog.=) $1 and jobs.locked_by operator(pg_catalog.=) $2
returning jobs
