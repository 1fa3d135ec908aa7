-- Locks a limit, and returns its tasks.
--   $1 text: its name
select settings.tasks
from kongtask.limit_settings as settings
where settings.name operator(pg_catalog.=) $1
for update
