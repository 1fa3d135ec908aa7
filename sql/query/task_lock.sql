-- Locks a task, and returns its role, that role's name, its handler and its options.
--   $1 text: the task identifier
select
  coalesce(tasks.runs_as, kongtask.role_named(tasks.role))::pg_catalog.oid,
  tasks.role,
  tasks.handler,
  tasks.max_batch,
  tasks.in_place,
  tasks.timeout,
  tasks.backoff,
  tasks.max_attempts,
  tasks.keep,
  tasks.keep_for,
  tasks.keep_payload,
  tasks.concurrency
from kongtask.tasks
where tasks.identifier operator(pg_catalog.=) $1
for update
