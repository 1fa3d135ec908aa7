-- Returns jobs whose scheduled time has come, in no order of importance. As in search.sql, jobs that a kongtask worker has
-- locked are among them, and jobs of locked queues.
--   $1 timestamptz: now: scheduled at this time or before
--   $2 timestamptz: locks of external workers before this time are dead
--   $3 text[]: the tasks
--   $4 text[]: forbidden flags
--   $5 text[]: paused queues; NULL if no queue is paused
--   $6 text[]: queues in which tasks are paused
--   $7 text[]: the tasks that are paused in these
--   $8 bigint: how many at most
--   $9 timestamptz: and at this time or later
select
  @found_job@,
  job.priority
from @extschema@.jobs as job
where
  job.run_at operator(pg_catalog.>) job.created_at
  and job.run_at operator(pg_catalog.>=) $9
  and job.run_at operator(pg_catalog.<=) $1
  and @can_run@
order by job.run_at
limit $8
