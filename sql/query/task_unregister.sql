-- Unregisters a task, unless another role has registered it.
--   $1 text: the task identifier
--   $2 oid: the role
--   $3 boolean: whether that is a superuser
delete from kongtask.tasks
where
  tasks.identifier operator(pg_catalog.=) $1
  and (coalesce(tasks.runs_as, kongtask.role_named(tasks.role)) operator(pg_catalog.=) $2 or $3)
