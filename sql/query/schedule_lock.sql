-- Locks the row of a schedule in known_crontabs, unless another transaction has that, and returns what its jobs are like.
--   $1 text: the schedule's name
with locked as materialized (
  select known.last_execution
  from @extschema@.known_crontabs as known
  where known.identifier operator(pg_catalog.=) $1
  for update skip locked
)

select
  exists (select 1 from locked) or not exists (
    select 1 from @extschema@.known_crontabs as known where known.identifier operator(pg_catalog.=) $1
  ),
  (select locked.last_execution from locked),
  @schedule_terms@
from kongtask.crontab as entry
where entry.name operator(pg_catalog.=) $1 and entry.active
