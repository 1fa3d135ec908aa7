insert into kongtask.tasks (identifier, handler, role)
values ($1, $2, $3::pg_catalog.regrole::pg_catalog.text)
on conflict (identifier) do update set
  handler = excluded.handler,
  role = excluded.role,
  registered_at = pg_catalog.now()
where coalesce(tasks.runs_as, kongtask.role_named(tasks.role)) operator(pg_catalog.=) $3 or $4
returning tasks
