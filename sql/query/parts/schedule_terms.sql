-- What the jobs of a schedule are like, entry being its row of kongtask.crontab.
-- The task of the role that scheduled it, of which command.rs tells.
case entry.task
  when 'kongtask.sql'
    then coalesce(
      (
        select task.identifier
        from kongtask.tasks as task
        where
          task.handler operator(pg_catalog.=) 'kongtask.sql(json)'
          and coalesce(task.runs_as, kongtask.role_named(task.role))
            operator(pg_catalog.=) coalesce(entry.runs_as, kongtask.role_named(entry.role))
        order by task.identifier collate "C"
        limit 1
      ),
      entry.task
    )
  else entry.task
end,
entry.payload,
coalesce(
  entry.queue_name,
  case when entry.overlap operator(pg_catalog.=) 'queue' then 'cron:' operator(pg_catalog.||) entry.name end
),
entry.priority,
entry.max_attempts,
entry.job_key,
entry.job_key_mode,
entry.flags,
entry.overlap,
pg_catalog.date_part('epoch', entry.jitter),
coalesce(entry.runs_as, kongtask.role_named(entry.role))::pg_catalog.oid,
entry.role
