-- Returns a schedule as the view shows it.
--   $1 text: the schedule's name
select schedules
from kongtask.schedules
where schedules.name operator(pg_catalog.=) $1
