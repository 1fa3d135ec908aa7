-- Changes what is not NULL of a schedule.
--   $1 text: the schedule's name
--   $2 text: cron
--   $3 text: task
--   $4 json: payload
--   $5 text: timezone
--   $6 text: queue_name
--   $7 integer: priority
--   $8 integer: max_attempts
--   $9 text: job_key
--   $10 text: job_key_mode
--   $11 text[]: flags
--   $12 text: missed
--   $13 interval: missed_within
--   $14 text: overlap
--   $15 interval: jitter
--   $16 timestamptz: starts_at
--   $17 timestamptz: ends_at
--   $18 boolean: active
update kongtask.crontab as entry
set
  cron = coalesce($2, entry.cron),
  task = coalesce($3, entry.task),
  payload = coalesce($4, entry.payload),
  timezone = coalesce($5, entry.timezone),
  queue_name = nullif(coalesce($6, entry.queue_name), ''),
  priority = coalesce($7, entry.priority),
  max_attempts = coalesce($8, entry.max_attempts),
  job_key = nullif(coalesce($9, entry.job_key), ''),
  job_key_mode = coalesce($10, entry.job_key_mode),
  flags = nullif(coalesce($11, entry.flags), '{}'),
  missed = coalesce($12, entry.missed),
  missed_within = nullif(coalesce($13, entry.missed_within), '0'),
  overlap = coalesce($14, entry.overlap),
  jitter = coalesce($15, entry.jitter),
  starts_at = nullif(coalesce($16, entry.starts_at), '-infinity'),
  ends_at = nullif(coalesce($17, entry.ends_at), 'infinity'),
  active = coalesce($18, entry.active),
  since = case when changed.is_new then changed.at else entry.since end,
  scheduled_at = case when changed.is_new then changed.at else entry.scheduled_at end
from (
  select
    was.name,
    -- One instant: a schedule that is new is told from one that goes on by their being the same.
    pg_catalog.clock_timestamp() as at,
    coalesce(
      $2 operator(pg_catalog.<>) was.cron or $5 operator(pg_catalog.<>) was.timezone or ($18 and not was.active),
      false
    ) as is_new
  from kongtask.crontab as was
  where was.name operator(pg_catalog.=) $1
) as changed
where entry.name operator(pg_catalog.=) $1 and changed.name operator(pg_catalog.=) entry.name
