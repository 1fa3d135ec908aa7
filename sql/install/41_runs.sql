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
