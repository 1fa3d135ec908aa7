-- Claims jobs of one task. Skips those that cannot run any more, or that another transaction has locked.
--   $1 bigint[]: ids
--   $2 text: the task identifier
--   $3 timestamptz: now
--   $4 text[]: forbidden flags
--   $5 text: the worker's id
--   $6 timestamptz: locks of external workers before this time are dead
--   $7 text: the queue that the worker has locked; NULL for jobs in no queue
update @extschema@.jobs
set
  attempts = jobs.attempts operator(pg_catalog.+) 1,
  locked_by = $5,
  locked_at = $3
where jobs.id operator(pg_catalog.=) any (
  array(
    select job.id
    from @extschema@.jobs as job
    where
      job.id operator(pg_catalog.=) any ($1)
      and job.task_identifier operator(pg_catalog.=) $2
      and job.run_at operator(pg_catalog.<=) $3
      and ($4 is null or (job.flags operator(pg_catalog.?|) $4) is not true)
      -- Whoever takes a job of a queue holds the queue.
      and (job.queue_name is null or job.queue_name operator(pg_catalog.=) $7)
      -- Whether a worker of ours is alive is known without clocks: its lock never gets too old.
      and (
        job.locked_at is null
        or job.locked_at operator(pg_catalog.<) $6 and not pg_catalog.starts_with(job.locked_by, 'kongtask:')
      )
      -- Not as the index of what can run says it, which would be read from end to end.
      and job.max_attempts operator(pg_catalog.-) job.attempts operator(pg_catalog.>) 0
    for update
    skip locked
  )
)
returning jobs
