create function kongtask.next_runs(
  cron text,
  timezone text = 'UTC',
  after timestamptz = now(),
  count integer = 5
) returns setof timestamptz
  language c stable strict
  as 'MODULE_PATHNAME', 'kongtask_next_runs';
comment on function kongtask.next_runs is
'Returns the next instants at which a cron expression fires in a time zone.

There are so many as count says, after an instant that is not among them.
cron: five fields (minute, hour, day of month, month, day of week), six with
the second first, a name such as @hourly, or an interval such as
30 seconds. timezone: a full name of pg_timezone_names.';

create function kongtask.describe_cron(cron text) returns text
  language c immutable strict parallel safe
  as 'MODULE_PATHNAME', 'kongtask_describe_cron';
comment on function kongtask.describe_cron is 'Returns in English when a cron expression fires.';

create table kongtask.crontab (
  name text not null primary key check (length(name) between 1 and 120),
  cron text not null,
  task text not null check (length(task) between 1 and 128),
  payload json not null default '{}'::json,
  timezone text not null default 'UTC',
  queue_name text check (length(queue_name) <= 128),
  priority int,
  max_attempts int check (max_attempts >= 1),
  job_key text check (length(job_key) between 1 and 512),
  job_key_mode text not null default 'replace',
  flags text[],
  missed text not null default 'skip' check (missed in ('skip', 'once', 'all')),
  missed_within interval check (missed_within > '0'),
  overlap text not null default 'allow' check (overlap in ('allow', 'skip', 'queue')),
  jitter interval not null default '0' check (jitter >= '0'),
  starts_at timestamptz,
  ends_at timestamptz check (ends_at > starts_at),
  active boolean not null default true,
  role text not null,
  since timestamptz not null default now(),
  scheduled_at timestamptz not null default now(),
  runs_as regrole generated always as (kongtask.role_named(role)) stored
);

