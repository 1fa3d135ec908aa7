-- The ids among $1 of jobs that are not running. $2: the workers that live. Rows that another transaction has locked are left out.
array(
  select job.id
  from @extschema@.jobs as job
  where
    job.id operator(pg_catalog.=) any ($1)
    and (
      job.locked_by is null
      or job.locked_at operator(pg_catalog.<)
      (pg_catalog.now() operator(pg_catalog.-) '4 hours'::pg_catalog.interval)
      and job.locked_by operator(pg_catalog.<>) all ($2)
    )
  for update
  skip locked
)
