-- Takes the further attempts of a job that an external worker has claimed. Skips one that another transaction has locked.
--   $1 bigint: the job
--   $2 text: last_error
update @extschema@.jobs
set attempts = jobs.max_attempts, last_error = $2
where jobs.id operator(pg_catalog.=) any (
  array(
    select job.id
    from @extschema@.jobs as job
    where job.id operator(pg_catalog.=) $1 and not pg_catalog.starts_with(job.locked_by, 'kongtask:')
    for update
    skip locked
  )
)
