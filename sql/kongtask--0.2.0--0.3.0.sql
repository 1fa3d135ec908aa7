-- From 0.2.0 to 0.3.0: each section makes of a 0.2.0 database what sql/install makes of an empty one. The queue's schema may have
-- any name, and is found through the extension.
do $$
begin
  perform pg_catalog.set_config(
    'search_path',
    pg_catalog.format(
      '%s, pg_temp',
      (
        select extnamespace::pg_catalog.regnamespace
        from pg_catalog.pg_extension
        where extname operator(pg_catalog.=) 'kongtask'
      )
    ),
    true
  );
end
$$;
-- From here on the queue's schema comes first in the path.

-- A row of job_queues is the lock of a queue of which a job runs. Jobs are not counted any more, so that adding and completing
-- jobs waits for nobody who adds to the same queue.
drop trigger _500_increase_job_queue_count on jobs;
drop trigger _500_increase_job_queue_count_update on jobs;
drop trigger _500_decrease_job_queue_count on jobs;
drop trigger _500_decrease_job_queue_count_update on jobs;
drop trigger _900_released on job_queues;
drop function jobs__increase_job_queue_count();
drop function jobs__decrease_job_queue_count();

alter table job_queues add column job_id bigint;
delete from job_queues where locked_at is null;
update job_queues as queue
  set
    job_count = 1,
    job_id = (
      select job.id
      from jobs as job
      where
        job.queue_name operator(pg_catalog.=) queue.queue_name
        and job.locked_by operator(pg_catalog.=) queue.locked_by
      limit 1
    );
alter table jobs set (vacuum_truncate = off, toast.vacuum_truncate = off);
alter table job_queues set (vacuum_truncate = off);

create function tg_jobs__release_queue() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_release_queue';
create trigger _500_release_queue
  after delete on jobs for each row when (old.queue_name is not null and old.locked_by is not null)
  execute function tg_jobs__release_queue();
create trigger _500_release_queue_update
  after update on jobs for each row
  when (
    old.queue_name is not null
    and old.locked_by is not null
    and (new.locked_by is distinct from old.locked_by or new.queue_name is distinct from old.queue_name)
  )
  execute function tg_jobs__release_queue();
create trigger _900_released
  after delete on job_queues for each row when (old.locked_at is not null)
  execute function tg_job_queues__released();
create trigger _900_released_update
  after update on job_queues for each row when (old.locked_at is not null and new.locked_at is null)
  execute function tg_job_queues__released();

-- Only jobs that are scheduled for later, or to be retried, pay for it: it tells what falls due next whatever their priorities.
create index jobs_run_at_idx
  on jobs (run_at)
  where run_at > created_at and attempts < max_attempts;

