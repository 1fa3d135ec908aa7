-- Updates the names of roles that were renamed, and those of dropped roles to their numbers, as regrole prints them.
with stale as (
  select tasks.identifier, tasks.runs_as, tasks.runs_as::pg_catalog.text as name
  from kongtask.tasks
  where
    coalesce(tasks.runs_as operator(pg_catalog.<>) kongtask.role_named(tasks.role), tasks.runs_as is not null)
    and tasks.role operator(pg_catalog.<>) tasks.runs_as::pg_catalog.text
  for update
)

update kongtask.tasks
set role = stale.name
from stale
where
  tasks.identifier operator(pg_catalog.=) stale.identifier
  -- Unless another role has taken that name in this moment: the row would be that one's.
  and coalesce(kongtask.role_named(stale.name) operator(pg_catalog.=) stale.runs_as, true)
