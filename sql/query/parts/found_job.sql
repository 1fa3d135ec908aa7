-- What a search returns of a job. The last are the kongtask worker that has locked it, and where its row is.
job.id,
job.run_at,
job.task_identifier,
job.queue_name,
job.key is null and job.locked_at is null and job.attempts operator(pg_catalog.=) 0,
case when pg_catalog.starts_with(job.locked_by, 'kongtask:') then job.locked_by end,
job.ctid
