-- Returns jobs of one priority that can run, in order. Locks nothing. Jobs that a kongtask worker has locked are among them,
-- with its id: the caller knows without clocks whether it lives.
--   $1 timestamptz: now
--   $2 timestamptz: locks of external workers before this time are dead
--   $3 text[]: the tasks
--   $4 text[]: forbidden flags
--   $5 bigint: how many at most
--   $6 integer: the priority
--   $7 timestamptz: the run_at to begin at
--   $8 bigint: the id to begin at
select
  @found_job@
from @extschema@.jobs as job
where
  job.priority operator(pg_catalog.=) $6
  and (job.run_at, job.id) operator(pg_catalog.>=) ($7, $8)
  and job.run_at operator(pg_catalog.<=) $1
  and @can_run@
order by job.run_at, job.id
limit $5
