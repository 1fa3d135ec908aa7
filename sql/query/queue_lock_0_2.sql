-- As version 0.2.0 of the extension has it. Locks queue $1, which has no row, for worker $2, at $3.
insert into @extschema@.job_queues (queue_name, job_count, locked_by, locked_at)
values ($1, 1, $2, $3)
on conflict (queue_name) do nothing
