-- Returns all tasks, in a schema of version 0.2.0.
select
  tasks.identifier,
  tasks.handler,
  tasks.role::pg_catalog.oid,
  tasks.role::pg_catalog.text,
  tasks.max_batch,
  tasks.in_place,
  pg_catalog.date_part('epoch', tasks.timeout)
from kongtask.tasks
