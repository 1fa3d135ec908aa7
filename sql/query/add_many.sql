-- Adds jobs, or changes those that have their keys, but for jobs that are running or have failed for good.
--   $1 record[]: the jobs, a job_spec[]
--   $2 boolean: whether untried jobs keep their run_at
--   $3 text[]: the keys of the jobs to add; NULL for all jobs
insert into @extschema@.jobs (
  task_identifier, payload, queue_name, run_at, max_attempts, key, priority, flags
)
select
  spec.identifier,
  coalesce(spec.payload, '{}'::pg_catalog.json),
  spec.queue_name,
  coalesce(spec.run_at, pg_catalog.now()),
  coalesce(spec.max_attempts, 25),
  spec.job_key,
  coalesce(spec.priority, 0),
  (
    select pg_catalog.jsonb_object_agg(item.flag, true)
    from pg_catalog.unnest(spec.flags) as item (flag)
  )
from @specs@
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
