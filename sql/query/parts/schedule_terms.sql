-- What the jobs of a schedule are like, entry being its row of kongtask.crontab.
entry.task,
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
