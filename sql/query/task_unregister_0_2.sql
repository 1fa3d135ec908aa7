-- Unregisters a task, in a schema of version 0.1.0 or 0.2.0.
--   $1 text: the task identifier
--   $2 oid: the role
--   $3 boolean: whether that is a superuser
delete from kongtask.tasks
where tasks.identifier operator(pg_catalog.=) $1 and (tasks.role operator(pg_catalog.=) $2 or $3)
