-- Locks a queue that has no row. Returns the address of its row.
--   $1 text: the queue
--   $2 text: the worker's id
--   $3 timestamptz: now
--   $4 bigint: the job that runs
insert into @extschema@.job_queues (queue_name, job_count, locked_by, locked_at, job_id)
values ($1, 1, $2, $3, $4)
on conflict (queue_name) do nothing
returning job_queues.ctid
