update kongtask.tasks
set max_batch = $2, in_place = $3, timeout = $4
where tasks.identifier operator(pg_catalog.=) $1
returning tasks
