insert into kongtask.tasks (identifier, handler, role, max_batch, in_place)
values ($1, $2, $3, $5, $6)
on conflict (identifier) do update set
  handler = excluded.handler,
  role = excluded.role,
  registered_at = pg_catalog.now(),
  max_batch = excluded.max_batch,
  in_place = excluded.in_place
where tasks.role operator(pg_catalog.=) excluded.role or $4
returning tasks
