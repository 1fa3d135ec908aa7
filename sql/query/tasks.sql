select
  tasks.identifier,
  tasks.handler,
  tasks.role::pg_catalog.oid
from kongtask.tasks
