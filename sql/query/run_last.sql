-- Returns the latest row of kongtask.runs that ended a job, and the role that it ran as.
--   $1 bigint: the job
--   $2 text: only if it has this error; NULL: any
select
  row(
    run.job_id,
    run.task,
    run.queue,
    run.key,
    case
      when run.state operator(pg_catalog.=) 's' then 'succeeded'
      when run.state operator(pg_catalog.=) 'f' then 'failed'
      else 'cancelled'
    end,
    run.attempt,
    run.started_at,
    run.ended_at,
    run.started_at operator(pg_catalog.-) least(run.due_at, run.started_at),
    run.result,
    run.error,
    run.payload,
    run.role
  )::kongtask.runs,
  run.role
from (
  select * from kongtask.runs_0 as rows_0 where rows_0.job_id operator(pg_catalog.=) $1
  union all
  select * from kongtask.runs_1 as rows_1 where rows_1.job_id operator(pg_catalog.=) $1
  union all
  select * from kongtask.runs_2 as rows_2 where rows_2.job_id operator(pg_catalog.=) $1
  union all
  select * from kongtask.runs_3 as rows_3 where rows_3.job_id operator(pg_catalog.=) $1
) as run
where
  run.state operator(pg_catalog.=) any ('{s,f,c}'::pg_catalog."char"[])
  and ($2 is null or run.error operator(pg_catalog.=) $2)
order by run.ended_at desc
limit 1
