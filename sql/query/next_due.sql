-- Returns the earliest run_at after a time. Jobs that were due when they were added are not in the index, and need not be
-- waited for.
--   $1 timestamptz: the time
select job.run_at
from @extschema@.jobs as job
where
  job.run_at operator(pg_catalog.>) job.created_at
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.run_at operator(pg_catalog.>) $1
order by job.run_at
limit 1
