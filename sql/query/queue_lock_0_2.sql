-- Locks a queue that has no row, in a schema of version 0.2.0 or before.
--   $1 text: the queue
--   $2 text: the worker's id
--   $3 timestamptz: now
insert into @extschema@.job_queues (queue_name, job_count, locked_by, locked_at)
values ($1, 1, $2, $3)
on conflict (queue_name) do nothing
