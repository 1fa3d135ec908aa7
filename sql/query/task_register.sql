-- Registers a task, unless another role has registered it.
--   $1 text: the task identifier
--   $2 text: the handler
--   $3 oid: the role
--   $4 boolean: whether that is a superuser, who may take tasks over
insert into kongtask.tasks (identifier, handler, role)
values ($1, $2, $3::pg_catalog.regrole::pg_catalog.text)
on conflict (identifier) do update set
  handler = excluded.handler,
  role = excluded.role,
  registered_at = pg_catalog.now()
where coalesce(tasks.runs_as, kongtask.role_named(tasks.role)) operator(pg_catalog.=) $3 or $4
returning tasks
