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
alter table jobs set (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_scale_factor = 0.01);

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

-- What a handler tells of its progress is shown with its worker. The function's entry in the catalog is changed, because
-- dropping it would take the grants of users along.
update pg_catalog.pg_proc
  set
    proallargtypes = proallargtypes operator(pg_catalog.||) array[
      'pg_catalog.int8'::pg_catalog.regtype, 'pg_catalog.int8'::pg_catalog.regtype, 'pg_catalog.text'::pg_catalog.regtype
    ]::pg_catalog.oid[],
    proargmodes = proargmodes operator(pg_catalog.||) array['o', 'o', 'o']::pg_catalog."char"[],
    proargnames = proargnames operator(pg_catalog.||) array['done', 'total', 'message']
  where oid operator(pg_catalog.=) 'kongtask.live_workers()'::pg_catalog.regprocedure;

-- Replaced, not dropped, for the same reason. Postgres refuses if the view is not the extension's.
do $$
begin
  execute pg_catalog.format(
    'create or replace view %I.workers as
      select
        w.pid,
        w.database,
        w.role,
        w.state,
        w.job_id,
        w.task_identifier,
        w.since,
        w.worker_id,
        w.done,
        w.total,
        w.message
      from kongtask.live_workers() as w',
    'kongtask'
  );
end
$$;

-- A worker whose handler does not end although it was asked to is shown as such.

-- A role of kongtask.tasks that is missing where a dump is restored holds up its own tasks only: the column is a name now.
create function kongtask.role_named(role text) returns regrole
  language c immutable strict
  as 'MODULE_PATHNAME', 'kongtask_role_named';

alter table kongtask.tasks alter column role type text using tasks.role::pg_catalog.text;
alter table kongtask.tasks
  add column runs_as regrole generated always as (kongtask.role_named(role)) stored;

-- A task can say when its failed jobs are tried again, and how often. The roles that may call register_task still may: the end of
-- this script sees to that.
alter table kongtask.tasks
  add column backoff interval[] check (
    -- Not BETWEEN, which a dump writes in another way than the catalog.
    cardinality(backoff) >= 1
    and cardinality(backoff) <= 100
    and array_position(backoff, null) is null
    and '0' < all (backoff)
    and '10 years' >= all (backoff)
  ),
  add column max_attempts int check (max_attempts >= 1),
  add column keep text not null default 'none' check (keep = any ('{none,failures,all}')),
  add column keep_for interval not null default '7 days' check (keep_for > '0' and keep_for <= '10 years'),
  add column keep_payload boolean not null default false,
  add column concurrency int check (concurrency >= 1);
select pg_catalog.set_config('kongtask_upgrade.register_task', proc.proacl::text, true)
from pg_catalog.pg_proc as proc
where
  proc.oid operator(pg_catalog.=) 'kongtask.register_task'::pg_catalog.regproc
  and proc.proacl is not null;
drop function kongtask.register_task(text, regprocedure, integer, boolean, interval);
create function kongtask.register_task(
  identifier text,
  handler regprocedure,
  max_batch integer = null,
  in_place boolean = true,
  timeout interval = null,
  backoff interval[] = null,
  max_attempts integer = null,
  keep text = 'none',
  keep_for interval = '7 days',
  keep_payload boolean = false,
  concurrency integer = null
) returns kongtask.tasks
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_register_task';

create function kongtask.alter_task(
  identifier text,
  max_batch integer = null,
  in_place boolean = null,
  timeout interval = null,
  backoff interval[] = null,
  max_attempts integer = null,
  keep text = null,
  keep_for interval = null,
  keep_payload boolean = null,
  concurrency integer = null
) returns kongtask.tasks
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_alter_task';

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
until you delete it or give it further attempts with kongtask.redrive.

A job that runs in place (a first attempt without key and queue, or behind
a quick one of its queue) looks here like one that waits: kongtask.workers
shows it. Its row is locked meanwhile.';
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

A row is the lock of one queue while its locked_at is set. It is inserted
when one of the queue''s jobs is claimed, and deleted when its worker goes
on with no other job of the queue. While an old snapshot keeps deleted rows
from being removed, the row of a queue that is locked over and over is kept:
its locked_at is NULL then, and it is deleted some seconds later.';
comment on column job_queues.queue_name is 'Name of the queue.';
comment on column job_queues.job_count is
'Always 1: the job that runs. Kept for
graphile-worker.';
comment on column job_queues.locked_at is
'Time when a worker claimed the job. It is
renewed while a kongtask worker runs the job. NULL: the queue is not locked.';
comment on column job_queues.locked_by is
'Id of the worker that runs the job. NULL: the queue is not locked.';
comment on column job_queues.job_id is
'Number of the job for which the queue was locked. A worker that goes on with
the queue''s next jobs leaves it as it is.';

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
'Schedules and crontab items, and the instant that each last fired for.

The scheduler keeps rows of kongtask.schedules here, and external workers
such as graphile-worker keep rows of their crontabs. Where both have an item
of the same name, each of its instants is fired once.';
comment on column known_crontabs.identifier is 'Name of the schedule or crontab item.';
comment on column known_crontabs.known_since is 'Time when it was first seen.';
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

kongtask.register_task, kongtask.alter_task and kongtask.unregister_task
change it. Jobs of all other tasks are left to external workers.';
comment on column kongtask.tasks.identifier is 'Name of the task, as in add_job.';
comment on column kongtask.tasks.handler is
'Function or procedure that runs the jobs, with
its schema and argument types.';
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
comment on column kongtask.tasks.backoff is
'Time after each failed attempt until the next,
of which the last repeats. NULL: exponential.';
comment on column kongtask.tasks.max_attempts is
'Number of attempts of a job, if that is less
than the job''s own. NULL: the job''s own.';
comment on column kongtask.tasks.keep is
'Attempts that leave a row in kongtask.runs:
none, failures (those that did not succeed) or
all.';
comment on column kongtask.tasks.keep_for is 'Time that such a row stays, at least.';
comment on column kongtask.tasks.keep_payload is 'True if such a row has the payload.';
comment on column kongtask.tasks.concurrency is
'Number of its jobs that may run at once. NULL:
any.';

comment on function kongtask.register_task is
'Registers a function or procedure as the handler of a task and returns the
task''s row.

From then on, workers inside the server run the jobs of the task by calling
it as the current role. A task that is registered again is replaced, with
all its options: alter_task changes only those it is given.

A function takes one of (), (json), (jsonb), (jobs) and (json, jobs); or, to
get many jobs in one call, (json[]) or (jobs[]). Here jobs is the row type
of the queue''s table. What the function returns is ignored, unless keep is
all. A procedure takes one of the first five. It may COMMIT and ROLLBACK, so
what it commits before it fails stays, and the next attempt begins again.

Arguments:
- identifier: name of the task, 1 to 128 characters.
- handler: the function or procedure.
- max_batch: number of jobs that may share a transaction, 1 to 1000. For a
  function that takes an array: number of jobs in a call, 1 to 10000. NULL:
  1, and 1000 for a function that takes an array. For a procedure: 1.
- in_place: true if first attempts of jobs without key may run in the
  transaction that takes them. False if all jobs are claimed first:
  better where the handler takes minutes. For a procedure, all are.
- timeout: time after which a call is cancelled and has failed, 1
  millisecond to 24 days. NULL: none.
- backoff: time after each failed attempt until the next, of which the last
  repeats: 1 to 100 intervals, each from 1 millisecond to 10 years. NULL:
  exp(least(attempts, 10)) seconds.
- max_attempts: number of attempts of a job, if that is less than the job''s
  own max_attempts. NULL: the job''s own.
- keep: attempts that leave a row in kongtask.runs: none, failures (those
  that did not succeed) or all. With all, what the function returns is kept
  as the job''s result, as jsonb. Of a function that takes an array, it is if
  it returns an array that has an element for each job.
- keep_for: time that such a row stays, at least: 1 millisecond to 10 years.
  The longest of all tasks counts.
- keep_payload: true if such a row has the payload.
- concurrency: number of jobs of the task that may run at once. NULL: any.

Errors:
- 22004: the identifier or the handler is NULL.
- 22023: the identifier or one of the options is out of range, or the
  identifier is kongtask.sql.
- GWBMA: max_attempts is less than 1.
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

comment on function kongtask.alter_task is
'Changes options of a task and returns the task''s row.

NULL leaves an option as it is. What takes an option away: ''0'' for timeout,
''{}'' for backoff, 0 for max_attempts and concurrency. Jobs that run are not
affected before they fail.

Arguments:
- identifier: name of the task.
- max_batch: number of jobs that may share a transaction or a call, as for
  register_task.
- in_place: true if first attempts may run in the transaction that takes
  them.
- timeout: time after which a call is cancelled and has failed, 1
  millisecond to 24 days.
- backoff: time after each failed attempt until the next, of which the last
  repeats: 1 to 100 intervals, each from 1 millisecond to 10 years.
- max_attempts: number of attempts of a job, if that is less than the job''s
  own max_attempts.
- keep: attempts that leave a row in kongtask.runs: none, failures or all.
- keep_for: time that such a row stays, at least: 1 millisecond to 10 years.
- keep_payload: true if such a row has the payload.
- concurrency: number of jobs of the task that may run at once.

Errors:
- 22004: the identifier is NULL.
- 22023: max_batch, timeout, backoff, keep, keep_for or concurrency is
  out of range.
