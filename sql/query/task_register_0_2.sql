-- Registers a task, in a schema of version 0.1.0 or 0.2.0.
--   $1 text: the task identifier
--   $2 text: the handler
--   $3 oid: the role
--   $4 boolean: whether that is a superuser, who may take tasks over
insert into kongtask.tasks (identifier, handler, role)
values ($1, $2, $3)
on conflict (identifier) do update set
  handler = excluded.handler,
  role = excluded.role,
  registered_at = pg_catalog.now()
where tasks.role operator(pg_catalog.=) excluded.role or $4
returning tasks
