-- Renews the locks of a worker's jobs. Skips rows that another transaction has locked.
--   $1 bigint: the lowest id
--   $2 bigint: the highest id
--   $3 text: the worker's id
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