- GWBMA: max_attempts is negative.
- 42704: the task is not registered.
- 42501: another role has registered the task.

Rights: EXECUTE on the function and USAGE on schema kongtask. The role that
registered the task, its members, the owner of the extension and superusers
may.

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

Without the library in shared_preload_libraries it has no row. What a worker
runs is NULL unless you are a member of the worker''s role or of
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
comment on column kongtask.workers.done is
'Amount of the job that is done, as its handler
has told by kongtask.progress. NULL: it has not.';
comment on column kongtask.workers.total is 'Amount of the job in all. NULL: unknown.';
comment on column kongtask.workers.message is 'What the handler says of its progress.';
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

-- Pauses, and what has failed for good.
create table kongtask.pauses (
  task text check (length(task) between 1 and 128),
  queue_name text check (length(queue_name) between 1 and 128),
  until timestamptz,
  reason text,
  role text not null,
  since timestamptz not null default now(),
  constraint pauses_task_queue_name_key unique nulls not distinct (task, queue_name)
);

-- Its key has NULLs. Without an identity, no row of it could be changed under a publication for all tables.
alter table kongtask.pauses replica identity full;

create function kongtask.tg_pauses__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_pauses_changed';

create trigger _900_changed
  after insert or update or delete or truncate on kongtask.pauses for each statement
  execute function kongtask.tg_pauses__changed();

create function kongtask.pause(
  task text = null,
  queue_name text = null,
  until timestamptz = null,
  reason text = null
) returns kongtask.pauses
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_pause';

create function kongtask.resume(task text = null, queue_name text = null) returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_resume';

create view kongtask.failed as
  select
    job.id,
    job.task_identifier,
    job.queue_name,
    job.key,
    job.payload,
    job.flags,
    job.priority,
    job.attempts,
    job.max_attempts,
    job.created_at,
    job.updated_at as failed_at,
    pg_catalog.substring(job.last_error, '^[^\n]*\(SQLSTATE ([0-9A-Z]{5})\)') as sqlstate,
    job.last_error
  from jobs as job
  where job.attempts operator(pg_catalog.>=) job.max_attempts and job.locked_at is null;

create function kongtask.redrive(
  task text = null,
  ids bigint[] = null,
  most integer = 1000,
  run_at timestamptz = now()
) returns bigint
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_redrive';

-- What psql's \d+ and \df+ say, and what docs/reference is made from.
comment on table kongtask.pauses is
'Pauses: tasks and queues of which no job begins for now.

A job is paused if its task and its queue are those of a row; NULL fits any.
kongtask.pause and kongtask.resume change the table. A pause that has ended
is removed by the scheduler.';
comment on column kongtask.pauses.task is 'Task that is paused. NULL: all.';
comment on column kongtask.pauses.queue_name is
'Queue that is paused. NULL: all jobs, in a queue
or not.';
comment on column kongtask.pauses.until is
'Time at which the pause ends. NULL: when it is
resumed.';
comment on column kongtask.pauses.reason is 'Why, as the caller of kongtask.pause said.';
comment on column kongtask.pauses.role is 'Name of the role that called kongtask.pause last.';
comment on column kongtask.pauses.since is 'Time since which it is paused.';
comment on constraint pauses_task_queue_name_key on kongtask.pauses is
'One pause of a task, a queue, a task in a queue, or everything.';
comment on index kongtask.pauses_task_queue_name_key is
'One pause of a task, a queue, a task in a queue, or everything.';
comment on function kongtask.tg_pauses__changed is
'Trigger of kongtask.pauses: tells sessions and the scheduler of a change.';
comment on function kongtask.pause is
'Keeps the jobs of a task, of a queue, or all jobs from beginning, and
returns the row of kongtask.pauses.

With a task and a queue, it pauses the jobs of that task in that queue. With
neither, it pauses everything. What is paused already gets the new until and
reason.

The pause takes effect at the commit: a job whose transaction began before
runs to its end. Jobs are added, and schedules fire, as ever: their jobs
wait. get_job leaves paused jobs out too, so external workers pause as well.
In a queue, jobs of a paused task are passed by those behind them.

Arguments:
- task: task to pause, registered or not. NULL: all.
- queue_name: queue to pause. NULL: all jobs, in a queue or not.
- until: time at which the pause ends. NULL: when it is resumed.
- reason: text for those who look at kongtask.pauses.

Errors:
- 22023: task or queue_name is empty or has more than 128 characters, or
  until has passed.
- 42501: the current role may not pause this.

Rights: EXECUTE on the function and USAGE on schema kongtask. The owner of
the extension and superusers may pause anything; the role that registered a
task, and its members, that task.

Locks: waits for another transaction that pauses or resumes the same.';
comment on function kongtask.resume is
'Ends a pause and returns true, or false if there is none.

The arguments are those of the pause: resume() without arguments ends the
pause of everything, and says in a NOTICE how many others last. At the
commit, waiting jobs begin at once.

Arguments:
- task: task of the pause. NULL: the pause is of all tasks.
- queue_name: queue of the pause. NULL: the pause is of no queue.

Errors:
- 42501: the current role may not pause this.

Rights: as for pause.

Locks: waits for another transaction that pauses or resumes the same.';
comment on view kongtask.failed is
'Jobs that have failed for good: they have used up their attempts.

They stay until kongtask.redrive gives them further attempts, or they are
deleted.';
comment on column kongtask.failed.id is 'Number of the job.';
comment on column kongtask.failed.task_identifier is 'Task that the job is for.';
comment on column kongtask.failed.queue_name is 'Queue of the job. NULL: none.';
comment on column kongtask.failed.key is 'Key of the job. NULL: none.';
comment on column kongtask.failed.payload is 'Argument for the handler.';
comment on column kongtask.failed.flags is 'Flags of the job. NULL: none.';
comment on column kongtask.failed.priority is 'Jobs with a lower number run first.';
comment on column kongtask.failed.attempts is 'Number of attempts that the job has had.';
comment on column kongtask.failed.max_attempts is 'Number of attempts that it could have.';
comment on column kongtask.failed.created_at is 'Time when the job was added.';
comment on column kongtask.failed.failed_at is
'Time when the job failed for good, or was last
changed since.';
comment on column kongtask.failed.sqlstate is
'SQLSTATE of the latest error. NULL: the message
has none.';
comment on column kongtask.failed.last_error is
'Message of the latest failed attempt, with its
detail, hint and context.';
comment on function kongtask.redrive is
'Gives jobs that have failed for good further attempts, and returns how many
jobs there were.

Their attempts count from 0 again. last_error stays until the next failure.
Those that failed first come first. Jobs that another transaction has locked
are left out. At the commit, the jobs begin.

Arguments:
- task: task of the jobs. NULL: all.
- ids: numbers of the jobs. NULL: all.
- most: number of jobs at most. NULL: all.
- run_at: time before which the jobs do not run. NULL: now.

Errors:
- 22023: most is negative.
- 42501: the current role may not redrive these jobs.

Rights: EXECUTE on the function and USAGE on schema kongtask. The owner of
the extension and superusers may redrive all jobs; the role that registered
a task, and its members, those of that task, which they must name.

Locks: the rows of the jobs.';

-- The handler of the tasks that run commands of schedules, each as the role that scheduled it.
create procedure kongtask.sql(payload json)
  language c
  as 'MODULE_PATHNAME', 'kongtask_sql';
comment on procedure kongtask.sql is
'Stands for the commands of schedules, which workers run.

kongtask.schedule(name, cron, ''kongtask.sql'', ''{"command": "..."}'')
schedules a command. It runs as the role that scheduled it, as a client
would send it: several statements are one transaction, and VACUUM, CREATE
INDEX CONCURRENTLY and a CALL that commits work alone.

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
select pg_catalog.pg_extension_config_dump('kongtask.pauses', '');

-- What a handler can ask for, about the job that it runs.

create function kongtask.snooze(delay interval) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_snooze';
comment on function kongtask.snooze is
'In a handler: has the job run again later, once the handler returns.

What the handler did is committed. The attempt is not counted. The last call
counts, but not one in a block whose effects were rolled back. If the
handler raises, it has no effect. In a handler that gets many jobs, it
concerns all of them.

Arguments:
- delay: time from the end of the attempt to the next, zero or more.

Errors:
- 55000: no handler runs in this session.
- 22004: delay is NULL.
- 22023: delay is negative or infinite.
- 22008: the time is out of range.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

create function kongtask.retry_in(delay interval) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_retry_in';
comment on function kongtask.retry_in is
'In a handler: sets when the job is retried if this attempt fails.

It stands for the back-off, this once. A failed attempt is counted as ever.
The last call counts, even one in a block that was rolled back. If the
handler returns, it has no effect. In a handler that gets many jobs, all of
them have failed then, and none is tried alone.

Arguments:
- delay: time from the failure to the next attempt, zero or more.

Errors:
- 55000: no handler runs in this session.
- 22004: delay is NULL.
- 22023: delay is negative or infinite.
- 22008: the time is out of range.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

create function kongtask.give_up(message text) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_give_up';
comment on function kongtask.give_up is
'In a handler: fails the job for good, by raising an error.

What the handler did is rolled back, and the message is the job''s
last_error. If the handler catches the error and returns, the job is
completed; if it raises another one, the attempt has failed as any other. In
a handler that gets many jobs, all of them fail for good.

Arguments:
- message: the reason.

Errors:
- KT001: always, in a handler.
- 55000: no handler runs in this session.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

