update @extschema@.jobs
set
  attempts = jobs.attempts operator(pg_catalog.+) 1,
  last_error = $2,
  run_at = greatest(pg_catalog.now(), jobs.run_at) operator(pg_catalog.+)
    (pg_catalog.exp(least(jobs.attempts operator(pg_catalog.+) 1, 10)) operator(pg_catalog.*) '1 second'::pg_catalog.interval)
where jobs.id operator(pg_catalog.=) (
  select job.id
  from @extschema@.jobs as job
  where job.id operator(pg_catalog.=) $1 and job.locked_at is null
  for update
  skip locked
)
returning jobs
