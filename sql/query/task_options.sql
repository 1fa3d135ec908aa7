-- Sets the options of a task.
--   $1 text: the task identifier
--   $2 integer: max_batch
--   $3 boolean: in_place
--   $4 interval: timeout
--   $5 interval[]: backoff
--   $6 integer: max_attempts
--   $7 integer: concurrency
update kongtask.tasks
set max_batch = $2, in_place = $3, timeout = $4, backoff = $5, max_attempts = $6, concurrency = $7
where tasks.identifier operator(pg_catalog.=) $1
returning tasks
