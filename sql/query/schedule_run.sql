-- Notes a job that was added by hand.
--   $1 bigint: the job
--   $2 text: the schedule's name
insert into kongtask.schedule_runs (job_id, name)
values ($1, $2)
on conflict (job_id) do nothing