create function kongtask.progress(done bigint, total bigint = null, message text = null) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_progress';
comment on function kongtask.progress is
'In a handler: shows in kongtask.workers how far the job has come.

All sessions see it at once, before the handler''s transaction is committed.
Nothing is written to disk. It is shown until the job ends, or tells of
further progress.

Arguments:
- done: amount that is done, in a unit of your choice.
- total: amount in all. NULL: unknown.
- message: text to show, of which the first 256 bytes are kept. NULL: none.

Errors:
- 55000: no handler runs in this session.
- 22004: done is NULL.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

-- Cancelling jobs, whether they wait or run.

create function kongtask.cancel(job_id bigint, reason text = null) returns text
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_cancel';
comment on function kongtask.cancel is
'Cancels a job once the transaction commits, and returns what it found.

A cancelled job has failed for good, and its last_error says: cancelled by
ROLE: reason. Nothing remains of an attempt that was stopped. The function
never waits.

It returns cancelled if the job did not run: it has failed for good.

It returns stopping if the job runs, or another session has locked its row.
At commit, the call of its handler is interrupted. If the job ends before,
that stands. An external worker is not interrupted, but its job has no
further attempts.

It returns gone if there is no such job, or it has failed for good before.

Jobs that share a transaction or a call with a cancelled one run again, and
that attempt is not counted.

Arguments:
- job_id: number of the job.
- reason: text for last_error. NULL: none. With the role it has at most 512
  bytes; what goes beyond is cut off.

Errors:
- 22004: job_id is NULL.
- 42501: the job is one of another role''s task.
- 55P03: another transaction has locked the job, and no kongtask scheduler
  serves the database.
- 53400: 256 running jobs are being cancelled already.

Rights: EXECUTE on the function and USAGE on schema kongtask. The role that
the task runs as, its members, the owner of the extension and superusers
may.';

