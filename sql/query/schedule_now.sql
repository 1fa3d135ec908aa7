-- Returns the role, the task and the payload of a schedule.
--   $1 text: the schedule's name
select coalesce(entry.runs_as, kongtask.role_named(entry.role))::pg_catalog.oid, entry.task, entry.payload, entry.role
from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1
