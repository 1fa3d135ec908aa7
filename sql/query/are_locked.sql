-- Returns those of some jobs that can run, whoever has them or their queues locked, and are not claimed.
--   $1 bigint[]: ids
--   $2 timestamptz: now
--   $3 text[]: forbidden flags
select jobs.id
from @extschema@.jobs
where
  jobs.id operator(pg_catalog.=) any ($1)
  and jobs.run_at operator(pg_catalog.<=) $2
  and ($3 is null or (jobs.flags operator(pg_catalog.?|) $3) is not true)
  and jobs.locked_at is null
  -- Not as the index of what can run says it, which would be read from end to end.
  and jobs.max_attempts operator(pg_catalog.-) jobs.attempts operator(pg_catalog.>) 0
