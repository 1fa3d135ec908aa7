-- Returns the command of a job of kongtask.sql, and whether it is that of a schedule of the role.
--   $1 json: the job's payload
--   $2 oid: the role
select
  given.command,
  exists (
    select 1
    from kongtask.crontab as entry
    where
      entry.task operator(pg_catalog.=) 'kongtask.sql'
      and coalesce(entry.runs_as, kongtask.role_named(entry.role)) operator(pg_catalog.=) $2
      and (entry.payload operator(pg_catalog.->>) 'command') operator(pg_catalog.=) given.command
  )
from (select $1 operator(pg_catalog.->>) 'command' as command) as given
