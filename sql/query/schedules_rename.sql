-- Writes down the names of roles that were renamed, and the numbers of those that were dropped, as regrole prints them.
with stale as (
  select entry.name, entry.runs_as, entry.runs_as::pg_catalog.text as role
  from kongtask.crontab as entry
  where
    coalesce(entry.runs_as operator(pg_catalog.<>) kongtask.role_named(entry.role), entry.runs_as is not null)
    and entry.role operator(pg_catalog.<>) entry.runs_as::pg_catalog.text
  for update
)

update kongtask.crontab
set role = stale.role
from stale
where
  crontab.name operator(pg_catalog.=) stale.name
  -- Unless another role has taken that name in this moment: the row would be that one's.
  and coalesce(kongtask.role_named(stale.role) operator(pg_catalog.=) stale.runs_as, true)
