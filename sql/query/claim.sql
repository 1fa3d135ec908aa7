update @extschema@.jobs
set
  attempts = jobs.attempts operator(pg_catalog.+) 1,
  locked_by = $1,
  locked_at = $5
where jobs.id operator(pg_catalog.=) (
  select job.id
  from @extschema@.jobs as job
  where
    (job.locked_at is null or job.locked_at operator(pg_catalog.<) ($5 operator(pg_catalog.-) $3))
    and (
      job.queue_name is null
      or exists (
        select 1
        from @extschema@.job_queues as queue
        where
          queue.queue_name operator(pg_catalog.=) job.queue_name
          and (queue.locked_at is null or queue.locked_at operator(pg_catalog.<) ($5 operator(pg_catalog.-) $3))
        for update
        skip locked
      )
    )
    and job.run_at operator(pg_catalog.<=) $5
    and job.attempts operator(pg_catalog.<) job.max_attempts
    and ($2 is null or job.task_identifier operator(pg_catalog.=) any ($2))
    and ($4 is null or (job.flags operator(pg_catalog.?|) $4) is not true)
  order by job.priority, job.run_at, job.id
  limit 1
  for update
  skip locked
)
returning jobs
