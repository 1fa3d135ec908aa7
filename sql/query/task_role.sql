select tasks.role::pg_catalog.text
from kongtask.tasks
where tasks.identifier operator(pg_catalog.=) $1
