-- Before ALTER EXTENSION UPDATE, the table of 0.1.0 or 0.2.0.
delete from kongtask.tasks
where tasks.identifier operator(pg_catalog.=) $1 and (tasks.role operator(pg_catalog.=) $2 or $3)
