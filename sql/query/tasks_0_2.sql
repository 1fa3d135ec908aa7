-- Returns all tasks, in a schema of version 0.2.0.
select
  tasks.identifier,
  tasks.handler,
  tasks.role::pg_catalog.oid,
  tasks.role::pg_catalog.text,
  tasks.max_batch,
  tasks.in_place,
  pg_catalog.date_part('epoch', tasks.timeout),
  false,
  null::pg_catalog.interval[],
  null::pg_catalog.int4,
  null::pg_catalog.text,
  null::pg_catalog.bool,
  null::pg_catalog.float8,
  null::pg_catalog.int4
from kongtask.tasks
