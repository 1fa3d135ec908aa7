-- The jobs that add_jobs is given, $1: a job_spec[], read as a record[], as each schema has a type of its own.
pg_catalog.unnest($1) as spec (
  identifier pg_catalog.text,
  payload pg_catalog.json,
  queue_name pg_catalog.text,
  run_at pg_catalog.timestamptz,
  max_attempts pg_catalog.int2,
  job_key pg_catalog.text,
  priority pg_catalog.int2,
  flags pg_catalog.text[]
)