-- For payloads that are jsonb.
create function kongtask.add_job_jsonb(
  identifier text,
  payload jsonb = null,
  queue_name text = null,
  run_at timestamptz = null,
  max_attempts integer = null,
  job_key text = null,
  priority integer = null,
  flags text[] = null,
  job_key_mode text = 'replace'
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_job_jsonb';

-- A worker whose handler does not end although it was asked to is shown as such.

-- A role of kongtask.tasks that is missing where a dump is restored holds up its own tasks only: the column is a name now.
create function kongtask.role_named(role text) returns regrole
  language c immutable strict
  as 'MODULE_PATHNAME', 'kongtask_role_named';

alter table kongtask.tasks alter column role type text using tasks.role::pg_catalog.text;
alter table kongtask.tasks
  add column runs_as regrole generated always as (kongtask.role_named(role)) stored;

-- What keeps a database still.
create function kongtask.live_holds(
  out database name,
  out reason text,
  out pid int,
  out since timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_holds';

create view kongtask.holds as
  select
    h.database,
    h.reason,
    h.pid,
    h.since
  from kongtask.live_holds() as h;

create function kongtask.release_holds() returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_release_holds';

-- The comments, as sql/install/55_comments.sql has them.
comment on schema kongtask is 'Tasks that run inside the server, and views of the processes that run them.';

comment on table jobs is
'Jobs that wait, run or have failed.

A job that succeeds is deleted. A job that has used up max_attempts stays
until you delete it or give it further attempts with reschedule_jobs.

A job that runs in place (a first attempt without key and queue) looks here
like one that waits: kongtask.workers shows it. Its row is locked meanwhile.';
comment on column jobs.id is 'Number of the job.';
comment on column jobs.queue_name is
'Queue of the job: jobs of one queue run one at a
time, in order. NULL: none.';
comment on column jobs.task_identifier is 'Task that the job is for.';
comment on column jobs.payload is 'Argument for the handler.';
comment on column jobs.priority is
'Jobs with a lower number run first. Equal ones
run by run_at, then id.';
comment on column jobs.run_at is 'Time before which the job does not run.';
comment on column jobs.attempts is
'Number of attempts begun. The attempt of a
claimed job that runs is counted.';
comment on column jobs.max_attempts is
'Number of attempts after which the job has
failed for good.';
comment on column jobs.last_error is
'Message, SQLSTATE, detail, hint and context of
the latest failed attempt.';
comment on column jobs.created_at is 'Time when the job was added.';
comment on column jobs.updated_at is
'Time of the latest change. It grows with every
change.';
comment on column jobs.key is
'Name of the job, unique among all jobs: add_job
with the same job_key changes this job. NULL:
none.';
comment on column jobs.locked_at is
'Time when a worker claimed the job. It is
renewed while a kongtask worker runs the job.
NULL: no worker has claimed it.';
comment on column jobs.locked_by is
'Id of the worker that has claimed the job. Ids
of kongtask workers begin with "kongtask:".
NULL: no worker has claimed it.';
comment on column jobs.revision is
'Number of times that add_job found the job by
its key.';
comment on column jobs.flags is
'Object with a member for each flag, or NULL.
Workers can be told to leave jobs with certain
flags alone: see kongtask.forbidden_flags.';
comment on index jobs_priority_run_at_id_locked_at_without_failures_idx is 'The order in which jobs run.';
comment on index jobs_queue_name_priority_run_at_id_idx is 'The order in which the jobs of one queue run.';
comment on index jobs_run_at_idx is 'The order in which jobs fall due that were scheduled for later.';
comment on sequence jobs_id_seq is 'The source of jobs.id.';

comment on table job_queues is
'Queues of which a job runs.

A row is the lock of one queue. It is inserted when one of the queue''s jobs
is claimed, and deleted when that job ends.';
comment on column job_queues.queue_name is 'Name of the queue.';
comment on column job_queues.job_count is
'Always 1: the job that runs. Kept for
graphile-worker.';
comment on column job_queues.locked_at is
'Time when a worker claimed the job. It is
renewed while a kongtask worker runs the job.';
comment on column job_queues.locked_by is 'Id of the worker that runs the job.';
comment on column job_queues.job_id is 'Number of the job that runs.';

comment on table migrations is
'Migrations of graphile-worker that these tables correspond to.

It holds 1 to 9, so that the processes of graphile-worker 0.8 to 0.12 find
nothing to migrate. A later migration is refused with SQLSTATE 55000.';
comment on column migrations.id is 'Number of the migration.';
comment on column migrations.ts is 'Time when it was applied.';
comment on column migrations.breaking is
'True if older workers cannot use the tables
after it. False for 1 to 9.';

comment on table known_crontabs is
'Crontab items that external workers have seen.

External workers such as graphile-worker keep it. The kongtask workers
neither read nor write it.';
comment on column known_crontabs.identifier is 'Name of the crontab item.';
comment on column known_crontabs.known_since is 'Time when a worker first saw it.';
comment on column known_crontabs.last_execution is
'Time for which it was last turned into a job.
NULL: never.';

comment on type job_spec is
'A job for add_jobs to add.

The columns are the arguments of add_job, without job_key_mode. A column
that is NULL means the default that add_job has.';
comment on column job_spec.identifier is 'Task that the job is for.';
comment on column job_spec.payload is 'Argument for the handler.';
comment on column job_spec.queue_name is 'Queue of the job.';
comment on column job_spec.run_at is 'Time before which the job does not run.';
comment on column job_spec.max_attempts is
'Number of attempts after which the job has
failed for good.';
comment on column job_spec.job_key is 'Name of the job.';
comment on column job_spec.priority is 'Jobs with a lower number run first.';
comment on column job_spec.flags is 'Flags by which workers can leave the job alone.';

comment on function add_job is
'Adds a job, or changes the one with the same job_key, and returns its row.

The job is part of the transaction that adds it. It runs once that has
committed, or at run_at if that is later.

Arguments:
- identifier: task that the job is for, 128 characters at most.
- payload: argument for the handler. NULL: an empty object.
- queue_name: queue of the job, 128 characters at most. Jobs of one queue
  run one at a time, in order. NULL: none.
- run_at: time before which the job does not run. NULL: now.
- max_attempts: number of attempts after which the job has failed for good,
  at least 1. NULL: 25.
- job_key: name of the job, 1 to 512 characters. NULL: none.
- priority: jobs with a lower number run first. NULL: 0.
- flags: flags by which workers can leave the job alone. NULL: none.
- job_key_mode: what happens to a job that has this job_key already. replace
  changes everything; preserve_run_at changes all but run_at, unless the job
  has been tried; unsafe_dedupe changes nothing but revision.

With replace and preserve_run_at, a job that a worker has claimed loses its
key and its further attempts, and a new job is added beside it.

Errors:
- GWBID: the identifier is too long.
- GWBQN: the queue_name is too long.
- GWBJK: the job_key is too long.
- GWBMA: max_attempts is below 1.
- GWBKM: the job_key_mode is none of the three.
- 23502: the identifier is NULL.
- 23514: the job_key is empty.
- 22023: one of the flags is NULL.

Rights: EXECUTE on the function and USAGE on its schema. No right to a table
is needed.

Locks: waits for no job and no queue. With a job_key, waits for a
transaction that has added, changed or completed the job with that key and
has not ended.';

comment on function add_jobs is
'Adds many jobs at once and returns their rows.

Arguments:
- specs: the jobs. NULL: none.
- job_key_preserve_run_at: true if a job that is found by its job_key keeps
  its run_at, unless it has been tried.

A job with the same job_key is replaced. If the payloads of both are arrays,
the new one is appended to the old one. A job that a worker has claimed
loses its key and its further attempts, and a new job is added beside it.

Errors: those of add_job, and
- 21000: two of the jobs have the same job_key.

Rights: EXECUTE on the function and USAGE on its schema.

Locks: as add_job, for each job_key.';

comment on function remove_job is
'Deletes the job with this key and returns its row, or NULL if there is none.

If a worker has claimed the job, the job is not deleted: it loses its key
and its further attempts, and its row is returned.

Arguments:
- job_key: name of the job.

Rights: EXECUTE on the function and USAGE on its schema.

Locks: waits for a transaction that has added, changed or completed the job
and has not ended.';

comment on function complete_jobs is
'Deletes jobs as if they had succeeded, and returns their rows.

Jobs that a worker has claimed, or that another transaction has locked, are
left out: they are not among the rows returned. The claim of an external
worker counts for 4 hours, that of a kongtask worker for as long as it
lives.

Arguments:
- job_ids: numbers of the jobs.

Rights: EXECUTE on the function and USAGE on its schema.

Locks: waits for no job.';

comment on function permanently_fail_jobs is
'Marks jobs as failed for good and returns their rows.

Their attempts become max_attempts. Jobs that a worker has claimed, or that
another transaction has locked, are left out, as by complete_jobs.

Arguments:
- job_ids: numbers of the jobs.
- error_message: text for last_error. NULL: "Manually marked as failed".

Rights: EXECUTE on the function and USAGE on its schema.

Locks: waits for no job.';

comment on function reschedule_jobs is
'Changes when, and how often, jobs run, and returns their rows.

Jobs that a worker has claimed, or that another transaction has locked, are
left out, as by complete_jobs. A job that has failed for good gets further
attempts with attempts := 0.

Arguments:
- job_ids: numbers of the jobs.
- run_at: time before which they do not run. NULL: as it was.
- priority: jobs with a lower number run first. NULL: as it was.
- attempts: number of attempts that count as begun. NULL: as it was.
- max_attempts: number of attempts after which they have failed for good.
  NULL: as it was.

Rights: EXECUTE on the function and USAGE on its schema.

Locks: waits for no job.';

comment on function get_job is
'For external workers: claims the next job that can run and returns its row.

Returns NULL if no job can run. The queue of the job is locked with it. Ends
with complete_job or fail_job.

Arguments:
- worker_id: name of the worker, at least 10 characters.
- task_identifiers: tasks that the worker handles. NULL: any task that has
  no handler in kongtask.tasks.
- job_expiry: age at which the claim of another external worker is void.
- forbidden_flags: jobs with any of these flags are left alone. NULL: none.
- now: time up to which jobs are due.

Errors:
- P0001: the worker_id is too short.

Rights: see kongtask.grant_worker.

Locks: waits for no job. Jobs that other transactions have locked are
skipped.';

comment on function complete_job is
'For external workers: deletes a job that has succeeded and returns its row.

Returns NULL if there is no such job. If worker_id has locked the queue of
the job, the queue is released. The job is deleted whoever has claimed it.

Arguments:
- worker_id: name of the worker.
- job_id: number of the job.

Rights: see kongtask.grant_worker.

Locks: waits for a transaction that has locked the job.';

comment on function fail_job is
'For external workers: records a failed attempt and returns the row of the
job.

The job is due again after exp(least(attempts, 10)) seconds: 2.7, 7.4, 20
and so on, up to 6 hours. Its queue is released. Returns NULL if worker_id
has not claimed the job.

Arguments:
- worker_id: name of the worker.
- job_id: number of the job.
- error_message: text for last_error.

Rights: see kongtask.grant_worker.

Locks: waits for a transaction that has locked the job.';

comment on function force_unlock_workers is
'Releases all jobs and queues that these external workers have claimed.

Call it for workers that are known to be dead: their jobs can run again at
once. The attempts stay counted. The queue of a job that a live kongtask
worker runs stays locked.

Arguments:
- worker_ids: names of the workers.

Rights: EXECUTE on the function and USAGE on its schema.

Locks: waits for transactions that have locked the jobs.';

comment on function tg__update_timestamp is 'Trigger of jobs: sets updated_at, which grows with every change.';
comment on function tg_jobs__release_queue is
'Trigger of jobs: releases the queue of a claimed job that has been deleted,
unlocked or moved to another queue.

If a live kongtask worker runs the job, that worker releases the queue when
the handler has ended.';
comment on function tg_jobs__notify_new_jobs is
'Trigger of jobs: has workers woken when the transaction commits.

A job whose task has a handler in kongtask.tasks wakes kongtask workers. Any
other job is announced to external workers with NOTIFY "jobs:insert".';
comment on function tg_job_queues__released is
'Trigger of job_queues: has a worker woken for the next job of the queue when
the transaction commits.';
comment on function tg_migrations__refuse is
'Trigger of migrations: refuses graphile-worker''s migrations after 9.

Errors:
- 55000: later versions of graphile-worker cannot use these tables.';
comment on function tg_jobs__unlock_arriving is
'Trigger of jobs: releases a job of a dump that a kongtask worker had claimed
when the dump was made.';

comment on table kongtask.tasks is
'Tasks that run inside the server.

kongtask.register_task and kongtask.unregister_task change it. Jobs of all
other tasks are left to external workers.';
comment on column kongtask.tasks.identifier is 'Name of the task, as in add_job.';
comment on column kongtask.tasks.handler is
'Function that runs the jobs, with its schema and
argument types.';
comment on column kongtask.tasks.role is
'Name of the role that registered the task: the
handler runs as this role. If there is no such
role, the jobs wait until there is.';
comment on column kongtask.tasks.registered_at is 'Time when the task was last registered.';
comment on column kongtask.tasks.max_batch is
'Number of jobs that may share a transaction, or
a call of a handler that takes an array.';
comment on column kongtask.tasks.in_place is
'True if first attempts may run in the
transaction that takes the job.';
comment on column kongtask.tasks.timeout is
'Time after which a call of the handler is
cancelled and has failed. NULL: none.';
comment on column kongtask.tasks.runs_as is
'The role itself, whatever its name is now. NULL
if there was no role of that name when the row
was written.';

comment on function kongtask.register_task is
'Registers a function or procedure as the handler of a task and returns the
task''s row.

From then on, workers inside the server run the jobs of the task by calling
it as the current role. A task that is registered again is replaced.

A function takes one of (), (json), (jsonb), (jobs) and (json, jobs); or, to
get many jobs in one call, (json[]) or (jobs[]). Here jobs is the row type
of the queue''s table. What the function returns is ignored. A procedure
takes one of the first five. It may COMMIT and ROLLBACK, so what it commits
before it fails stays, and the next attempt begins again.

Arguments:
- identifier: name of the task, 1 to 128 characters.
- handler: the function or procedure.
- max_batch: number of jobs that may share a transaction, 1 to 60. For a
  function that takes an array: number of jobs in a call, 1 to 10000. NULL:
  1, and 1000 for a function that takes an array. For a procedure: 1.
- in_place: true if first attempts of jobs without key and queue may run in
  the transaction that takes them. False if all jobs are claimed first:
  better where the handler takes minutes. For a procedure, all are.
- timeout: time after which a call is cancelled and has failed, 1
  millisecond to 24 days. NULL: none.

Errors:
- 22004: the identifier or the handler is NULL.
- 22023: the identifier, max_batch or timeout is out of range, or the
  identifier is kongtask.sql.
- 42883: there is no such function.
- 42809: the handler is an aggregate or a window function, returns a set, or
  is a procedure that has OUT arguments or takes an array.
- 42P13: the function takes other arguments.
- 42501: the current role may not execute the function, or another role has
  registered the task.
- 28000: the current role cannot log in (before PostgreSQL 17).
- 55000: the extension''s tables do not exist.

Rights: EXECUTE on the function and USAGE on schema kongtask. Only the role
that registered a task, or a superuser, can replace it.

Locks: waits for another transaction that registers the same task.';

comment on function kongtask.unregister_task is
'Removes a task from kongtask.tasks and returns true, or false if it is not
there.

Its jobs stay, and are left to external workers. Jobs that run are finished.

Arguments:
- identifier: name of the task.

Errors:
- 42501: another role has registered the task.

Rights: EXECUTE on the function and USAGE on schema kongtask. Only the role
that registered a task, or a superuser, can remove it.

Locks: waits for another transaction that registers the same task.';

comment on function kongtask.current_job is
'Inside a handler: returns the row of the job that the handler runs.

Returns NULL in any other session, and in a handler that got many jobs in
one call.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

comment on function kongtask.add_job_jsonb is
'Adds a job as add_job does, with a payload that is jsonb.

Arguments, errors, rights and locks are those of add_job in the queue''s
schema.';

comment on function kongtask.grant_worker is
'Lets a role run external workers, such as those of graphile-worker.

The role may then call all functions of the queue, and read and change all
jobs. REVOKE takes the rights away again.

Arguments:
- worker: the role.

Errors:
- 42501: the current role does not own the queue''s tables.

Rights: only for the owner of the queue''s tables, and superusers.';

comment on function kongtask.role_named is
'Returns the role of this name, or NULL if there is none.

It serves the column kongtask.tasks.runs_as, which keeps what the function
returned when the row was written. For that it is declared immutable.';
comment on function kongtask.tg_tasks__changed is
'Trigger of kongtask.tasks: tells all sessions and the scheduler of a change.';

comment on view kongtask.workers is
'Worker processes of the whole server that are alive.

Without the library in shared_preload_libraries it has no row. job_id and
task_identifier are NULL unless you are a member of the worker''s role or of
pg_read_all_stats.

Rights: SELECT on the view, EXECUTE on kongtask.live_workers and USAGE on
schema kongtask.';
comment on column kongtask.workers.pid is
'Process id. NULL while the process is being
started.';
comment on column kongtask.workers.database is 'Database that it works in.';
comment on column kongtask.workers.role is 'Role that it runs handlers as.';
comment on column kongtask.workers.state is
'starting, idle, running, stopping (it ends after
the job that it runs), or unresponsive (it was
asked seconds ago to end its call, and has not).';
comment on column kongtask.workers.job_id is
'Number of the job that it runs; of many, the
first. NULL: none.';
comment on column kongtask.workers.task_identifier is 'Task of the job that it runs.';
comment on column kongtask.workers.since is 'Time when it entered its state.';
comment on column kongtask.workers.worker_id is
'Name of the worker, as in locked_by of the jobs
that it has claimed.';
comment on function kongtask.live_workers is 'Returns the rows of kongtask.workers.';

comment on view kongtask.holds is
'Reasons why no job runs in a database of this server, although it is served.

A database without a row is held by nothing. Each reason is one row.

Rights: SELECT on the view, EXECUTE on kongtask.live_holds and USAGE on
schema kongtask.';
comment on column kongtask.holds.database is 'Database in which no job runs.';
comment on column kongtask.holds.reason is
'A dump is being loaded or completed, a
subscription feeds the jobs, or a statement
needs the database without workers.';
comment on column kongtask.holds.pid is
'Process id of the session that is the reason.
NULL: it is no session.';
comment on column kongtask.holds.since is
'Time when it began. NULL: it lasts for one
statement only.';
comment on function kongtask.live_holds is 'Returns the rows of kongtask.holds.';

comment on function kongtask.release_holds is
'Lets jobs run in this database although a dump is being loaded, and returns
true, or false if none is.

Call it when the dump is complete but the session that loaded it goes on, as
one of a connection pool may.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

-- Schedules.
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

-- The handler of the tasks that run commands of schedules, each as the role that scheduled it.
create procedure kongtask.sql(payload json)
  language c
  as 'MODULE_PATHNAME', 'kongtask_sql';
comment on procedure kongtask.sql is
'Stands for the commands of schedules, which workers run.

kongtask.schedule(name, cron, ''kongtask.sql'', ''{"command": "..."}'') schedules
a command. It runs as the role that scheduled it, as a client would send
it: several statements are one transaction, and VACUUM, CREATE INDEX
CONCURRENTLY and a CALL that commits work alone.

The first such schedule of a role registers a task kongtask.sql:ROLE, with
this handler. A job of it runs only if its command is that of a schedule of
the role; any other has failed for good.

Arguments:
- payload: payload of the job.

Errors:
- 0A000: it was called.

Rights: the role that schedules a command needs EXECUTE on it, then and at
each run.';

create function kongtask.import_pg_cron() returns setof kongtask.schedules
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_import_pg_cron';
comment on function kongtask.import_pg_cron is
'Makes a schedule of each job of pg_cron in this database, and returns those
that it has made.

Each runs its command by kongtask.sql, as the role of the job, by the clocks
of cron.timezone. It has one attempt. It is named as the job is, or pg_cron
and the job''s number. A WARNING names each job that cannot be taken; a
schedule of the same name is left alone. pg_cron goes on to run its jobs
until they are unscheduled there.

Errors:
- 55000: pg_cron is not installed in this database.

Rights: jobs are taken that cron.job shows to the current role, and whose
role it is or can become.';

select pg_catalog.pg_extension_config_dump('kongtask.crontab', '');
select pg_catalog.pg_extension_config_dump('kongtask.schedule_state', '');
select pg_catalog.pg_extension_config_dump('kongtask.schedule_runs', '');

-- Whatever rights to what is new here come from elsewhere (PUBLIC, ALTER DEFAULT PRIVILEGES) are undone. New is what became a member
-- of the extension in this transaction. This comes last.
do $$
declare
  v_statement text;
begin
  for v_statement in
    select distinct pg_catalog.format(
        'revoke all on %s %s from %s cascade',
        made.kind,
        made.object,
        case when acl.grantee operator(pg_catalog.=) 0 then 'public' else acl.grantee::pg_catalog.regrole::text end
      )
    from (
      select proc.tableoid, proc.oid, 'routine' as kind, proc.oid::pg_catalog.regprocedure::text as object,
        coalesce(proc.proacl, pg_catalog.acldefault('f', proc.proowner)) as acl, proc.proowner as owner
      from pg_catalog.pg_proc as proc
      union all
      select class.tableoid, class.oid, 'table', class.oid::pg_catalog.regclass::text, class.relacl, class.relowner
      from pg_catalog.pg_class as class
      where class.relkind operator(pg_catalog.=) any ('{r,v}')
    ) as made
    inner join pg_catalog.pg_depend as member
      on member.classid operator(pg_catalog.=) made.tableoid and member.objid operator(pg_catalog.=) made.oid
    inner join pg_catalog.pg_extension as extension
      on
        member.refclassid operator(pg_catalog.=) extension.tableoid
        and member.refobjid operator(pg_catalog.=) extension.oid
    cross join lateral pg_catalog.aclexplode(made.acl) as acl
    where
      extension.extname operator(pg_catalog.=) 'kongtask'
      and member.deptype operator(pg_catalog.=) 'e'
      and member.xmin operator(pg_catalog.=) pg_catalog.pg_current_xact_id()::pg_catalog.xid
      and acl.grantee operator(pg_catalog.<>) made.owner
  loop
    execute v_statement;
  end loop;
end
$$;
