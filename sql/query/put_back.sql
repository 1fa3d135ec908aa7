-- Puts a job back that the transaction has deleted to run it in place, due after a delay.
--   $1 bigint: the job
--   $2 text: the task identifier
--   $3 json: the payload
--   $4 integer: the priority
--   $5 integer: max_attempts
--   $6 text: last_error
--   $7 timestamptz: created_at
--   $8 integer: the revision
--   $9 jsonb: the flags
--   $10 interval: the delay
--   $11 text: the queue
insert into @extschema@.jobs (
  id, task_identifier, payload, priority, max_attempts, last_error, created_at, revision, flags, run_at, attempts, updated_at,
  queue_name
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, pg_catalog.clock_timestamp() operator(pg_catalog.+) $10, 0, pg_catalog.now(), $11)
