select schedules
from kongtask.schedules
where schedules.name operator(pg_catalog.=) $1
