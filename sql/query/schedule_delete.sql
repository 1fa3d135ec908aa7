-- Removes a schedule.
--   $1 text: the schedule's name
with state as (
  delete from kongtask.schedule_state as state where state.name operator(pg_catalog.=) $1
),

run as (
  delete from kongtask.schedule_runs as run where run.name operator(pg_catalog.=) $1
)

delete from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1
