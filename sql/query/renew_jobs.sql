update @extschema@.jobs
set locked_at = pg_catalog.now()
where jobs.id operator(pg_catalog.=) any (
  array(
    select job.id
    from @extschema@.jobs as job
    where
      job.id operator(pg_catalog.>=) $1
      and job.id operator(pg_catalog.<=) $2
      and job.locked_by operator(pg_catalog.=) $3
    for update
    skip locked
  )
)
