-- Removes a pause.
--   $1 text: the task; NULL for all
--   $2 text: the queue; NULL for all jobs
delete from kongtask.pauses
where
  -- No task and no queue has an empty name.
  coalesce(pauses.task, '') operator(pg_catalog.=) coalesce($1, '')
  and coalesce(pauses.queue_name, '') operator(pg_catalog.=) coalesce($2, '')
