where $3 is null or spec.job_key operator(pg_catalog.=) any ($3)
on conflict (key) do update set
  task_identifier = excluded.task_identifier,
  payload = case
    when
      pg_catalog.json_typeof(jobs.payload) operator(pg_catalog.=) 'array'
      and pg_catalog.json_typeof(excluded.payload) operator(pg_catalog.=) 'array'
      then (jobs.payload::pg_catalog.jsonb operator(pg_catalog.||) excluded.payload::pg_catalog.jsonb)::pg_catalog.json
    else excluded.payload
  end,
  queue_name = excluded.queue_name,
  max_attempts = excluded.max_attempts,
  run_at = case
    when $2 and jobs.attempts operator(pg_catalog.=) 0
      then jobs.run_at
    else excluded.run_at
  end,
  priority = excluded.priority,
  revision = jobs.revision operator(pg_catalog.+) 1,
  flags = excluded.flags,
  attempts = 0,
  last_error = null
where jobs.locked_at is null and jobs.attempts operator(pg_catalog.<) jobs.max_attempts
returning jobs.*
