-- Returns all tasks, each with its role, the role's name in the table, and whether that name is out of date.
select
  tasks.identifier,
  tasks.handler,
  coalesce(tasks.runs_as, kongtask.role_named(tasks.role))::pg_catalog.oid,
  tasks.role,
  tasks.max_batch,
  tasks.in_place,
  pg_catalog.date_part('epoch', tasks.timeout),
  -- Renamed, or dropped, since the row was written.
  coalesce(tasks.runs_as operator(pg_catalog.<>) kongtask.role_named(tasks.role), tasks.runs_as is not null)
    and tasks.role operator(pg_catalog.<>) tasks.runs_as::pg_catalog.text,
  tasks.backoff,
  tasks.max_attempts,
  tasks.keep,
  tasks.keep_payload,
  pg_catalog.date_part('epoch', tasks.keep_for),
  tasks.concurrency
from kongtask.tasks
