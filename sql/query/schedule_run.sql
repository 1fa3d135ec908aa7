insert into kongtask.schedule_runs (job_id, name)
values ($1, $2)
on conflict (job_id) do nothing
