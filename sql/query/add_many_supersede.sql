-- Takes the keys and further attempts of jobs that are running, or have failed for good.
--   $1 record[]: the jobs that get the keys, a job_spec[]
update @extschema@.jobs
set key = null, attempts = jobs.max_attempts
where
  (jobs.locked_at is not null or jobs.attempts operator(pg_catalog.>=) jobs.max_attempts)
  and jobs.key operator(pg_catalog.=) any (
    array(
      select spec.job_key
      from @specs@
    )
  )
