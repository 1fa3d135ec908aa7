delete from kongtask.tasks
where
  tasks.identifier operator(pg_catalog.=) $1
  and (coalesce(tasks.runs_as, kongtask.role_named(tasks.role)) operator(pg_catalog.=) $2 or $3)
