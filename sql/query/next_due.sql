-- The earliest run_at after $1. The index begins with priority, so this visits each priority in use once, and in each the
-- first job after $1.
with recursive step (priority) as (
  (
    select job.priority
    from @extschema@.jobs as job
    where job.attempts operator(pg_catalog.<) job.max_attempts
    order by job.priority
    limit 1
  )
  union all
  select (
    select job.priority
    from @extschema@.jobs as job
    where
      job.attempts operator(pg_catalog.<) job.max_attempts
      and job.priority operator(pg_catalog.>) step.priority
    order by job.priority
    limit 1
  )
  from step
  where step.priority is not null
)

select pg_catalog.min((
  select job.run_at
  from @extschema@.jobs as job
  where
    job.attempts operator(pg_catalog.<) job.max_attempts
    and job.priority operator(pg_catalog.=) step.priority
    and job.run_at operator(pg_catalog.>) $1
  order by job.run_at
  limit 1
))
from step
where step.priority is not null
