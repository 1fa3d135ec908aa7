-- Returns a row if there is a schedule of this name.
--   $1 text: the schedule's name
select 1
from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1
