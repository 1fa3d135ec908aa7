-- Adds a job, or changes the job that has its key unless that is running. NULL is the default of add_job.
--   $1 text: the task identifier
--   $2 json: the payload
--   $3 text: the queue's name
--   $4 timestamptz: run_at
--   $5 integer: max_attempts
--   $6 text: the key
--   $7 integer: the priority
--   $8 text[]: flags
--   $9 boolean: whether an untried job keeps its run_at
insert into @extschema@.jobs (
  task_identifier, payload, queue_name, run_at, max_attempts, key, priority, flags
)
values (@new_job_values@)
on conflict (key) do update set
  task_identifier = excluded.task_identifier,
  payload = excluded.payload,
  queue_name = excluded.queue_name,
  max_attempts = excluded.max_attempts,
  run_at = case
    when $9 and jobs.attempts operator(pg_catalog.=) 0
      then jobs.run_at
    else excluded.run_at
  end,
  priority = excluded.priority,
  revision = jobs.revision operator(pg_catalog.+) 1,
  flags = excluded.flags,
  attempts = 0,
  last_error = null
where jobs.locked_at is null
returning jobs
