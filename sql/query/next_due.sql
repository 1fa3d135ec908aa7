-- The earliest run_at after $1. A job that was due when it was added is not in the index: it need not be waited for.
select job.run_at
from @extschema@.jobs as job
where
  job.run_at operator(pg_catalog.>) job.created_at
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and job.run_at operator(pg_catalog.>) $1
order by job.run_at
limit 1
