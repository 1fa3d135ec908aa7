-- Reads the schedules that are active.
select
  entry.name,
  entry.cron,
  entry.timezone,
  entry.missed,
  pg_catalog.date_part('epoch', entry.missed_within),
  entry.starts_at,
  entry.ends_at,
  entry.since,
  entry.scheduled_at,
  greatest(entry.since, known.last_execution, state.handled_until),
  -- Renamed, or dropped, since the row was written.
  coalesce(entry.runs_as operator(pg_catalog.<>) kongtask.role_named(entry.role), entry.runs_as is not null)
    and entry.role operator(pg_catalog.<>) entry.runs_as::pg_catalog.text
from kongtask.crontab as entry
left join @extschema@.known_crontabs as known on entry.name operator(pg_catalog.=) known.identifier
left join kongtask.schedule_state as state on entry.name operator(pg_catalog.=) state.name
where entry.active
