-- Sets a limit, or replaces it.
--   $1 text: its name
--   $2 text[]: the tasks; NULL for all
--   $3 text: by
--   $4 integer: concurrency
--   $5 integer: rate
--   $6 interval: per
--   $7 integer: burst
--   $8 oid: the role that sets it
insert into kongtask.limit_settings (name, tasks, by, concurrency, rate, per, burst, role)
values ($1, $2, $3, $4, $5, $6, $7, $8::pg_catalog.regrole::pg_catalog.text)
on conflict (name) do update set
  tasks = excluded.tasks,
  by = excluded.by,
  concurrency = excluded.concurrency,
  rate = excluded.rate,
  per = excluded.per,
  burst = excluded.burst,
  role = excluded.role,
  since = pg_catalog.now()
returning limit_settings
