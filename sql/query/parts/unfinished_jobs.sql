-- The jobs of schedule $1 that have not finished and may run again, as far as kongtask has added them.
select job.id
from @extschema@.jobs as job
where
  job.id operator(pg_catalog.=) any (
    array(
      select known.id
      from kongtask.schedule_state as state
      cross join lateral pg_catalog.unnest(state.jobs) as known (id)
      where state.name operator(pg_catalog.=) $1
      union all
      select run.job_id
      from kongtask.schedule_runs as run
      where run.name operator(pg_catalog.=) $1
    )
  )
  and (job.attempts operator(pg_catalog.<) job.max_attempts or job.locked_at is not null)
