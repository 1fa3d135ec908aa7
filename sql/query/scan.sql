-- Jobs of one priority that can run, in order, from a place on. The rows are looked at, not locked.
select
  job.id,
  job.run_at,
  job.task_identifier,
  job.queue_name is not null,
  job.key is null and job.locked_at is null and job.attempts operator(pg_catalog.=) 0
from @extschema@.jobs as job
where
  job.priority operator(pg_catalog.=) $1
  and (job.run_at, job.id) operator(pg_catalog.>=) ($2, $3)
  and job.run_at operator(pg_catalog.<=) $4
  and job.attempts operator(pg_catalog.<) job.max_attempts
  and (job.locked_at is null or job.locked_at operator(pg_catalog.<) $5)
  and job.task_identifier operator(pg_catalog.=) any ($6)
  and ($7 is null or (job.flags operator(pg_catalog.?|) $7) is not true)
  and (
    job.queue_name is null
    or exists (
      select 1
      from @extschema@.job_queues as queue
      where
        queue.queue_name operator(pg_catalog.=) job.queue_name
        and (queue.locked_at is null or queue.locked_at operator(pg_catalog.<) $5)
    )
  )
order by job.run_at, job.id
limit $8
