-- Returns the name of the role that registered a task.
--   $1 text: the task identifier
select tasks.role::pg_catalog.text
from kongtask.tasks
where tasks.identifier operator(pg_catalog.=) $1
