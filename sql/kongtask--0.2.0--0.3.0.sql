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
comment on table job_queues is 'The queues of which a job runs: each row is the lock of one queue';
comment on column job_queues.job_count is 'Not kept: 1, the job that runs';
comment on column job_queues.locked_at is 'When a worker took the job of this queue that now runs; renewed while a kongtask worker runs it';
comment on column job_queues.locked_by is 'The worker that runs a job of this queue';
comment on column job_queues.job_id is 'The job of this queue that runs';

create function tg_jobs__release_queue() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_release_queue';
comment on function tg_jobs__release_queue is
  'Releases the queue of a job that was locked, and is deleted, unlocked or moved to another queue. While a live kongtask worker '
  'runs the job, the queue stays locked until that has ended';
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
comment on index jobs_run_at_idx is 'When jobs that were scheduled for later fall due';

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
comment on function kongtask.add_job_jsonb is 'As add_job of the queue''s schema, for a payload that is jsonb';

-- A worker whose handler does not end although it was asked to is shown as such.
comment on view kongtask.workers is
  'The live worker processes of the whole server. state: starting, idle, running, stopping, or unresponsive (it was asked seconds ago to end its call, and has not); since: when it began to do what it does';

-- A role of kongtask.tasks that is missing where a dump is restored holds up its own tasks only: the column is a name now.
create function kongtask.role_named(role text) returns regrole
  language c immutable strict
  as 'MODULE_PATHNAME', 'kongtask_role_named';
comment on function kongtask.role_named is
  'The role of this name, quoted where SQL needs that, or NULL. For kongtask.tasks.runs_as, which keeps what it was when the row '
  'was written: that is why it may be declared immutable';

alter table kongtask.tasks alter column role type text using tasks.role::pg_catalog.text;
alter table kongtask.tasks
  add column runs_as regrole generated always as (kongtask.role_named(role)) stored;
comment on column kongtask.tasks.role is
  'The name of the role the handler runs as: the one that registered it. Where there is no such role, the task waits for one';
comment on column kongtask.tasks.runs_as is
  'That role itself, whatever it is called by now; NULL if there was none of that name when the row was written';

-- What keeps a database still.
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
  'Returns the next instants at which a cron expression fires in a time zone: so many, after an instant, which is not among them. '
  'cron: five fields (minute, hour, day of month, month, day of week), six with the second first, a name such as @hourly, or an '
  'interval such as 30 seconds. timezone: a full name of pg_timezone_names';

create function kongtask.describe_cron(cron text) returns text
  language c immutable strict parallel safe
  as 'MODULE_PATHNAME', 'kongtask_describe_cron';
comment on function kongtask.describe_cron is 'Returns in English when a cron expression fires';

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
      select proc.tableoid, proc.oid, 'function' as kind, proc.oid::pg_catalog.regprocedure::text as object,
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
