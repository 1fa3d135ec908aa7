-- Notes what became of a schedule that was due.
--   $1 text: the schedule's name
--   $2 bigint[]: the jobs that were added
--   $3 bigint: how many runs were missed
--   $4 bigint: how many were skipped
--   $5 timestamptz: up to when, NULL if none was
--   $6 text: what is wrong, NULL if nothing is
--   $7 boolean: whether earlier jobs that are unfinished must still be known
with unfinished as materialized (
@unfinished_jobs@
),

finished as (
  delete from kongtask.schedule_runs as run
  where run.name operator(pg_catalog.=) $1 and run.job_id operator(pg_catalog.<>) all (array(select id from unfinished))
)

insert into kongtask.schedule_state as state (name, jobs, missed_count, skipped_count, handled_until, error)
values ($1, $2, $3, $4, $5, $6)
on conflict (name) do update set
  jobs = case
    when pg_catalog.cardinality(excluded.jobs) operator(pg_catalog.=) 0 then state.jobs
    when $7
      then array(
        select known.id
        from pg_catalog.unnest(state.jobs) as known (id)
        where known.id operator(pg_catalog.=) any (array(select unfinished.id from unfinished))
      ) operator(pg_catalog.||) excluded.jobs
    else excluded.jobs
  end,
  missed_count = state.missed_count operator(pg_catalog.+) excluded.missed_count,
  skipped_count = state.skipped_count operator(pg_catalog.+) excluded.skipped_count,
  handled_until = greatest(state.handled_until, excluded.handled_until),
  error = excluded.error
