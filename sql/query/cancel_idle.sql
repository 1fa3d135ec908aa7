-- Fails a job for good that no worker has. Skips one that another transaction has locked.
--   $1 bigint: the job
--   $2 text: last_error
--   $3 text[]: the ids of the workers that live
update @extschema@.jobs
set
  attempts = jobs.max_attempts,
  last_error = $2,
  locked_by = null,
  locked_at = null
where jobs.id operator(pg_catalog.=) any (
  array(
    select job.id
    from @extschema@.jobs as job
    where
      job.id operator(pg_catalog.=) $1
      and case
        when job.locked_by is null then job.attempts operator(pg_catalog.<) job.max_attempts
        else
          job.locked_by operator(pg_catalog.<>) all ($3)
          and (
            pg_catalog.starts_with(job.locked_by, 'kongtask:')
            or job.locked_at operator(pg_catalog.<)
            (pg_catalog.now() operator(pg_catalog.-) '4 hours'::pg_catalog.interval)
          )
      end
    for update
    skip locked
  )
)
returning jobs
