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
