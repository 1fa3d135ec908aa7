-- Returns the next priority that has a due job. Each step is one look into the index: at the earliest job of the next
-- priority.
--   $1 bigint: the priority to go on from
--   $2 timestamptz: now
with recursive step (priority, run_at) as (
  (
    select job.priority, job.run_at
    from @extschema@.jobs as job
    where job.attempts operator(pg_catalog.<) job.max_attempts and job.priority operator(pg_catalog.>) $1
    order by job.priority, job.run_at
    limit 1
  )
  union all
  select next.priority, next.run_at
  from step
  cross join lateral (
    select job.priority, job.run_at
    from @extschema@.jobs as job
    where job.attempts operator(pg_catalog.<) job.max_attempts and job.priority operator(pg_catalog.>) step.priority
    order by job.priority, job.run_at
    limit 1
  ) as next
  where step.run_at operator(pg_catalog.>) $2
)

select step.priority
from step
where step.run_at operator(pg_catalog.<=) $2
limit 1
