create function kongtask.role_named(role text) returns regrole
  language c immutable strict
  as 'MODULE_PATHNAME', 'kongtask_role_named';
comment on function kongtask.role_named is
  'The role of this name, quoted where SQL needs that, or NULL. For kongtask.tasks.runs_as, which keeps what it was when the row '
  'was written: that is why it may be declared immutable';

create table kongtask.tasks (
  identifier text not null primary key check (length(identifier) between 1 and 128),
  handler text not null,
  role text not null,
  registered_at timestamptz not null default now(),
  max_batch int not null default 1 check (max_batch between 1 and 10000),
  in_place boolean not null default true,
  timeout interval check (timeout > '0'),
  runs_as regrole generated always as (kongtask.role_named(role)) stored
);
comment on table kongtask.tasks is 'Tasks handled inside the server: see kongtask.register_task';
comment on column kongtask.tasks.identifier is 'What add_job calls the task';
comment on column kongtask.tasks.handler is 'The function that runs its jobs, schema and argument types included';
comment on column kongtask.tasks.role is
  'The name of the role the handler runs as: the one that registered it. Where there is no such role, the task waits for one';
comment on column kongtask.tasks.max_batch is 'How many jobs may share a transaction, or a call of a set-based handler';
comment on column kongtask.tasks.in_place is 'Whether first attempts may run in the transaction that takes the job';
comment on column kongtask.tasks.timeout is 'A call of the handler that takes longer is cancelled, and has failed; NULL: none is';
comment on column kongtask.tasks.runs_as is
  'That role itself, whatever it is called by now; NULL if there was none of that name when the row was written';

create function kongtask.register_task(
  identifier text,
  handler regprocedure,
  max_batch integer = null,
  in_place boolean = true,
  timeout interval = null
) returns kongtask.tasks
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_register_task';
comment on function kongtask.register_task is
  'Lets workers in the server run the jobs of a task by calling handler as the current role. The handler takes one of (), '
  '(json), (jsonb), (jobs), (json, jobs), or, for many jobs in one call, (json[]), (jobs[]), where jobs is the queue''s table; '
  'what it returns is ignored. max_batch: how many jobs may share a transaction (1 to 60, 1 by default), or a call (1 to '
  '10000, 1000 by default). in_place: whether first attempts of jobs without key and queue run in the transaction that takes '
  'them. timeout: a call that takes longer is cancelled, and has failed. Registering a task again replaces it, and only the same role or a superuser may';

create function kongtask.unregister_task(identifier text) returns boolean
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_unregister_task';
comment on function kongtask.unregister_task is
  'Leaves the jobs of a task to external workers again. False if the task was not registered. Only the role that registered it or a superuser may';

create function kongtask.current_job() returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_current_job';
comment on function kongtask.current_job is 'Inside a handler: the row of the job it runs, as the worker took it. NULL elsewhere';

create function kongtask.tg_tasks__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_tasks_changed';
comment on function kongtask.tg_tasks__changed is 'Tells every session and the scheduler that kongtask.tasks has changed';

create trigger _900_changed
  after insert or update or delete or truncate on kongtask.tasks for each statement
  execute function kongtask.tg_tasks__changed();

create function kongtask.live_workers(
  out pid int,
  out database name,
  out role name,
  out state text,
  out job_id bigint,
  out task_identifier text,
  out since timestamptz,
  out worker_id text
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_workers';
comment on function kongtask.live_workers is 'What kongtask.workers shows';

create view kongtask.workers as
  select
    w.pid,
    w.database,
    w.role,
    w.state,
    w.job_id,
    w.task_identifier,
    w.since,
    w.worker_id
  from kongtask.live_workers() as w;
comment on view kongtask.workers is
  'The live worker processes of the whole server. state: starting, idle, running, stopping, or unresponsive (it was asked seconds ago to end its call, and has not); since: when it began to do what it does';

create function kongtask.live_holds(
  out database name,
  out reason text,
  out pid int,
  out since timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_holds';
comment on function kongtask.live_holds is 'What kongtask.holds shows';

create view kongtask.holds as
  select
    h.database,
    h.reason,
    h.pid,
    h.since
  from kongtask.live_holds() as h;
comment on view kongtask.holds is
  'Why no job runs in a database of this server, although it is served. pid: the session that keeps it so, if it is one; since: '
  'when that began';

create function kongtask.release_holds() returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_release_holds';
comment on function kongtask.release_holds is
  'Has jobs run in this database although a dump is being restored there, or was by a session that has not ended. False if none was';
