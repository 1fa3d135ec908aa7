-- Sets the options of a task. NULL stands for what a new task has.
--   $1 text: the task identifier
--   $2 integer: max_batch
--   $3 boolean: in_place
--   $4 interval: timeout
--   $5 interval[]: backoff
--   $6 integer: max_attempts
--   $7 text: keep
--   $8 interval: keep_for
--   $9 boolean: keep_payload
--   $10 integer: concurrency
update kongtask.tasks
set
  max_batch = $2,
  in_place = $3,
  timeout = $4,
  backoff = $5,
  max_attempts = $6,
  keep = coalesce($7, 'none'),
  keep_for = coalesce($8, '7 days'),
  keep_payload = coalesce($9, false),
  concurrency = $10
where tasks.identifier operator(pg_catalog.=) $1
returning tasks
