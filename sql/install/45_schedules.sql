create function kongtask.next_runs(
  cron text,
  timezone text = 'UTC',
  after timestamptz = now(),
  count integer = 5
) returns setof timestamptz
  language c stable strict
  as 'MODULE_PATHNAME', 'kongtask_next_runs';
comment on function kongtask.next_runs is
  'Returns the next instants at which a cron expression fires in a time zone: so many, after an instant, which is not among them. '
  'cron: five fields (minute, hour, day of month, month, day of week), six with the second first, a name such as @hourly, or an '
  'interval such as 30 seconds. timezone: a full name of pg_timezone_names';

create function kongtask.describe_cron(cron text) returns text
  language c immutable strict parallel safe
  as 'MODULE_PATHNAME', 'kongtask_describe_cron';
comment on function kongtask.describe_cron is 'Returns in English when a cron expression fires';
