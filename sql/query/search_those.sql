-- Returns those of some jobs that can run. As in search.sql, jobs that a kongtask worker has locked are among them, and jobs of
-- locked queues.
--   $1 timestamptz: now
--   $2 timestamptz: locks of external workers before this time are dead
--   $3 text[]: the tasks
--   $4 text[]: forbidden flags
--   $5 text[]: paused queues; NULL if no queue is paused
--   $6 text[]: queues in which tasks are paused
--   $7 text[]: the tasks that are paused in these
--   $8 bigint[]: ids
select
  @found_job@,
  job.priority
from (
  -- Not by the index of what can run, which would be read from end to end.
  select jobs.*, jobs.ctid
  from @extschema@.jobs
  where jobs.id operator(pg_catalog.=) any ($8)
  offset 0
) as job
where
  job.run_at operator(pg_catalog.<=) $1
  and @can_run@
