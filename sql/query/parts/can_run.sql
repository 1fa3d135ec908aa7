-- The conditions of a job that can run, but for its run_at and its queue. $2: locks of external workers before this time are
-- dead; $3: the tasks; $4: forbidden flags; $5 to $7: paused queues. Jobs that a kongtask worker has locked are among them, and
-- jobs of locked queues: the caller looks at each queue once.
job.attempts operator(pg_catalog.<) job.max_attempts
and (
  job.locked_at is null
  or job.locked_at operator(pg_catalog.<) $2
  or pg_catalog.starts_with(job.locked_by, 'kongtask:')
)
and job.task_identifier operator(pg_catalog.=) any ($3)
and ($4 is null or (job.flags operator(pg_catalog.?|) $4) is not true)
and (@paused@) is not true
