-- Adds a job that has no key, or whose key is free. NULL is the default of add_job.
--   $1 text: the task identifier
--   $2 json: the payload
--   $3 text: the queue's name
--   $4 timestamptz: run_at
--   $5 integer: max_attempts
--   $6 text: the key
--   $7 integer: the priority
--   $8 text[]: flags
insert into @extschema@.jobs (
  task_identifier, payload, queue_name, run_at, max_attempts, key, priority, flags
)
values (@new_job_values@)
returning jobs
