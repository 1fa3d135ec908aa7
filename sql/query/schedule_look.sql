-- Returns what the jobs of a schedule are like: the columns of schedule_lock.
--   $1 text: the schedule's name
select
  true,
  null::pg_catalog.timestamptz,
  @schedule_terms@
from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1