create function kongtask.live_stats(
  out task text,
  out added bigint,
  out succeeded bigint,
  out failed bigint,
  out discarded bigint,
  out cancelled bigint,
  out snoozed bigint,
  out timed_out bigint,
  out crashed bigint,
  out running bigint,
  out total_run_time double precision,
  out min_run_time double precision,
  out max_run_time double precision,
  out mean_run_time double precision,
  out stddev_run_time double precision,
  out total_wait_time double precision,
  out max_wait_time double precision,
  out last_success_at timestamptz,
  out last_failure_at timestamptz,
  out last_error text,
  out stats_reset timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_stats';

create view kongtask.stat_tasks as
  select
    stats.task,
    task.role,
    stats.added,
    stats.succeeded,
    stats.failed,
    stats.discarded,
    stats.cancelled,
    stats.snoozed,
    stats.timed_out,
    stats.crashed,
    stats.running,
    stats.total_run_time,
    stats.min_run_time,
    stats.max_run_time,
    stats.mean_run_time,
    stats.stddev_run_time,
    stats.total_wait_time,
    stats.max_wait_time,
    stats.last_success_at,
    stats.last_failure_at,
    stats.last_error,
    stats.stats_reset
  from kongtask.live_stats() as stats
  left join kongtask.tasks as task on stats.task operator(pg_catalog.=) task.identifier;

create function kongtask.stat_reset(task text = null) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_stat_reset';

create function kongtask.stat_histogram(
  task text = null,
  what text = 'run',
  out le double precision,
  out count bigint
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_stat_histogram';

create function kongtask.job_state(job jobs, deleter xid, out state text, out why text) returns setof record
  language c stable rows 1
  as 'MODULE_PATHNAME', 'kongtask_job_state';

create view kongtask.job_states with (security_invoker = true) as
  select
    job.id,
    job.task_identifier,
    job.queue_name,
    job.key,
    job.priority,
    job.run_at,
    job.attempts,
    job.max_attempts,
    seen.state,
    seen.why,
    job.last_error,
    job.created_at,
    job.locked_at,
    job.locked_by,
    job.flags,
    job.payload
  from jobs as job
  cross join lateral kongtask.job_state(job, job.xmax) as seen;

create view kongtask.queues with (security_invoker = true) as
  select
    coalesce(waiting.queue_name, lock.queue_name) as queue_name,
    coalesce(waiting.jobs, 0) as jobs,
    coalesce(waiting.ready, 0) as ready,
    coalesce(waiting.failed, 0) as failed,
    waiting.head,
    -- One that runs in place does not say so in its row.
    coalesce(lock.job_id, worker.job_id) as running,
    lock.locked_by,
    worker.pid,
    lock.locked_at as since,
    waiting.oldest_wait
  from (
    select
      job.queue_name,
      count(*) as jobs,
      count(*) filter (where job.is_due) as ready,
      count(*) filter (where job.attempts operator(pg_catalog.>=) job.max_attempts) as failed,
      (array_agg(job.id order by job.priority, job.run_at, job.id) filter (where job.is_due))[1] as head,
      statement_timestamp() operator(pg_catalog.-)
        min(greatest(job.run_at, job.created_at)) filter (where job.is_due) as oldest_wait
    from (
      select
        queued.id,
        queued.queue_name,
        queued.priority,
        queued.run_at,
        queued.created_at,
        queued.attempts,
        queued.max_attempts,
        queued.attempts operator(pg_catalog.<) queued.max_attempts
          and queued.run_at operator(pg_catalog.<=) statement_timestamp()
          and queued.locked_at is null
          and queued.id operator(pg_catalog.<>) all (
            array(
              select busy.job_id
              from kongtask.live_workers() as busy
              where busy.job_id is not null and busy.database operator(pg_catalog.=) current_database()
            )
          ) as is_due
      from jobs as queued
      where queued.queue_name is not null
    ) as job
    group by job.queue_name
  ) as waiting
  full join (
    select
      locked.queue_name,
      (
        select running.id
        from jobs as running
        where
          running.queue_name operator(pg_catalog.=) locked.queue_name
          and running.locked_by operator(pg_catalog.=) locked.locked_by
        order by running.priority, running.run_at, running.id
        limit 1
      ) as job_id,
      locked.locked_by,
      locked.locked_at
    from job_queues as locked
    where locked.locked_at is not null
  ) as lock on waiting.queue_name operator(pg_catalog.=) lock.queue_name
  left join kongtask.live_workers() as worker on lock.locked_by operator(pg_catalog.=) worker.worker_id;

create function kongtask.live_overview(
  out ready bigint,
  out waiting bigint,
  out running bigint,
  out scheduled bigint,
  out retrying bigint,
  out failed bigint,
  out oldest_ready_age interval,
  out jobs_per_second double precision,
  out workers_busy bigint,
  out workers bigint
) returns setof record
  language c volatile rows 1
  as 'MODULE_PATHNAME', 'kongtask_live_overview';

create view kongtask.overview as
  select
    now.ready,
    now.waiting,
    now.running,
    now.scheduled,
    now.retrying,
    now.failed,
    now.oldest_ready_age,
    now.jobs_per_second,
    now.workers_busy,
    now.workers
  from kongtask.live_overview() as now;

comment on function kongtask.live_stats is 'Returns the rows of kongtask.stat_tasks.';
comment on view kongtask.stat_tasks is
'Counters of each task in this database, since they were last reset.

Times are in milliseconds. As those of pg_stat_*, the counters outlive a
restart of the server, and are zero after a crash. Jobs that external
workers run are not counted, nor those added while their task was not
registered here.

There are kongtask.max_tracked_tasks rows for all databases together.
Further tasks are counted in one row, <others>, which all databases share.

Rights: SELECT on the view, EXECUTE on kongtask.live_stats and USAGE on
schema kongtask. last_error is NULL unless you may read all jobs.';
comment on column kongtask.stat_tasks.task is 'Name of the task.';
comment on column kongtask.stat_tasks.role is
'Role that it runs as. NULL: it is not registered
any more.';
comment on column kongtask.stat_tasks.added is 'Number of jobs added, by committed transactions.';
comment on column kongtask.stat_tasks.succeeded is 'Number of jobs completed.';
comment on column kongtask.stat_tasks.failed is
'Number of attempts that failed, for whatever
reason.';
comment on column kongtask.stat_tasks.discarded is
'Number of jobs whose last attempt failed: they
have failed for good.';
comment on column kongtask.stat_tasks.cancelled is 'Number of jobs cancelled.';
comment on column kongtask.stat_tasks.snoozed is 'Number of attempts that put their job off.';
comment on column kongtask.stat_tasks.timed_out is
'Number of failed attempts that took longer than
the task''s timeout.';
comment on column kongtask.stat_tasks.crashed is
'Number of times that a worker process crashed or
was killed while it ran a job.';
comment on column kongtask.stat_tasks.running is 'Number of jobs that run now.';
comment on column kongtask.stat_tasks.total_run_time is
'Time spent on attempts. Of jobs that share a
call, each counts an equal part.';
comment on column kongtask.stat_tasks.min_run_time is 'Shortest attempt.';
comment on column kongtask.stat_tasks.max_run_time is 'Longest attempt.';
comment on column kongtask.stat_tasks.mean_run_time is 'Mean time of an attempt.';
comment on column kongtask.stat_tasks.stddev_run_time is
'Population standard deviation of the time of an
attempt.';
comment on column kongtask.stat_tasks.total_wait_time is
'Time from when jobs were added and due until an
attempt began.';
comment on column kongtask.stat_tasks.max_wait_time is 'Longest such time.';
comment on column kongtask.stat_tasks.last_success_at is 'Time when a job was last completed.';
comment on column kongtask.stat_tasks.last_failure_at is 'Time when an attempt last failed.';
comment on column kongtask.stat_tasks.last_error is 'Beginning of the latest error.';
comment on column kongtask.stat_tasks.stats_reset is 'Time from which on the row counts.';

comment on function kongtask.stat_reset is
'Resets the counters of kongtask.stat_tasks to zero.

Arguments:
- task: name of the task. NULL: all of this database, and <others>.

Errors:
- 42501: the current role may not.

Rights: EXECUTE on the function, for the owner of the extension and
superusers; the role that a task runs as can reset the counters of that
task.';
comment on function kongtask.stat_histogram is
'Returns how many attempts took how long: 24 rows, of which each has twice
the time of the one before.

le is the upper bound of a row in milliseconds, from 0.125 on; the last is
infinity. count is the number of attempts above the bound of the row before
and not above this one. Sum it up for what Prometheus calls le.

Arguments:
- task: name of the task. NULL: all tasks of this database.
- what: run (how long attempts took) or wait (how long jobs had waited
  before).

Errors:
- 22004: what is NULL.
- 22023: what is neither.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

comment on function kongtask.job_state is 'Returns state and why of a row of kongtask.job_states.';
comment on view kongtask.job_states is
'Jobs, each with its state and why it does not run.

Rights: those of the table jobs, row level security included; EXECUTE on
kongtask.job_state and USAGE on schema kongtask.';
comment on column kongtask.job_states.id is 'Number of the job.';
comment on column kongtask.job_states.task_identifier is 'Task that the job is for.';
comment on column kongtask.job_states.queue_name is 'Queue of the job. NULL: none.';
comment on column kongtask.job_states.key is 'Name of the job. NULL: none.';
comment on column kongtask.job_states.priority is 'Jobs with a lower number run first.';
comment on column kongtask.job_states.run_at is 'Time before which the job does not run.';
comment on column kongtask.job_states.attempts is 'Number of attempts begun.';
comment on column kongtask.job_states.max_attempts is
'Number of attempts after which the job has
failed for good.';
comment on column kongtask.job_states.state is
'ready (a free worker takes it), waiting (it is
due, and something keeps it from running),
scheduled (it was never tried, and is for later),
running, retrying (an attempt failed, and the
next is for later) or failed (for good).';
comment on column kongtask.job_states.why is
'Why it does not run. NULL: it runs or is ready.';
comment on column kongtask.job_states.last_error is 'Error of the latest failed attempt.';
comment on column kongtask.job_states.created_at is 'Time when the job was added.';
comment on column kongtask.job_states.locked_at is
'Time when a worker claimed the job. NULL: none
has. Jobs that run in place are not claimed.';
comment on column kongtask.job_states.locked_by is 'Id of the worker that has claimed the job.';
comment on column kongtask.job_states.flags is 'Object with a member for each flag, or NULL.';
comment on column kongtask.job_states.payload is 'Argument for the handler.';

comment on view kongtask.queues is
'Queues, whose jobs run one at a time: what runs, and what waits.

Rights: those of the tables jobs and job_queues, row level security
included; EXECUTE on kongtask.live_workers and USAGE on schema kongtask.';
comment on column kongtask.queues.queue_name is 'Name of the queue.';
comment on column kongtask.queues.jobs is 'Number of its jobs, in any state.';
comment on column kongtask.queues.ready is 'Number of jobs that are due and not running.';
comment on column kongtask.queues.failed is 'Number of jobs that have failed for good.';
comment on column kongtask.queues.head is
'Number of the job that is next. NULL: none is
due.';
comment on column kongtask.queues.running is 'Number of the job that runs. NULL: none.';
comment on column kongtask.queues.locked_by is 'Id of the worker that runs it.';
comment on column kongtask.queues.pid is
'Process id of that worker. NULL: none, or an
external one.';
comment on column kongtask.queues.since is 'Time when it was claimed.';
comment on column kongtask.queues.oldest_wait is
'Time that the job has waited that was due
first. NULL: none is due.';

comment on function kongtask.live_overview is 'Returns the row of kongtask.overview.';
comment on view kongtask.overview is
'One row for this database: how many jobs are in which state, how fast they
run, and how many workers are busy.

It reads the whole table jobs: less than a fifth of a second for a million
jobs. In psql, \watch makes a live picture of it.

Rights: SELECT on the view and the table jobs, EXECUTE on
kongtask.live_overview and USAGE on schema kongtask; where row level
security applies to you, EXECUTE on get_job.';
comment on column kongtask.overview.ready is 'Number of jobs that a free worker takes.';
comment on column kongtask.overview.waiting is
'Number of jobs that are due, and that something
keeps from running: see kongtask.job_states.';
comment on column kongtask.overview.running is 'Number of jobs that run.';
comment on column kongtask.overview.scheduled is
'Number of jobs that were never tried and are for
later.';
comment on column kongtask.overview.retrying is
'Number of jobs that wait for another attempt.';
comment on column kongtask.overview.failed is 'Number of jobs that have failed for good.';
comment on column kongtask.overview.oldest_ready_age is
'Time that the oldest ready job has been due.
NULL: none is ready.';
comment on column kongtask.overview.jobs_per_second is
'Number of jobs completed in a second, on average
of the latest ten. External workers'' jobs are
not counted.';
comment on column kongtask.overview.workers_busy is 'Number of workers that run jobs.';
comment on column kongtask.overview.workers is 'Number of workers.';

create function kongtask.server_state(
  out is_preloaded boolean,
  out is_served boolean,
  out workers int,
  out lacks_slot boolean,
  out needs_login boolean,
  out job_expiry interval,
  out flags_problem text
) returns setof record
  language c volatile rows 1
  as 'MODULE_PATHNAME', 'kongtask_server_state';

create function kongtask.handler_problem(handler text, role oid, out problem text, out mend text) returns setof record
  language c volatile rows 1
  as 'MODULE_PATHNAME', 'kongtask_handler_problem';

create function kongtask.doctor(out "check" text, out status text, out detail text, out hint text) returns setof record
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  as $$
begin
  return query execute format(
    $doctor$
    with server as materialized (
      select * from kongtask.server_state()
    ),
    task as (
      select t.identifier, t.handler, t.role, coalesce(t.runs_as, kongtask.role_named(t.role))::oid as role_id
      from kongtask.tasks as t
    ),
    garbage as (
      select t.n_dead_tup, t.n_live_tup
      from pg_stat_all_tables as t
      where t.relid = '%1$s.jobs'::regclass and t.n_dead_tup > 50000 + 2 * t.n_live_tup
    ),
    lock as (
      select q.locked_by, q.locked_at, format('queue "%%s"', q.queue_name) as what,
        -- A worker of ours that goes on with the queue leaves job_id as it was.
        not starts_with(q.locked_by, 'kongtask:')
          and not exists (select from %1$s.jobs as j where j.id = q.job_id) as is_orphan
      from %1$s.job_queues as q
      where q.locked_at is not null
      union all
      select j.locked_by, j.locked_at, format('job %%s', j.id),
        j.queue_name is not null
          and not exists (select from %1$s.job_queues as q where q.queue_name = j.queue_name and q.locked_at is not null)
      from %1$s.jobs as j
      where j.locked_at is not null
    ),
    limited as (
      select s.name, s.tasks, s.by, s.concurrency, s.rate, s.per, s.burst from kongtask.limit_settings as s
      union all
      select 'task:' || t.identifier, array[t.identifier], null, t.concurrency, null, null, 1
      from kongtask.tasks as t
      where t.concurrency is not null
    ),
    -- Limits and keys that have had no room for a minute: so long have as many jobs as may run at once been running.
    saturated as (
      select limited.name, limited.tasks, limited.by, run.key, max(run.since) as since,
        array_agg(run.job_id order by run.since) as job_ids
      from limited
      cross join lateral (
        select w.job_id, w.since, case when limited.by is not null then kongtask.limit_key(j.payload, j.queue_name, limited.by) end as key
        from kongtask.workers as w
        inner join %1$s.jobs as j on j.id = w.job_id
        where
          w.database = current_database() and w.state = 'running'
          and (limited.tasks is null or j.task_identifier = any(limited.tasks))
      ) as run
      group by limited.name, limited.tasks, limited.by, limited.concurrency, run.key
      having count(*) >= limited.concurrency and max(run.since) < clock_timestamp() - interval '1 min'
    ),
    finding as (
      select
        'preload' as name,
        'error' as status,
        'The library is not in shared_preload_libraries: jobs can be added, and no worker runs them. A change takes effect after a restart of the server.' as detail,
        format(
          'alter system set shared_preload_libraries = %%s',
          concat_ws(', ', (
            select string_agg(quote_literal(btrim(library, ' "')), ', ')
            from pg_settings, regexp_split_to_table(setting, ',') as library
            where pg_settings.name = 'shared_preload_libraries' and btrim(library) <> ''
          ), quote_literal('kongtask'))
        ) as hint
      from server where not is_preloaded
      union all
      select 'databases', 'error',
        format('kongtask.databases does not list database "%%s".', current_database()),
        format(
          'alter system set kongtask.databases = %%L; select pg_reload_conf()',
          case
            when btrim(current_setting('kongtask.databases')) = '' then current_database()
            else format('%%s, %%s', current_setting('kongtask.databases'), current_database())
          end
        )
      from server where not is_served
      union all
      select 'workers', 'error', 'kongtask.workers is 0: no job runs.',
        format(
          'alter system set kongtask.workers = %%s; select pg_reload_conf()',
          least(16, greatest(1, current_setting('max_worker_processes')::int - 2))
        )
      from server where workers = 0
      union all
      select 'slots', case when lacks_slot then 'error' else 'warning' end,
        format(
          'max_worker_processes is %%s. kongtask needs one slot for its launcher, and one for the scheduler and up to %%s for the workers of each database with jobs. A change takes effect after a restart of the server.',
          current_setting('max_worker_processes'),
          workers
        ),
        format('alter system set max_worker_processes = %%s', current_setting('max_worker_processes')::int + 2 + workers)
      from server
      where
        is_preloaded and is_served
        and (
          lacks_slot
          -- The default is for servers that have slots enough; others run fewer.
          or current_setting('max_worker_processes')::int < 2 + workers
          and (select s.source from pg_settings as s where s.name = 'kongtask.workers') <> 'default'
        )
      union all
      select 'standby', 'warning', 'The server is a standby: jobs run on its primary.', 'select pg_promote()'
      where pg_is_in_recovery()
      union all
      select 'holds', 'error', format('No job runs in this database: %%s.', held.reason),
        coalesce(
          (
            select format('alter subscription %%I disable', s.subname)
            from pg_subscription as s
            inner join pg_subscription_rel as r on s.oid = r.srsubid
            where
              s.subenabled and r.srrelid = '%1$s.jobs'::regclass and held.reason ~ 'subscription'
              and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
            limit 1
          ),
          'select kongtask.release_holds()'
        )
      from kongtask.holds as held
      where held.database = current_database()
      union all
      select 'role', 'error',
        case
          when role.oid is null and task.role ~ '^[0-9]+$'
            then format('Task "%%s" runs as a role that has been dropped.', task.identifier)
          when role.oid is null then format('Task "%%s" runs as role %%s, which does not exist.', task.identifier, task.role)
          when not role.rolcanlogin and server.needs_login
            then format('Task "%%s" runs as role %%I, which cannot log in.', task.identifier, role.rolname)
          else format('Task "%%s" runs as role %%I, which may not connect to this database.', task.identifier, role.rolname)
        end,
        case
          when role.oid is null and task.role ~ '^[0-9]+$' then format('select kongtask.unregister_task(%%L)', task.identifier)
          when role.oid is null then format('create role %%s login', task.role)
          when not role.rolcanlogin and server.needs_login then format('alter role %%I login', role.rolname)
          else format('grant connect on database %%I to %%I', current_database(), role.rolname)
        end
      from task
      cross join server
      left join pg_roles as role on task.role_id = role.oid
      where
        role.oid is null
        or not role.rolcanlogin and server.needs_login
        or not has_database_privilege(role.oid, current_database(), 'connect')
      union all
      select 'task', 'warning',
        format(
          '%%s jobs wait for task "%%s", the oldest since %%s. The task is not registered in this database, and no session looks like an external worker.',
          count(*),
          job.task_identifier,
          date_trunc('second', min(job.run_at))
        ),
        format('select kongtask.register_task(%%L, ''HANDLER(json)'')', job.task_identifier)
      from %1$s.jobs as job
      where
        job.attempts < job.max_attempts
        and not exists (select from task where task.identifier = job.task_identifier)
        and not exists (
          select from pg_stat_activity as session
          where
            session.datname = current_database() and session.pid <> pg_backend_pid()
            and session.query ~ 'get_job|jobs:insert'
        )
      group by job.task_identifier
      union all
      select 'handler', 'error', format('Task "%%s": %%s.', task.identifier, checked.problem),
        coalesce(checked.mend, format('select kongtask.unregister_task(%%L)', task.identifier))
      from task
      cross join lateral kongtask.handler_problem(task.handler, task.role_id) as checked
      where task.role_id is not null and checked.problem is not null
      union all
      select 'failing', 'warning',
        format(
          'The latest attempt of task "%%s" failed, and %%s attempts before it; %%s have succeeded. The latest error is: %%s. Mend the handler first.',
          stats.task, stats.failed - 1, stats.succeeded, stats.last_error
        ),
        format(
          'select count(*) from %1$s.reschedule_jobs(array(select id from %1$s.jobs where task_identifier = %%L and attempts > 0), run_at := now(), attempts := 0)',
          stats.task
        )
      from kongtask.stat_tasks as stats
      where stats.failed >= 3 and stats.last_failure_at > coalesce(stats.last_success_at, '-infinity')
      union all
      select 'locks', 'warning',
        format('Worker "%%s", which has locked %%s and %%s more, does not live.', lock.locked_by, min(lock.what), count(*) - 1),
        format('select %1$s.force_unlock_workers(array[%%L])', lock.locked_by)
      from lock
      cross join server
      where
        lock.is_orphan
        or case starts_with(lock.locked_by, 'kongtask:')
          when true then not exists (select from kongtask.workers as w where w.worker_id = lock.locked_by)
          else lock.locked_at < now() - server.job_expiry
        end
      group by lock.locked_by
      union all
      select 'autovacuum', 'warning',
        format('Table jobs has %%s dead rows beside %%s live ones.', garbage.n_dead_tup, garbage.n_live_tup),
        'vacuum %1$s.jobs'
      from garbage
      union all
      select 'autovacuum', 'warning', 'The setting autovacuum is off: dead rows make searches slow.',
        'alter system set autovacuum = on; select pg_reload_conf()'
      where current_setting('autovacuum') = 'off'
      union all
      select 'xmin', 'warning',
        format(
          'The transaction of process %%s (%%s, %%s) has been open since %%s: dead rows of table jobs stay.',
          session.pid, session.usename, session.state, date_trunc('second', session.xact_start)
        ),
        format('select pg_terminate_backend(%%s)', session.pid)
      from garbage
      cross join pg_stat_activity as session
      where session.backend_xmin is not null and session.xact_start < clock_timestamp() - interval '5 s'
      union all
      select 'xmin', 'warning',
        format('Transaction "%%s" has been prepared since %%s: dead rows of table jobs stay.', p.gid, date_trunc('second', p.prepared)),
        format('rollback prepared %%L', p.gid)
      from garbage
      cross join pg_prepared_xacts as p
      where p.prepared < clock_timestamp() - interval '5 s'
      union all
      select 'xmin', 'warning',
        format('Replication slot "%%s" is not in use and keeps dead rows of table jobs.', slot.slot_name),
        format('select pg_drop_replication_slot(%%L)', slot.slot_name)
      from garbage
      cross join pg_replication_slots as slot
      where not slot.active and (slot.xmin is not null or slot.catalog_xmin is not null)
      union all
      select 'clock', 'warning',
        format('%%s jobs were added or claimed in the future: the clock has been set back.', count(*)),
        'update %1$s.jobs set run_at = least(run_at, now()), created_at = least(created_at, now()), locked_at = least(locked_at, now()) where created_at > now() or locked_at > now()'
      from %1$s.jobs as job
      where job.created_at > now() + interval '1 min' or job.locked_at > now() + interval '1 min'
      having count(*) > 0
      union all
      select 'run_at', 'warning',
        format('%%s jobs are to run more than ten years from now.', count(*)),
        'select count(*) from %1$s.reschedule_jobs(array(select id from %1$s.jobs where run_at > now() + interval ''10 years'' and run_at < ''infinity''), run_at := now())'
      from %1$s.jobs as job
      where job.run_at > now() + interval '10 years' and job.run_at < 'infinity'
      having count(*) > 0
      union all
      select 'schedules', 'warning', format('Schedule "%%s": %%s.', schedule.name, schedule.problem),
        format('select kongtask.unschedule(%%L)', schedule.name)
      from kongtask.schedules as schedule
      where schedule.problem is not null
      union all
      select 'limits', 'warning',
        format('Limit "%%s" names tasks that are not registered: %%s.', limited.name, array_to_string(named.unknown, ', ')),
        case
          when named.known is null then format('select kongtask.drop_limit(%%L)', limited.name)
          else format(
            'select kongtask.set_limit(%%L, %%L, %%L, %%L, %%L, %%L, %%L)',
            limited.name, named.known, limited.by, limited.concurrency, limited.rate, limited.per, limited.burst
          )
        end
      from limited
      cross join lateral (
        select
          array_agg(l.task order by l.task) filter (where task.identifier is null) as unknown,
          array_agg(l.task order by l.task) filter (where task.identifier is not null) as known
        from unnest(limited.tasks) as l (task)
        left join task on task.identifier = l.task
      ) as named
      where named.unknown is not null
      union all
      select 'limits', 'warning',
        format(
          'Of %%s jobs that wait under limit "%%s", %%s share one limit, as they have no %%s. Perhaps it is spelt otherwise.',
          waiting.jobs, limited.name, waiting.without,
          case when limited.by = 'queue_name' then 'queue' else format('member "%%s"', limited.by) end
        ),
        format(
          'select kongtask.set_limit(%%L, %%L, ''MEMBER'', %%L, %%L, %%L, %%L)',
          limited.name, limited.tasks, limited.concurrency, limited.rate, limited.per, limited.burst
        )
      from limited
      cross join lateral (
        select count(*) as jobs, count(*) filter (where kongtask.limit_key(j.payload, j.queue_name, limited.by) is null) as without
        from (
          select j.payload, j.queue_name
          from %1$s.jobs as j
          where
            j.attempts < j.max_attempts and j.locked_at is null
            and (limited.tasks is null or j.task_identifier = any(limited.tasks))
          limit 1000
        ) as j
      ) as waiting
      where limited.by is not null and waiting.jobs >= 10 and waiting.without * 2 > waiting.jobs
      union all
      select 'limits', 'warning',
        format(
          'Limit "%%s" has had no room%%s since %%s: %%s jobs wait until one of these ends: %%s.',
          saturated.name, coalesce(' for key "' || saturated.key || '"', ''), date_trunc('second', saturated.since),
          waiting.jobs, array_to_string(saturated.job_ids, ', ')
        ),
        format('select kongtask.cancel(%%s)', saturated.job_ids[1])
      from saturated
      cross join lateral (
        select count(*) as jobs
        from %1$s.jobs as j
        where
          j.attempts < j.max_attempts and j.locked_at is null and j.run_at <= saturated.since
          and j.id <> all(saturated.job_ids)
          and (saturated.tasks is null or j.task_identifier = any(saturated.tasks))
          and (saturated.by is null or kongtask.limit_key(j.payload, j.queue_name, saturated.by) is not distinct from saturated.key)
      ) as waiting
      where waiting.jobs > 0
      union all
      select 'flags', 'error', format('kongtask.forbidden_flags_function: %%s. No job runs meanwhile.', flags_problem),
        'alter system set kongtask.forbidden_flags_function = ''''; select pg_reload_conf()'
      from server where flags_problem is not null
      union all
      select 'triggers', 'warning',
        format('Trigger %%s of table %%s is disabled: workers do not learn of jobs at once.', t.tgname, t.tgrelid::regclass),
        format('alter table %%s enable trigger %%I', t.tgrelid::regclass, t.tgname)
      from pg_trigger as t
      where t.tgrelid in ('%1$s.jobs'::regclass, '%1$s.job_queues'::regclass) and t.tgenabled = 'D' and not t.tgisinternal
    ),
    known (name) as (
      values ('preload'), ('databases'), ('workers'), ('slots'), ('standby'), ('holds'), ('role'), ('task'), ('handler'),
        ('failing'), ('locks'), ('autovacuum'), ('xmin'), ('clock'), ('run_at'), ('schedules'), ('limits'), ('flags'), ('triggers')
    )
    select found.name, found.status, found.detail, found.hint
    from (
      select * from finding
      union all
      select known.name, 'ok', null, null
      from known
      where not exists (select from finding where finding.name = known.name)
    ) as found
    order by array_position('{error,warning,ok}', found.status), found.name, found.detail
    $doctor$,
    (select extnamespace::regnamespace from pg_extension where extname = 'kongtask')
  );
end
$$;

comment on function kongtask.server_state is 'Returns what kongtask.doctor wants to know of the server.';
comment on function kongtask.handler_problem is
'Returns why a handler cannot be called as a role, and the statement that
mends it, if there is one.';
comment on function kongtask.doctor is
'Looks for what keeps jobs from running, and returns a row for each thing
that it has found.

status is error (no job of the database or of a task runs), warning, or ok
for a check that has found nothing. hint is a statement that mends it. Where
that changes a setting that is read at start, the detail says so. A task
that is not registered needs your handler: put its name in place of
HANDLER, and that of the member that limits jobs in place of MEMBER.

The function works also where the library is not preloaded, and changes
nothing.

Rights: EXECUTE on the function, SELECT on the tables and views of the
extension: for its owner and superusers.';

-- What became of jobs, for the tasks that keep it.

-- The rows are written to one table after the other. A table is emptied as a whole when all that is in it is old enough: no row is
-- ever deleted or updated. So there is nothing for autovacuum to clean, and nothing to freeze before the table is emptied.
-- Each is written out: PostgreSQL 18 would name the constraints of a copy made by LIKE after the first.
create table kongtask.runs_0 (
  job_id bigint not null,
  due_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz not null,
  attempt int,
  state "char" not null,
  task text not null,
  role text not null,
  queue text,
  key text,
  error text,
  result jsonb,
  payload json
) with (autovacuum_vacuum_insert_threshold = -1);
create index runs_0_job_id_idx on kongtask.runs_0 (job_id);

create table kongtask.runs_1 (
  job_id bigint not null,
  due_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz not null,
  attempt int,
  state "char" not null,
  task text not null,
  role text not null,
  queue text,
  key text,
  error text,
  result jsonb,
  payload json
) with (autovacuum_vacuum_insert_threshold = -1);
create index runs_1_job_id_idx on kongtask.runs_1 (job_id);

create table kongtask.runs_2 (
  job_id bigint not null,
  due_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz not null,
  attempt int,
  state "char" not null,
  task text not null,
  role text not null,
  queue text,
  key text,
  error text,
  result jsonb,
  payload json
) with (autovacuum_vacuum_insert_threshold = -1);
create index runs_2_job_id_idx on kongtask.runs_2 (job_id);

create table kongtask.runs_3 (
  job_id bigint not null,
  due_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz not null,
  attempt int,
  state "char" not null,
  task text not null,
  role text not null,
  queue text,
  key text,
  error text,
  result jsonb,
  payload json
) with (autovacuum_vacuum_insert_threshold = -1);
create index runs_3_job_id_idx on kongtask.runs_3 (job_id);

-- Which of them is written to: the one that is opened and not closed. Without a row, it is runs_0.
create table kongtask.run_tables (
  number int primary key check (number >= 0 and number <= 3),
  opened_at timestamptz not null,
  closed_at timestamptz
);

create function kongtask.empty_run_table(number integer) returns void
  language plpgsql strict
  set search_path = pg_catalog, pg_temp
  as $$
begin
  execute format('truncate kongtask.runs_%s', number);
end
$$;

-- A role sees what ran as it, or as a role that it is a member of; the owner of the extension and superusers see all.
create view kongtask.runs with (security_barrier = true) as
  select
    run.job_id,
    run.task,
    run.queue,
    run.key,
    case run.state
      when 's' then 'succeeded'
      when 'r' then 'retrying'
      when 'f' then 'failed'
      when 'c' then 'cancelled'
      else 'snoozed'
    end as state,
    run.attempt,
    run.started_at,
    run.ended_at,
    run.started_at operator(pg_catalog.-) least(run.due_at, run.started_at) as waited,
    run.result,
    run.error,
    run.payload,
    run.role
  from (
    select
      rows_0.job_id,
      rows_0.due_at,
      rows_0.started_at,
      rows_0.ended_at,
      rows_0.attempt,
      rows_0.state,
      rows_0.task,
      rows_0.role,
      rows_0.queue,
      rows_0.key,
      rows_0.error,
      rows_0.result,
      rows_0.payload
    from kongtask.runs_0 as rows_0
    union all
    select
      rows_1.job_id,
      rows_1.due_at,
      rows_1.started_at,
      rows_1.ended_at,
      rows_1.attempt,
      rows_1.state,
      rows_1.task,
      rows_1.role,
      rows_1.queue,
      rows_1.key,
      rows_1.error,
      rows_1.result,
      rows_1.payload
    from kongtask.runs_1 as rows_1
    union all
    select
      rows_2.job_id,
      rows_2.due_at,
      rows_2.started_at,
      rows_2.ended_at,
      rows_2.attempt,
      rows_2.state,
      rows_2.task,
      rows_2.role,
      rows_2.queue,
      rows_2.key,
      rows_2.error,
      rows_2.result,
      rows_2.payload
    from kongtask.runs_2 as rows_2
    union all
    select
      rows_3.job_id,
      rows_3.due_at,
      rows_3.started_at,
      rows_3.ended_at,
      rows_3.attempt,
      rows_3.state,
      rows_3.task,
      rows_3.role,
      rows_3.queue,
      rows_3.key,
      rows_3.error,
      rows_3.result,
      rows_3.payload
    from kongtask.runs_3 as rows_3
  ) as run
  where
    (
      select pg_catalog.pg_has_role(extension.extowner, 'usage')
      from pg_catalog.pg_extension as extension
      where extension.extname operator(pg_catalog.=) 'kongtask'
    )
    or run.role operator(pg_catalog.=) any (
      array(
        select pg_catalog.quote_ident(role.rolname)
        from pg_catalog.pg_roles as role
        where pg_catalog.pg_has_role(role.oid, 'usage')
      )
    );

create function kongtask.wait_for(job_id bigint, timeout interval = null) returns kongtask.runs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_wait_for';

comment on view kongtask.runs is
'What became of jobs, for the tasks that keep it: a row for each attempt that
has ended.

Nothing is kept unless register_task or alter_task says so: keep. A row is
written in the transaction that completes the job, or that records the
failure: so it is there exactly if the effects are. Rows are kept for the
longest keep_for of all tasks at least, and half as long again at most,
unless a transaction that has read them stays open.

Jobs of external workers are not in it, nor what permanently_fail_jobs,
complete_jobs, remove_job or a DELETE did.

Rights: SELECT on the view and USAGE on schema kongtask. It shows what ran
as your role or one that you are a member of; to the owner of the extension
and superusers, everything.';
comment on column kongtask.runs.job_id is 'Number of the job.';
comment on column kongtask.runs.task is 'Task of the job.';
comment on column kongtask.runs.queue is 'Queue of the job. NULL: none.';
comment on column kongtask.runs.key is 'Key of the job. NULL: none.';
comment on column kongtask.runs.state is
'succeeded, retrying (the attempt failed, and
another follows), failed (for good), cancelled,
or snoozed (the handler put its job off).';
comment on column kongtask.runs.attempt is
'Number of the attempt. NULL: the job was
cancelled while it waited.';
comment on column kongtask.runs.started_at is
'Time when the attempt began. NULL: the job was
cancelled while it waited, or its worker crashed.';
comment on column kongtask.runs.ended_at is 'Time when the attempt ended.';
comment on column kongtask.runs.waited is
'Time from when the job was added and due until
the attempt began.';
comment on column kongtask.runs.result is
'What the handler returned. NULL: nothing, or the
attempt did not succeed.';
comment on column kongtask.runs.error is
'Message of the failure, with its detail, hint
and context. NULL: it has not failed.';
comment on column kongtask.runs.payload is
'Argument for the handler. NULL: the task does
not keep it.';
comment on column kongtask.runs.role is 'Name of the role that the attempt ran as.';
comment on table kongtask.runs_0 is
'One of the four tables behind kongtask.runs, which the scheduler fills and
empties in turn.';
comment on column kongtask.runs_0.job_id is 'Number of the job.';
comment on column kongtask.runs_0.due_at is
'Time from which the job had waited for the
attempt. NULL: no attempt is known.';
comment on column kongtask.runs_0.started_at is 'Time when the attempt began. NULL: unknown.';
comment on column kongtask.runs_0.ended_at is 'Time when the attempt ended.';
comment on column kongtask.runs_0.attempt is 'Number of the attempt. NULL: the job waited.';
comment on column kongtask.runs_0.state is 'First letter of the state in kongtask.runs.';
comment on column kongtask.runs_0.task is 'Task of the job.';
comment on column kongtask.runs_0.role is 'Name of the role that the task runs as.';
comment on column kongtask.runs_0.queue is 'Queue of the job. NULL: none.';
comment on column kongtask.runs_0.key is 'Key of the job. NULL: none.';
comment on column kongtask.runs_0.error is 'Error of the attempt. NULL: none.';
comment on column kongtask.runs_0.result is 'What the handler returned. NULL: nothing.';
comment on column kongtask.runs_0.payload is 'Argument for the handler, if it is kept.';
comment on index kongtask.runs_0_job_id_idx is 'Finds the attempts of a job.';
comment on table kongtask.runs_1 is
'One of the four tables behind kongtask.runs, which the scheduler fills and
empties in turn.';
comment on column kongtask.runs_1.job_id is 'Number of the job.';
comment on column kongtask.runs_1.due_at is
'Time from which the job had waited for the
attempt. NULL: no attempt is known.';
comment on column kongtask.runs_1.started_at is 'Time when the attempt began. NULL: unknown.';
comment on column kongtask.runs_1.ended_at is 'Time when the attempt ended.';
comment on column kongtask.runs_1.attempt is 'Number of the attempt. NULL: the job waited.';
comment on column kongtask.runs_1.state is 'First letter of the state in kongtask.runs.';
comment on column kongtask.runs_1.task is 'Task of the job.';
comment on column kongtask.runs_1.role is 'Name of the role that the task runs as.';
comment on column kongtask.runs_1.queue is 'Queue of the job. NULL: none.';
comment on column kongtask.runs_1.key is 'Key of the job. NULL: none.';
comment on column kongtask.runs_1.error is 'Error of the attempt. NULL: none.';
comment on column kongtask.runs_1.result is 'What the handler returned. NULL: nothing.';
comment on column kongtask.runs_1.payload is 'Argument for the handler, if it is kept.';
comment on index kongtask.runs_1_job_id_idx is 'Finds the attempts of a job.';
comment on table kongtask.runs_2 is
'One of the four tables behind kongtask.runs, which the scheduler fills and
empties in turn.';
comment on column kongtask.runs_2.job_id is 'Number of the job.';
comment on column kongtask.runs_2.due_at is
'Time from which the job had waited for the
attempt. NULL: no attempt is known.';
comment on column kongtask.runs_2.started_at is 'Time when the attempt began. NULL: unknown.';
comment on column kongtask.runs_2.ended_at is 'Time when the attempt ended.';
comment on column kongtask.runs_2.attempt is 'Number of the attempt. NULL: the job waited.';
comment on column kongtask.runs_2.state is 'First letter of the state in kongtask.runs.';
comment on column kongtask.runs_2.task is 'Task of the job.';
comment on column kongtask.runs_2.role is 'Name of the role that the task runs as.';
comment on column kongtask.runs_2.queue is 'Queue of the job. NULL: none.';
comment on column kongtask.runs_2.key is 'Key of the job. NULL: none.';
comment on column kongtask.runs_2.error is 'Error of the attempt. NULL: none.';
comment on column kongtask.runs_2.result is 'What the handler returned. NULL: nothing.';
comment on column kongtask.runs_2.payload is 'Argument for the handler, if it is kept.';
comment on index kongtask.runs_2_job_id_idx is 'Finds the attempts of a job.';
comment on table kongtask.runs_3 is
'One of the four tables behind kongtask.runs, which the scheduler fills and
empties in turn.';
comment on column kongtask.runs_3.job_id is 'Number of the job.';
comment on column kongtask.runs_3.due_at is
'Time from which the job had waited for the
attempt. NULL: no attempt is known.';
comment on column kongtask.runs_3.started_at is 'Time when the attempt began. NULL: unknown.';
comment on column kongtask.runs_3.ended_at is 'Time when the attempt ended.';
comment on column kongtask.runs_3.attempt is 'Number of the attempt. NULL: the job waited.';
comment on column kongtask.runs_3.state is 'First letter of the state in kongtask.runs.';
comment on column kongtask.runs_3.task is 'Task of the job.';
comment on column kongtask.runs_3.role is 'Name of the role that the task runs as.';
comment on column kongtask.runs_3.queue is 'Queue of the job. NULL: none.';
comment on column kongtask.runs_3.key is 'Key of the job. NULL: none.';
comment on column kongtask.runs_3.error is 'Error of the attempt. NULL: none.';
comment on column kongtask.runs_3.result is 'What the handler returned. NULL: nothing.';
comment on column kongtask.runs_3.payload is 'Argument for the handler, if it is kept.';
comment on index kongtask.runs_3_job_id_idx is 'Finds the attempts of a job.';
comment on table kongtask.run_tables is
'Which of the four tables behind kongtask.runs is written to, and since when
the others are not. The scheduler changes it.';
comment on column kongtask.run_tables.number is 'Number of the table: 0 for kongtask.runs_0.';
comment on column kongtask.run_tables.opened_at is 'Time since when it is written to.';
comment on column kongtask.run_tables.closed_at is
'Time since when it is not any more. NULL: it
is.';
comment on constraint run_tables_number_check on kongtask.run_tables is 'There are four tables.';
comment on constraint run_tables_pkey on kongtask.run_tables is 'One row for each table.';
comment on index kongtask.run_tables_pkey is 'One row for each table.';
comment on function kongtask.empty_run_table is
'Truncates one of the tables behind kongtask.runs. For the scheduler.';
comment on function kongtask.wait_for is
'Waits until a job has ended, and returns its row of kongtask.runs: with
state succeeded, failed or cancelled.

Returns at once if the job has ended before, and NULL if it has not when the
timeout is over. A failed attempt that is to be retried does not end the
job. For a job that has failed for good without a row in kongtask.runs, a
row is made of what the table jobs says.

The session sleeps until the worker''s commit wakes it, and can be cancelled.
It keeps its transaction, and so its snapshot, as any statement that takes
long. If the job is deleted meanwhile by a DELETE or a TRUNCATE, it notices
within kongtask.poll_interval.

Arguments:
- job_id: number of the job.
- timeout: longest time to wait. NULL: without limit.

Errors:
- 22004: job_id is NULL.
- 22023: timeout is negative.
- 42704: there is no such job: it was never there, has been deleted or
  completed by an external worker, or its row is not kept any more.
- 42501: the task runs as another role.
- 55000: the task does not keep what becomes of all its jobs, the current
  transaction has added or changed the job, the library is not preloaded, or
  the server is a standby.
- 53400: 1024 sessions of this server are waiting.

Rights: EXECUTE on the function and USAGE on schema kongtask. The role that
the task runs as, its members, the owner of the extension and superusers
may.';
select pg_catalog.pg_extension_config_dump('kongtask.runs_0', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_1', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_2', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_3', '');
select pg_catalog.pg_extension_config_dump('kongtask.run_tables', '');
-- How many jobs run at once, and how many begin in a time.

create table kongtask.limit_settings (
  name text not null primary key check (length(name) >= 1 and length(name) <= 128),
  tasks text[] check (cardinality(tasks) >= 1 and array_position(tasks, null) is null),
  by text check (length(by) >= 1 and length(by) <= 128),
  concurrency int check (concurrency >= 1),
  rate int check (rate >= 1),
  per interval check (per > '0'),
  burst int not null default 1 check (burst >= 1),
  role text not null,
  since timestamptz not null default now(),
  constraint limit_settings_limits_check check (concurrency is not null or rate is not null),
  constraint limit_settings_rate_per_check check ((rate is null) = (per is null))
);

create function kongtask.tg_limit_settings__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_pauses_changed';

create trigger _900_changed
  after insert or update or delete or truncate on kongtask.limit_settings for each statement
  execute function kongtask.tg_limit_settings__changed();

create function kongtask.set_limit(
  name text,
  tasks text[] = null,
  by text = null,
  concurrency integer = null,
  rate integer = null,
  per interval = null,
  burst integer = 1
) returns kongtask.limit_settings
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_set_limit';

create function kongtask.drop_limit(name text) returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_drop_limit';

create function kongtask.throttle(name text, delay interval, key text = null) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_throttle';

create function kongtask.limit_key(payload json, queue_name text, by text) returns text
  language c immutable
  as 'MODULE_PATHNAME', 'kongtask_limit_key';

create function kongtask.live_limits(
  limits text[],
  keys text[],
  out number bigint,
  out running bigint,
  out next_start_at timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_limits';

create view kongtask.limits with (security_invoker = true) as
  with limited as (
    select
      setting.name,
      setting.tasks,
      setting.by,
      setting.concurrency
    from kongtask.limit_settings as setting
    union all
    select
      'task:' operator(pg_catalog.||) task.identifier,
      array[task.identifier],
      null::text,
      task.concurrency
    from kongtask.tasks as task
    where task.concurrency is not null
  ),

  counted as (
    select
      limited.name,
      case when limited.by is not null then kongtask.limit_key(job.payload, job.queue_name, limited.by) end as key,
      count(*) filter (where seen.state operator(pg_catalog.<>) 'running') as waiting
    from limited
    inner join jobs as job
      on limited.tasks is null or job.task_identifier operator(pg_catalog.=) any (limited.tasks)
    inner join kongtask.tasks as task on job.task_identifier operator(pg_catalog.=) task.identifier
    cross join lateral kongtask.job_state(job, job.xmax) as seen
    where seen.state operator(pg_catalog.=) any (array['ready', 'waiting', 'running'])
    group by limited.name, 2
  ),

  listed as (
    select
      limited.name,
      counted.key,
      limited.concurrency,
      coalesce(counted.waiting, 0) as waiting,
      row_number() over () as number
    from limited
    left join counted on limited.name operator(pg_catalog.=) counted.name
  )

  select
    listed.name,
    listed.key,
    live.running,
    listed.concurrency,
    live.next_start_at,
    listed.waiting
  from listed
  inner join kongtask.live_limits(
    (select array_agg(each.name order by each.number) from listed as each),
    (select array_agg(each.key order by each.number) from listed as each)
  ) as live on listed.number operator(pg_catalog.=) live.number;

-- What psql's \d+ and \df+ say, and what docs/reference is made from.
comment on table kongtask.limit_settings is
'Limits: how many jobs may run at once, and how many may begin in a time.

kongtask.set_limit and kongtask.drop_limit change the table. The concurrency
of one task is an option of register_task.';
comment on column kongtask.limit_settings.name is 'Name of the limit.';
comment on column kongtask.limit_settings.tasks is 'Tasks whose jobs fall under it. NULL: all.';
comment on column kongtask.limit_settings.by is
'Member of the payload, or queue_name: jobs that
differ in it are limited apart. NULL: all jobs
share the limit.';
comment on column kongtask.limit_settings.concurrency is
'Number of jobs that may run at once. NULL: any.';
comment on column kongtask.limit_settings.rate is
'Number of jobs that may begin within per. NULL:
any.';
comment on column kongtask.limit_settings.per is 'Time that rate is for.';
comment on column kongtask.limit_settings.burst is
'Number of jobs that may begin together after a
time in which none has.';
comment on column kongtask.limit_settings.role is 'Name of the role that called kongtask.set_limit last.';
comment on column kongtask.limit_settings.since is 'Time when the limit was last set.';
comment on constraint limit_settings_limits_check on kongtask.limit_settings is
'A limit has a concurrency, a rate, or both.';
comment on constraint limit_settings_rate_per_check on kongtask.limit_settings is
'A rate is for a time.';
comment on function kongtask.tg_limit_settings__changed is
'Trigger of kongtask.limit_settings: tells sessions and the scheduler of a
change.';
comment on function kongtask.set_limit is
'Sets a limit to jobs that run at once or that begin in a time, and returns
the row of kongtask.limit_settings. Replaces a limit of that name.

A job begins only if there is room under every limit that it falls under.
One that finds no room waits, and begins as soon as there is; jobs behind it
that have room pass it. A limit takes effect at the commit. Jobs that run go
on; where there are more than the new limit lets, none begins until enough
have ended.

The workers inside the server count exactly: a job that ends in whatever way
gives its room back at once. Jobs that external workers run are not counted,
and get_job takes no notice of limits. After a restart of the server, rates
begin anew. Jobs that share a call or a transaction (max_batch) count each.

Arguments:
- name: name of the limit, 1 to 128 characters. Not task:..., which stands
  for the concurrency of a task.
- tasks: tasks whose jobs fall under it, registered or not. NULL: all tasks.
- by: member of the payload, such as ''tenant'', or ''queue_name''. Jobs in
  which it differs are limited apart; those without it share one limit.
  NULL: all jobs share the limit.
- concurrency: number of jobs that may run at once. NULL: any.
- rate: number of jobs that may begin within per. They are spread evenly:
  one every per / rate. NULL: any.
- per: time that rate is for, 1 millisecond to 10 years.
- burst: number of jobs that may begin together after a time in which none
  has. Within any time of length per, rate + burst - 1 begin at most.

Errors:
- 22004: name is NULL.
- 22023: an argument is out of range, there is neither concurrency nor rate,
  or a rate and per are not given together.
- 42501: the current role may not limit these tasks.

Rights: EXECUTE on the function and USAGE on schema kongtask. The owner of
the extension and superusers may set any limit; the role that registered
tasks, and its members, one that names only these tasks.

Locks: waits for another transaction that sets or drops the same limit.';
comment on function kongtask.drop_limit is
'Removes a limit and returns true, or false if there is none.

At the commit, jobs that waited for it begin.

Arguments:
- name: name of the limit.

Errors:
- 42501: the current role may not limit these tasks.

Rights: as for set_limit.

Locks: waits for another transaction that sets or drops the same limit.';
comment on function kongtask.throttle is
'Lets no job begin under a limit for a while. A handler calls it when the
service that it uses asks for that, by HTTP status 429, for example.

It takes effect at once, whatever becomes of the transaction. Jobs that run
go on. The longest time counts of several. It is forgotten when the server
restarts.

Arguments:
- name: name of the limit; task:NAME for the concurrency of a task.
- delay: time from now in which no job begins, up to 10 years.
- key: value of the limit''s by for which this is. NULL: jobs without it; for
  a limit without by, all of its jobs.

Errors:
- 22004: name or delay is NULL.
- 22023: delay is out of range.
- 42704: there is no limit of that name.
- 42501: no handler of a task under the limit runs in this session, and the
  current role may not set the limit.
- 55000: kongtask is not in shared_preload_libraries.
- 53400: too many keys are limited at once (kongtask.max_limit_keys).

Rights: EXECUTE on the function and USAGE on schema kongtask.';
comment on function kongtask.limit_key is
'Returns the value by which a job is limited: a member of its payload, or its
queue.';
comment on function kongtask.live_limits is
'Returns what the workers know of limits, each given by its name and a key.';
comment on view kongtask.limits is
'Limits, each with the jobs that run and wait under it. A limit with by has a
row for each key that has jobs.

Rights: SELECT on the view, on kongtask.limit_settings, kongtask.tasks and
jobs, row level security included; EXECUTE on kongtask.job_state,
kongtask.limit_key and kongtask.live_limits, and USAGE on schema kongtask.';
comment on column kongtask.limits.name is
'Name of the limit; task:NAME for the concurrency
of a task.';
comment on column kongtask.limits.key is
'Value by which its jobs are limited. NULL: none,
or that of jobs without it.';
comment on column kongtask.limits.running is 'Number of jobs that run.';
comment on column kongtask.limits.concurrency is 'Number of jobs that may run at once. NULL: any.';
comment on column kongtask.limits.next_start_at is
'Time before which no job begins. NULL: none, or
it has passed.';
comment on column kongtask.limits.waiting is
'Number of jobs that are due and do not run, for
whatever reason.';

select pg_catalog.pg_extension_config_dump('kongtask.limit_settings', '');

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

-- What was granted on the former register_task. The server takes a GRANT in a script for a part of the extension, which a dump need
-- not repeat; so what is noted as such is what a new extension has.
do $$
declare
  v_function constant pg_catalog.oid = 'kongtask.register_task'::pg_catalog.regproc;
  v_owner constant pg_catalog.oid = (
    select proc.proowner from pg_catalog.pg_proc as proc where proc.oid operator(pg_catalog.=) v_function
  );
  v_new constant pg_catalog.aclitem[] = (
    select proc.proacl from pg_catalog.pg_proc as proc where proc.oid operator(pg_catalog.=) v_function
  );
  v_right pg_catalog.record;
begin
  for v_right in
    select acl.grantee, acl.is_grantable
    from pg_catalog.aclexplode(pg_catalog.current_setting('kongtask_upgrade.register_task', true)::pg_catalog.aclitem[]) as acl
    where acl.grantee operator(pg_catalog.<>) v_owner
  loop
    execute pg_catalog.format(
      'grant execute on function kongtask.register_task to %s%s',
      case when v_right.grantee operator(pg_catalog.=) 0 then 'public' else v_right.grantee::pg_catalog.regrole::text end,
      case when v_right.is_grantable then ' with grant option' else '' end
    );
  end loop;
  update pg_catalog.pg_init_privs
  set initprivs = v_new
  where
    pg_init_privs.objoid operator(pg_catalog.=) v_function
    and pg_init_privs.classoid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass;
end
$$;
