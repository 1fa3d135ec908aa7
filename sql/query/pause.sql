-- Pauses the jobs of a task, of a queue, of a task in a queue, or all. One that is paused gets the new end and reason.
--   $1 text: the task; NULL for all
--   $2 text: the queue; NULL for all jobs
--   $3 timestamptz: the end; NULL for none
--   $4 text: the reason
--   $5 oid: the role that pauses them
insert into kongtask.pauses (task, queue_name, until, reason, role)
values ($1, $2, $3, $4, $5::pg_catalog.regrole::pg_catalog.text)
on conflict (task, queue_name) do update set
  until = excluded.until,
  reason = excluded.reason,
  role = excluded.role,
  since = case
    when pauses.until operator(pg_catalog.<=) pg_catalog.clock_timestamp() then excluded.since
    else pauses.since
  end
returning pauses
