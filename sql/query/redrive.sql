-- Gives jobs that have failed for good further attempts, those first that have failed first. Skips rows that another transaction
-- has locked.
--   $1 text: the task; NULL for all
--   $2 bigint[]: ids; NULL for all
--   $3 bigint: how many at most; NULL for all
--   $4 timestamptz: run_at; NULL for now
update @extschema@.jobs
set attempts = 0, run_at = coalesce($4, pg_catalog.now())
where jobs.id operator(pg_catalog.=) any (
  array(
    select job.id
    from @extschema@.jobs as job
    where
      job.attempts operator(pg_catalog.>=) job.max_attempts
      and job.locked_at is null
      and ($1 is null or job.task_identifier operator(pg_catalog.=) $1)
      and ($2 is null or job.id operator(pg_catalog.=) any ($2))
    order by job.updated_at, job.id
    limit $3
    for update
    skip locked
  )
)
