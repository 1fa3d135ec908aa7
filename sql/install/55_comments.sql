-- What psql's \d+, \df+ and \dd say, and what docs/reference is made from. The first line of a comment is a sentence that can stand
-- alone; paragraphs follow after an empty line. No line is longer than 76 characters, so that psql's expanded display fits 100 columns;
-- those of columns have 48 at most, beside the other seven of \d+.

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
