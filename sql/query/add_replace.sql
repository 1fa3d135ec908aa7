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
