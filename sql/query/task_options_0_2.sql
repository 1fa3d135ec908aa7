-- Sets the options of a task, in a schema of version 0.2.0.
--   $1 text: the task identifier
--   $2 integer: max_batch
--   $3 boolean: in_place
--   $4 interval: timeout
update kongtask.tasks
set max_batch = $2, in_place = $3, timeout = $4
where tasks.identifier operator(pg_catalog.=) $1
returning tasks
