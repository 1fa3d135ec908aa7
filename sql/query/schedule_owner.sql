-- Locks a schedule, and returns the role that scheduled it.
--   $1 text: the schedule's name
select coalesce(entry.runs_as, kongtask.role_named(entry.role))::pg_catalog.oid, entry.role
from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1
for update
