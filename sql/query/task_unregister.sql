delete from kongtask.tasks
where tasks.identifier operator(pg_catalog.=) $1 and (tasks.role operator(pg_catalog.=) $2 or $3)
