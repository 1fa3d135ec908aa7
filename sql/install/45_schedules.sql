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
comment on table kongtask.crontab is 'What kongtask.schedule was told; kongtask.schedules shows more';
comment on column kongtask.crontab.name is 'The name of the schedule, and the identifier of its row in known_crontabs';
comment on column kongtask.crontab.cron is 'When it fires: a cron expression or an interval';
comment on column kongtask.crontab.task is 'The task of its jobs';
comment on column kongtask.crontab.payload is 'What its jobs'' handler gets; an object has a member _cron added';
comment on column kongtask.crontab.timezone is 'The time zone that the cron expression is read in';
comment on column kongtask.crontab.queue_name is 'The queue of its jobs';
comment on column kongtask.crontab.priority is 'The priority of its jobs; NULL: 0';
comment on column kongtask.crontab.max_attempts is 'How often each job is tried; NULL: 25';
comment on column kongtask.crontab.job_key is 'The key of its jobs';
comment on column kongtask.crontab.job_key_mode is 'What add_job does where a job has that key';
comment on column kongtask.crontab.flags is 'The flags of its jobs';
comment on column kongtask.crontab.missed is
  'What becomes of runs that fell due while no scheduler ran: skip (none is made up for), once (the latest is), all (each is)';
comment on column kongtask.crontab.missed_within is 'Older missed runs are not made up for; NULL: they all may be';
comment on column kongtask.crontab.overlap is
  'What happens when it is due and an earlier job is unfinished: allow (a job is added), skip (none is), queue (its jobs run one at a time)';
comment on column kongtask.crontab.jitter is 'Jobs run later by a random part of this';
comment on column kongtask.crontab.starts_at is 'It does not fire before this';
comment on column kongtask.crontab.ends_at is 'It does not fire after this';
comment on column kongtask.crontab.active is 'False: it does not fire, and misses nothing';
comment on column kongtask.crontab.role is 'The name of the role that scheduled it';
comment on column kongtask.crontab.since is 'It fires for no instant up to this one';
comment on column kongtask.crontab.scheduled_at is 'When its present times were set: what lies between since and this was missed';
comment on column kongtask.crontab.runs_as is
  'That role itself, whatever it is called by now; NULL if there was none of that name when the row was written';

-- The scheduler's own: apart, so that a fire changes nothing that schedules are read from.
create table kongtask.schedule_state (
  name text not null primary key,
  jobs bigint[] not null default '{}',
  missed_count bigint not null default 0,
  skipped_count bigint not null default 0,
  handled_until timestamptz,
  error text
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table kongtask.schedule_state is 'What the scheduler keeps of each schedule';
comment on column kongtask.schedule_state.name is 'The schedule';
comment on column kongtask.schedule_state.jobs is 'The latest job that the scheduler added, after earlier ones that overlap = skip has to know of';
comment on column kongtask.schedule_state.missed_count is 'How many runs were missed, and not made up for';
comment on column kongtask.schedule_state.skipped_count is 'How many runs were left out as an earlier job was unfinished';
comment on column kongtask.schedule_state.handled_until is 'Up to this instant, runs have been made, skipped or counted as missed';
comment on column kongtask.schedule_state.error is 'Why the latest try to fire failed';

create table kongtask.schedule_runs (
  job_id bigint not null primary key,
  name text not null
);
comment on table kongtask.schedule_runs is
  'Jobs that run_schedule has added, for overlap = skip. Apart from schedule_state, so that a fire waits for no transaction of a user''s';
comment on column kongtask.schedule_runs.job_id is 'The job';
comment on column kongtask.schedule_runs.name is 'The schedule';
create index schedule_runs_name_idx on kongtask.schedule_runs (name);
comment on index kongtask.schedule_runs_name_idx is 'The jobs of one schedule';

create function kongtask.tg_crontab__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_crontab_changed';
comment on function kongtask.tg_crontab__changed is 'Tells the scheduler that kongtask.crontab has changed';

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
comment on function kongtask.schedule_status is 'What kongtask.schedules shows as next_run_at and problem';

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
comment on view kongtask.schedules is
  'Schedules: see kongtask.schedule. last_run_at: the latest instant that a job was added for; last_job_id: the latest job that '
  'kongtask added; missed_count: runs that fell due while no scheduler ran, or the schedule was broken, and were not made up for; '
  'skipped_count: runs that overlap = skip left out; problem: what is wrong, if anything is';

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
comment on function kongtask.schedule is
  'Adds a job of a task at the times that a cron expression says, or replaces the schedule of this name. queue_name to flags: as '
  'add_job''s. missed: whether runs that fell due while no scheduler ran are made up for (skip, once, all), if they are no older '
  'than missed_within. overlap: what happens while an earlier job is unfinished (allow, skip, queue). jitter: jobs run later by a '
  'random part of this. The caller needs EXECUTE on add_job, now and whenever the schedule fires. Only the role that scheduled it, '
  'the owner of the extension or a superuser may replace a schedule';

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
comment on function kongtask.alter_schedule is
  'Changes what is given of a schedule; NULL leaves it as it is. What takes a value away: an empty queue_name, job_key or flags, '
  'missed_within = ''0'', starts_at = ''-infinity'', ends_at = ''infinity''. active: false stops it, true lets it fire from now on. '
  'Errors: 42704 if there is no schedule of this name, 42501 if it is another role''s';

create function kongtask.unschedule(name text) returns boolean
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_unschedule';
comment on function kongtask.unschedule is
  'Removes a schedule; jobs that it has added stay. False if there is none of this name. Only the role that scheduled it, the owner of '
  'the extension or a superuser may';

create function kongtask.run_schedule(name text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_run_schedule';
comment on function kongtask.run_schedule is
  'Adds a job of a schedule now, whether it is active or not, and returns it. The times at which the schedule fires stay the same. '
  'Errors: 42704 if there is no schedule of this name, 42501 if it is another role''s';

create function kongtask.import_crontab(crontab text) returns setof kongtask.schedules
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_import_crontab';
comment on function kongtask.import_crontab is
  'Makes a schedule of each line of a crontab as graphile-worker reads it, under the line''s identifier, and returns them. Where '
  'graphile-worker has run the crontab, they go on from what it last ran. Its process may run beside: each instant fires once';
