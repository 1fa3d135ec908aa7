-- The runs of a job, for a database that has kongtask.runs.
--   $id: the job

select 'table' as component, 'History' as description, true as small, 'No run of it has been kept.' as empty_description;
select
  run.attempt,
  run.state,
  pg_temp.at(run.started_at) as started,
  pg_temp.short(run.ended_at - run.started_at) as took,
  pg_temp.cut(left(run.result::text, 200), 120) as result,
  pg_temp.cut(left(run.error, 400), 200) as error
from kongtask.runs as run
where run.job_id = $id::bigint
order by run.ended_at desc
limit 50;
