-- Claims a job that the transaction has locked.
--   $1 bigint: the job
--   $2 text: the worker's id
--   $3 timestamptz: now
update @extschema@.jobs
set
  attempts = jobs.attempts operator(pg_catalog.+) 1,
  locked_by = $2,
  locked_at = $3
where jobs.id operator(pg_catalog.=) $1
returning jobs
