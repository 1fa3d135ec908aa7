select
  tasks.identifier,
  tasks.handler,
  tasks.role::pg_catalog.oid,
  tasks.max_batch,
  tasks.in_place
from kongtask.tasks
