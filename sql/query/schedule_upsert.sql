-- Adds a schedule, or replaces it. One whose times stay the same goes on from where it is; one that stays the same is left
-- alone.
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
--   $18 oid: the role
--   $19 timestamptz: the instant up to which it does not fire, NULL for now
insert into kongtask.crontab as entry (
  name, cron, task, payload, timezone, queue_name, priority, max_attempts, job_key, job_key_mode, flags, missed, missed_within,
  overlap, jitter, starts_at, ends_at, role, since, scheduled_at
)
select
  $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18::pg_catalog.regrole::pg_catalog.text,
  coalesce($19, moment.at), moment.at
-- One instant: a schedule that is new is told from one that goes on by their being the same.
from (select pg_catalog.clock_timestamp() as at) as moment
on conflict (name) do update set
  cron = excluded.cron,
  task = excluded.task,
  payload = excluded.payload,
  timezone = excluded.timezone,
  queue_name = excluded.queue_name,
  priority = excluded.priority,
  max_attempts = excluded.max_attempts,
  job_key = excluded.job_key,
  job_key_mode = excluded.job_key_mode,
  flags = excluded.flags,
  missed = excluded.missed,
  missed_within = excluded.missed_within,
  overlap = excluded.overlap,
  jitter = excluded.jitter,
  starts_at = excluded.starts_at,
  ends_at = excluded.ends_at,
  role = excluded.role,
  active = true,
  since = case when entry.active and (entry.cron, entry.timezone) is not distinct from (excluded.cron, excluded.timezone)
    then entry.since else excluded.since end,
  scheduled_at = case when entry.active and (entry.cron, entry.timezone) is not distinct from (excluded.cron, excluded.timezone)
    then entry.scheduled_at else excluded.scheduled_at end
where
  not entry.active
  or entry.payload::pg_catalog.text operator(pg_catalog.<>) excluded.payload::pg_catalog.text
  or (
    entry.cron, entry.task, entry.timezone, entry.queue_name, entry.priority, entry.max_attempts, entry.job_key, entry.job_key_mode,
    entry.flags, entry.missed, entry.missed_within, entry.overlap, entry.jitter, entry.starts_at, entry.ends_at, entry.role
  ) is distinct from (
    excluded.cron, excluded.task, excluded.timezone, excluded.queue_name, excluded.priority, excluded.max_attempts,
    excluded.job_key, excluded.job_key_mode, excluded.flags, excluded.missed, excluded.missed_within, excluded.overlap,
    excluded.jitter, excluded.starts_at, excluded.ends_at, excluded.role
  )
