-- Returns all tasks, in a schema of version 0.1.0, which has no options.
select
  tasks.identifier,
  tasks.handler,
  tasks.role::pg_catalog.oid,
  tasks.role::pg_catalog.text,
  1,
  true,
  null::pg_catalog.float8
from kongtask.tasks
