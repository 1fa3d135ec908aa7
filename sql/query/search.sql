-- Returns jobs of one priority that can run, in order. Locks nothing. Jobs that a kongtask worker has locked are among them,
-- with its id: the caller knows without clocks whether it lives. So are jobs of locked queues.
--   $1 timestamptz: now
--   $2 timestamptz: locks of external workers before this time are dead
--   $3 text[]: the tasks
--   $4 text[]: forbidden flags
--   $5 text[]: paused queues; NULL if no queue is paused
--   $6 text[]: queues in which tasks are paused
--   $7 text[]: the tasks that are paused in these
--   $8 bigint: how many at most
--   $9 integer: the priority
--   $10 timestamptz: the run_at to begin at
--   $11 bigint: the id to begin at
select
  @found_job@
from @extschema@.jobs as job
where
  job.priority operator(pg_catalog.=) $9
  and (job.run_at, job.id) operator(pg_catalog.>=) ($10, $11)
  and job.run_at operator(pg_catalog.<=) $1
  and @can_run@
order by job.run_at, job.id
limit $8