-- The scheduler's own: apart, so that a fire changes nothing that schedules are read from.
create table kongtask.schedule_state (
  name text not null primary key,
  jobs bigint[] not null default '{}',
  missed_count bigint not null default 0,
  skipped_count bigint not null default 0,
  handled_until timestamptz,
  error text
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create table kongtask.schedule_runs (
  job_id bigint not null primary key,
  name text not null
);
create index schedule_runs_name_idx on kongtask.schedule_runs (name);

create function kongtask.tg_crontab__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_crontab_changed';

create trigger _900_changed
  after insert or update or delete or truncate on kongtask.crontab for each statement
  execute function kongtask.tg_crontab__changed();

create function kongtask.schedule_status(
  cron text,
  timezone text,
  task text,
  role text,
  runs_as regrole,
  active boolean,
  after timestamptz,
  starts_at timestamptz,
  ends_at timestamptz,
  error text,
  out next_run_at timestamptz,
  out problem text
) returns setof record
  language c stable rows 1
  as 'MODULE_PATHNAME', 'kongtask_schedule_status';

create view kongtask.schedules as
  select
    entry.name,
    entry.cron,
    entry.task,
    entry.payload,
    entry.timezone,
    entry.queue_name,
    entry.priority,
    entry.max_attempts,
    entry.job_key,
    entry.job_key_mode,
    entry.flags,
    entry.missed,
    entry.missed_within,
    entry.overlap,
    entry.jitter,
    entry.starts_at,
    entry.ends_at,
    entry.active,
    entry.role,
    entry.scheduled_at,
    known.last_execution as last_run_at,
    status.next_run_at,
    greatest(
      (select max(job.id) from unnest(state.jobs) as job (id)),
      (select max(run.job_id) from kongtask.schedule_runs as run where run.name operator(pg_catalog.=) entry.name)
    ) as last_job_id,
    coalesce(state.missed_count, 0) as missed_count,
    coalesce(state.skipped_count, 0) as skipped_count,
    status.problem
  from kongtask.crontab as entry
  left join known_crontabs as known on entry.name operator(pg_catalog.=) known.identifier
  left join kongtask.schedule_state as state on entry.name operator(pg_catalog.=) state.name
  left join lateral kongtask.schedule_status(
    entry.cron,
    entry.timezone,
    entry.task,
    entry.role,
    entry.runs_as,
    entry.active,
    greatest(entry.since, known.last_execution, state.handled_until, now()),
    entry.starts_at,
    entry.ends_at,
    state.error
  ) as status on true;

create function kongtask.schedule(
  name text,
  cron text,
  task text,
  payload json = '{}',
  timezone text = 'UTC',
  queue_name text = null,
  priority int = null,
  max_attempts int = null,
  job_key text = null,
  job_key_mode text = 'replace',
  flags text[] = null,
  missed text = 'skip',
  missed_within interval = null,
  overlap text = 'allow',
  jitter interval = '0',
  starts_at timestamptz = null,
  ends_at timestamptz = null
) returns kongtask.schedules
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_schedule';

create function kongtask.alter_schedule(
  name text,
  cron text = null,
  task text = null,
  payload json = null,
  timezone text = null,
  queue_name text = null,
  priority int = null,
  max_attempts int = null,
  job_key text = null,
  job_key_mode text = null,
  flags text[] = null,
  missed text = null,
  missed_within interval = null,
  overlap text = null,
  jitter interval = null,
  starts_at timestamptz = null,
  ends_at timestamptz = null,
  active boolean = null
) returns kongtask.schedules
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_alter_schedule';

create function kongtask.unschedule(name text) returns boolean
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_unschedule';

create function kongtask.run_schedule(name text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_run_schedule';

create function kongtask.import_crontab(crontab text) returns setof kongtask.schedules
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_import_crontab';

-- What psql's \d+ and \df+ say, and what docs/reference is made from.
comment on table kongtask.crontab is
'Schedules, as they were set.

kongtask.schedule and kongtask.alter_schedule change it. The view
kongtask.schedules shows more.';
comment on column kongtask.crontab.name is
'Name of the schedule; its row in known_crontabs
has it too.';
comment on column kongtask.crontab.cron is 'When it fires: a cron expression or an interval.';
comment on column kongtask.crontab.task is 'Task of its jobs.';
comment on column kongtask.crontab.payload is
'Payload of its jobs. An object gets a member
_cron.';
comment on column kongtask.crontab.timezone is 'Time zone in which cron is read.';
comment on column kongtask.crontab.queue_name is 'Queue of its jobs. NULL: none.';
comment on column kongtask.crontab.priority is 'Priority of its jobs. NULL: 0.';
comment on column kongtask.crontab.max_attempts is 'Number of attempts of each job. NULL: 25.';
comment on column kongtask.crontab.job_key is 'Key of its jobs. NULL: none.';
comment on column kongtask.crontab.job_key_mode is 'What add_job does if a job has that key.';
comment on column kongtask.crontab.flags is 'Flags of its jobs. NULL: none.';
comment on column kongtask.crontab.missed is
'What becomes of runs that fell due while no
scheduler ran: skip, once or all.';
comment on column kongtask.crontab.missed_within is
'Age up to which missed runs are made up for.
NULL: any.';
comment on column kongtask.crontab.overlap is
'What happens while an earlier job is unfinished:
allow, skip or queue.';
comment on column kongtask.crontab.jitter is 'Jobs run later by a random part of this.';
comment on column kongtask.crontab.starts_at is 'It does not fire before this time.';
comment on column kongtask.crontab.ends_at is 'It does not fire after this time.';
comment on column kongtask.crontab.active is 'False if it does not fire.';
comment on column kongtask.crontab.role is 'Name of the role that scheduled it.';
comment on column kongtask.crontab.since is 'It does not fire for instants up to this one.';
comment on column kongtask.crontab.scheduled_at is
'Time when its cron expression or zone was set,
or it became active. What lies before was
missed.';
comment on column kongtask.crontab.runs_as is
'The role itself, whatever its name is now. NULL
if there was no role of that name when the row
was written.';
comment on table kongtask.schedule_state is
'What the scheduler notes of each schedule.

It is apart from kongtask.crontab, so that a fire changes nothing that
schedules are read from.';
comment on column kongtask.schedule_state.name is 'Name of the schedule.';
comment on column kongtask.schedule_state.jobs is
'The latest job that the scheduler has added, and
unfinished earlier ones.';
comment on column kongtask.schedule_state.missed_count is
'Number of runs that were missed and not made up
for.';
comment on column kongtask.schedule_state.skipped_count is 'Number of runs that overlap = skip left out.';
comment on column kongtask.schedule_state.handled_until is
'Up to this instant, each run was made, skipped
or missed.';
comment on column kongtask.schedule_state.error is
'Why the latest attempt to fire failed. NULL: it
did not.';
comment on table kongtask.schedule_runs is
'Jobs that run_schedule has added, until they have finished.

It is apart from schedule_state, so that a fire does not wait for the
transaction that called run_schedule.';
comment on column kongtask.schedule_runs.job_id is 'Number of the job.';
comment on column kongtask.schedule_runs.name is 'Name of the schedule.';
comment on index kongtask.schedule_runs_name_idx is 'Jobs of one schedule.';
comment on function kongtask.tg_crontab__changed() is 'Reports a change of kongtask.crontab to the scheduler.';
comment on function kongtask.schedule_status is 'Returns next_run_at and problem of a row of kongtask.schedules.';
comment on view kongtask.schedules is
'Schedules, with what they did last and will do next.

Rights: a role that reads it needs EXECUTE on kongtask.schedule_status too.';
comment on column kongtask.schedules.name is
'Name of the schedule; its row in known_crontabs
has it too.';
comment on column kongtask.schedules.cron is 'When it fires: a cron expression or an interval.';
comment on column kongtask.schedules.task is 'Task of its jobs.';
comment on column kongtask.schedules.payload is
'Payload of its jobs. An object gets a member
_cron.';
comment on column kongtask.schedules.timezone is 'Time zone in which cron is read.';
comment on column kongtask.schedules.queue_name is 'Queue of its jobs. NULL: none.';
comment on column kongtask.schedules.priority is 'Priority of its jobs. NULL: 0.';
comment on column kongtask.schedules.max_attempts is 'Number of attempts of each job. NULL: 25.';
comment on column kongtask.schedules.job_key is 'Key of its jobs. NULL: none.';
comment on column kongtask.schedules.job_key_mode is 'What add_job does if a job has that key.';
comment on column kongtask.schedules.flags is 'Flags of its jobs. NULL: none.';
comment on column kongtask.schedules.missed is
'What becomes of runs that fell due while no
scheduler ran: skip, once or all.';
comment on column kongtask.schedules.missed_within is
'Age up to which missed runs are made up for.
NULL: any.';
comment on column kongtask.schedules.overlap is
'What happens while an earlier job is unfinished:
allow, skip or queue.';
comment on column kongtask.schedules.jitter is 'Jobs run later by a random part of this.';
comment on column kongtask.schedules.starts_at is 'It does not fire before this time.';
comment on column kongtask.schedules.ends_at is 'It does not fire after this time.';
comment on column kongtask.schedules.active is 'False if it does not fire.';
comment on column kongtask.schedules.role is 'Name of the role that scheduled it.';
comment on column kongtask.schedules.scheduled_at is
'Time when its cron expression or zone was set,
or it became active.';
comment on column kongtask.schedules.last_run_at is 'Latest instant for which a job was added.';
comment on column kongtask.schedules.next_run_at is 'Next instant at which it fires. NULL: none.';
comment on column kongtask.schedules.last_job_id is 'Latest job that kongtask added for it.';
comment on column kongtask.schedules.missed_count is
'Number of runs that were missed and not made up
for.';
comment on column kongtask.schedules.skipped_count is 'Number of runs that overlap = skip left out.';
comment on column kongtask.schedules.problem is 'What is wrong. NULL: nothing.';
comment on function kongtask.schedule is
'Adds a schedule, which adds jobs at the times that a cron expression says,
and returns it.

A schedule of the same name is replaced; where nothing changes, it is left
alone. A schedule never fires for the time before it was made.

Arguments:
- name: name of the schedule, 1 to 120 characters.
- cron: when it fires: five fields (minute, hour, day of month, month, day
  of week), six with the second first, a name such as @hourly, or an
  interval such as 30 seconds.
- task: task of the jobs.
- payload: payload of the jobs. An object gets a member _cron, with ts (the
  instant) and backfilled.
- timezone: time zone in which cron is read: a full name of
  pg_timezone_names.
- queue_name: queue of the jobs.
- priority: priority of the jobs.
- max_attempts: number of attempts of each job.
- job_key: key of the jobs.
- job_key_mode: what add_job does if a job has that key.
- flags: flags of the jobs.
- missed: what becomes of runs that fell due while no scheduler ran: skip
  (nothing), once (the latest is made up for) or all (each is).
- missed_within: age up to which missed runs are made up for. NULL: any.
- overlap: what happens while an earlier job is unfinished: allow (a job is
  added), skip (none is) or queue (jobs run one at a time).
- jitter: jobs run later by a random part of this.
- starts_at: it does not fire before this time.
- ends_at: it does not fire after this time.

Errors:
- 22004: an argument that must not be NULL is.
- 22023: an argument is invalid.
- 42501: the current role may not execute add_job, or the schedule is
  another role''s.
- GWBID: the task identifier is too long.
- GWBQN: queue_name is too long.
- GWBJK: job_key is too long.
- GWBMA: max_attempts is less than 1.
- GWBKM: job_key_mode is unknown.

Rights: the current role needs EXECUTE on add_job, then and at each run. A
schedule of another role can be replaced by its members, the owner of the
extension and superusers.';
comment on function kongtask.alter_schedule is
'Changes a schedule, and returns it.

NULL leaves a value as it is. What takes a value away: an empty queue_name,
job_key or flags, ''0'' for missed_within, ''-infinity'' for starts_at,
''infinity'' for ends_at.

Arguments:
- name: name of the schedule, 1 to 120 characters.
- cron: when it fires: five fields (minute, hour, day of month, month, day
  of week), six with the second first, a name such as @hourly, or an
  interval such as 30 seconds.
- task: task of the jobs.
- payload: payload of the jobs. An object gets a member _cron, with ts (the
  instant) and backfilled.
- timezone: time zone in which cron is read: a full name of
  pg_timezone_names.
- queue_name: queue of the jobs.
- priority: priority of the jobs.
- max_attempts: number of attempts of each job.
- job_key: key of the jobs.
- job_key_mode: what add_job does if a job has that key.
- flags: flags of the jobs.
- missed: what becomes of runs that fell due while no scheduler ran: skip
  (nothing), once (the latest is made up for) or all (each is).
- missed_within: age up to which missed runs are made up for. NULL: any.
- overlap: what happens while an earlier job is unfinished: allow (a job is
  added), skip (none is) or queue (jobs run one at a time).
- jitter: jobs run later by a random part of this.
- starts_at: it does not fire before this time.
- ends_at: it does not fire after this time.
- active: false stops it; true lets it fire from now on.

Errors:
- 22004: an argument that must not be NULL is.
- 22023: an argument is invalid.
- 42501: the current role may not execute add_job, or the schedule is
  another role''s.
- 42704: there is no schedule of this name.
- GWBID: the task identifier is too long.
- GWBQN: queue_name is too long.
- GWBJK: job_key is too long.
- GWBMA: max_attempts is less than 1.
- GWBKM: job_key_mode is unknown.

Rights: the role that scheduled it, its members, the owner of the extension
and superusers may.';
comment on function kongtask.unschedule is
'Removes a schedule, and returns true if there was one.

Jobs that it has added stay.

Errors:
- 42501: the current role may not execute add_job, or the schedule is
  another role''s.

Rights: the role that scheduled it, its members, the owner of the extension
and superusers may.';
comment on function kongtask.run_schedule is
'Adds a job of a schedule now, and returns it.

The schedule may be inactive. When it fires next stays the same.

Errors:
- 42501: the current role may not execute add_job, or the schedule is
  another role''s.
- 42704: there is no schedule of this name.

Rights: the role that scheduled it, its members, the owner of the extension
and superusers may.';
comment on function kongtask.import_crontab is
'Makes a schedule of each line of a crontab of graphile-worker, and returns
them.

Each has the name of the line''s identifier. A line with fill goes on from
what graphile-worker last ran. Its process may run beside: each instant
fires once.

Errors:
- 22023: an argument is invalid.
- 42501: the current role may not execute add_job, or the schedule is
  another role''s.';
