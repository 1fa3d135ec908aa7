-- Locks queue $1, which has no row, for worker $2, at $3, for job $4.
insert into @extschema@.job_queues (queue_name, job_count, locked_by, locked_at, job_id)
values ($1, 1, $2, $3, $4)
on conflict (queue_name) do nothing
