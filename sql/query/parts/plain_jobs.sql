-- Plain jobs, which can run in the transaction that takes them: of ids $1 and task $2, due at $3, without flags $4. The rows are locked.
from @extschema@.jobs as job
where
  job.id operator(pg_catalog.=) any ($1)
  and job.task_identifier operator(pg_catalog.=) $2
  and job.run_at operator(pg_catalog.<=) $3
  and ($4 is null or (job.flags operator(pg_catalog.?|) $4) is not true)
  -- Not as the index of keys could find it: it would be read from end to end.
  and coalesce(job.key, '') operator(pg_catalog.=) ''
  and job.queue_name is null
  and job.locked_at is null
  and job.attempts operator(pg_catalog.=) 0
  and job.max_attempts operator(pg_catalog.>) 0
for update
skip locked
