select pg_catalog.count(*)
from (
  select 1
  from @extschema@.jobs as job
  where
    (job.locked_at is null or job.locked_at operator(pg_catalog.<) ($4 operator(pg_catalog.-) $2))
    and (
      job.queue_name is null
      or exists (
        select 1
        from @extschema@.job_queues as queue
        where
          queue.queue_name operator(pg_catalog.=) job.queue_name
          and (queue.locked_at is null or queue.locked_at operator(pg_catalog.<) ($4 operator(pg_catalog.-) $2))
      )
    )
    and job.run_at operator(pg_catalog.<=) $4
    and job.attempts operator(pg_catalog.<) job.max_attempts
    and job.task_identifier operator(pg_catalog.=) any ($1)
    and (job.flags operator(pg_catalog.?|) $3) is not true
    and (
      job.queue_name is null
      or $6 is null
      or not exists (
        -- Jobs of one queue run in order, also where their tasks are different roles'.
        select 1
        from @extschema@.jobs as earlier
        where
          earlier.queue_name operator(pg_catalog.=) job.queue_name
          and (earlier.priority, earlier.run_at, earlier.id)
          operator(pg_catalog.<) (job.priority, job.run_at, job.id)
          and earlier.task_identifier operator(pg_catalog.=) any ($6)
          and earlier.run_at operator(pg_catalog.<=) $4
          and earlier.attempts operator(pg_catalog.<) earlier.max_attempts
          and (earlier.flags operator(pg_catalog.?|) $3) is not true
      )
    )
  order by job.priority, job.run_at, job.id
  limit $5
) as runnable
