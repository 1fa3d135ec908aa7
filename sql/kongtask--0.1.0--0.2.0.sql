-- 0.1.0 made the queue's schema a member of the extension, and named it graphile_worker wherever it was. Now it is the schema
-- that the extension is said to be in, and no member, so that a dump holds both.
alter extension kongtask drop schema graphile_worker;
do $$
declare
  v_queue constant pg_catalog.oid = 'graphile_worker'::pg_catalog.regnamespace;
begin
  update pg_catalog.pg_extension
    set extnamespace = v_queue
    where extname operator(pg_catalog.=) 'kongtask';
  update pg_catalog.pg_depend as depend
    set refobjid = v_queue
    from pg_catalog.pg_extension as extension
    where
      extension.extname operator(pg_catalog.=) 'kongtask'
      and depend.classid operator(pg_catalog.=) extension.tableoid
      and depend.objid operator(pg_catalog.=) extension.oid
      and depend.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass;
end
$$;

set local search_path = graphile_worker, pg_temp;

alter table migrations add column breaking boolean not null default false;
comment on column migrations.breaking is 'Whether older workers must not use the schema after it; never so for 1 to 9';

-- As graphile-worker 0.16 and later have them: add_jobs, job_spec, force_unlock_workers.
create type job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);
comment on type job_spec is 'A job to be added by add_jobs: what add_job takes, but for job_key_mode';

create function add_jobs(specs job_spec[], job_key_preserve_run_at boolean = false) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_jobs';
comment on function add_jobs is
  'Adds many jobs at once, or replaces those with the same job_key, and returns their rows. Where the payloads of both are '
  'arrays, the new one is appended. job_key_preserve_run_at: a job that is replaced keeps its run_at unless it was tried. '
  'Errors as add_job, and 21000 where two of the jobs have the same job_key';

create function force_unlock_workers(worker_ids text[]) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_force_unlock_workers';
comment on function force_unlock_workers is
  'Unlocks every job and queue that these workers hold: for external workers that are known to be dead';

create function tg_migrations__refuse() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_refuse_migration';
comment on function tg_migrations__refuse is
  'Keeps later versions of graphile-worker from rewriting these tables: they note each migration here, and fail';

create function tg_jobs__unlock_arriving() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_unlock_arriving';
comment on function tg_jobs__unlock_arriving is
  'Lets a job run that comes out of a dump, where a kongtask worker had it: that worker is of another server';

create trigger _100_refuse
  before insert or update on migrations for each row when (new.id > 9)
  execute function tg_migrations__refuse();
create trigger _100_unlock_arriving
  before insert on jobs for each row when (pg_catalog.starts_with(new.locked_by, 'kongtask:'))
  execute function tg_jobs__unlock_arriving();

-- Only jobs that are in a queue pay for it.
create index jobs_queue_name_priority_run_at_id_idx
  on jobs (queue_name, priority, run_at, id)
  where queue_name is not null and attempts < max_attempts;
comment on index jobs_queue_name_priority_run_at_id_idx is 'The order in which the jobs of one queue run';

alter table kongtask.tasks
  add column max_batch int not null default 1 check (max_batch between 1 and 10000),
  add column in_place boolean not null default true,
  add column timeout interval check (timeout > '0');
comment on column kongtask.tasks.max_batch is 'How many jobs may share a transaction, or a call of a set-based handler';
comment on column kongtask.tasks.in_place is 'Whether first attempts may run in the transaction that takes the job';
comment on column kongtask.tasks.timeout is 'A call of the handler that takes longer is cancelled, and has failed; NULL: none is';

-- The function takes options now. Whoever might call it still may.
do $$
declare
  v_former constant pg_catalog.oid = 'kongtask.register_task(text, regprocedure)'::pg_catalog.regprocedure;
  v_rights constant pg_catalog.aclitem[] = (
    select proc.proacl from pg_catalog.pg_proc as proc where proc.oid operator(pg_catalog.=) v_former
  );
  v_owner constant pg_catalog.oid = (
    select proc.proowner from pg_catalog.pg_proc as proc where proc.oid operator(pg_catalog.=) v_former
  );
  v_right pg_catalog.record;
begin
  drop function kongtask.register_task(text, regprocedure);
  create function kongtask.register_task(
    identifier text,
    handler regprocedure,
    max_batch integer = null,
    in_place boolean = true,
    timeout interval = null
  ) returns kongtask.tasks
    language c volatile
    as 'MODULE_PATHNAME', 'kongtask_register_task';
  -- PUBLIC, and whoever ALTER DEFAULT PRIVILEGES names.
  for v_right in
    select distinct acl.grantee
    from pg_catalog.pg_proc as proc
    cross join lateral pg_catalog.aclexplode(proc.proacl) as acl
    where proc.oid operator(pg_catalog.=) 'kongtask.register_task'::pg_catalog.regproc and acl.grantee operator(pg_catalog.<>) v_owner
  loop
    execute pg_catalog.format(
      'revoke all on function kongtask.register_task from %s',
      case when v_right.grantee operator(pg_catalog.=) 0 then 'public' else v_right.grantee::pg_catalog.regrole::text end
    );
  end loop;
  revoke all on function kongtask.register_task from public;
  for v_right in
    select acl.grantee, acl.is_grantable
    from pg_catalog.aclexplode(v_rights) as acl
    where acl.grantee operator(pg_catalog.<>) 0 and acl.grantee operator(pg_catalog.<>) v_owner
  loop
    execute pg_catalog.format(
      'grant execute on function kongtask.register_task to %s%s',
      v_right.grantee::pg_catalog.regrole,
      case when v_right.is_grantable then ' with grant option' else '' end
    );
  end loop;
end
$$;
comment on function kongtask.register_task is
  'Lets workers in the server run the jobs of a task by calling handler as the current role. The handler takes one of (), '
  '(json), (jsonb), (jobs), (json, jobs), or, for many jobs in one call, (json[]), (jobs[]), where jobs is the queue''s table; '
  'what it returns is ignored. max_batch: how many jobs may share a transaction (1 to 60, 1 by default), or a call (1 to '
  '10000, 1000 by default). in_place: whether first attempts of jobs without key and queue run in the transaction that takes '
  'them. timeout: a call that takes longer is cancelled, and has failed. Registering a task again replaces it, and only the same role or a superuser may';

-- Row level security keeps rows from whoever was granted too much. Workers may see them.
create policy workers on jobs
  using (pg_catalog.has_function_privilege('get_job'::regproc, 'execute'));
create policy workers on job_queues
  using (pg_catalog.has_function_privilege('get_job'::regproc, 'execute'));
create policy workers on known_crontabs
  using (pg_catalog.has_function_privilege('get_job'::regproc, 'execute'));

create function kongtask.grant_worker(worker regrole) returns void
  language plpgsql strict
  set search_path = pg_catalog, pg_temp
  as $$
declare
  v_schema oid;
  v_object text;
begin
  select extnamespace into strict v_schema from pg_extension where extname = 'kongtask';
  execute format('grant usage on schema %s to %s', v_schema::regnamespace, worker);
  for v_object in
    select proc.oid::regprocedure
    from pg_depend as member
    inner join pg_extension as extension on member.refclassid = extension.tableoid and member.refobjid = extension.oid
    inner join pg_proc as proc on member.classid = proc.tableoid and member.objid = proc.oid
    where extension.extname = 'kongtask' and proc.pronamespace = v_schema and proc.prorettype <> 'trigger'::regtype
  loop
    execute format('grant execute on function %s to %s', v_object, worker);
  end loop;
  execute format('grant select on %s.migrations to %s', v_schema::regnamespace, worker);
  execute format('grant all on sequence %s.jobs_id_seq to %s', v_schema::regnamespace, worker);
  foreach v_object in array array['jobs', 'job_queues', 'known_crontabs'] loop
    v_object := format('%s.%s', v_schema::regnamespace, v_object);
    -- Neither TRIGGER nor REFERENCES: a trigger's function, and casts that a foreign key needs, run as the owner of the tables.
    execute format('grant select, insert, update, delete, truncate on %s to %s', v_object, worker);
  end loop;
end
$$;
comment on function kongtask.grant_worker is
  'Lets a role run external workers, such as graphile-worker''s: it may call all functions of the queue, and read and change '
  'all its rows. Only for the owner of the tables. To take that back: REVOKE';

-- Whatever rights to what is new here come from elsewhere (PUBLIC, ALTER DEFAULT PRIVILEGES) are undone.
do $$
declare
  v_statement text;
begin
  for v_statement in
    select pg_catalog.format(
        'revoke all on %s %s from %s cascade',
        made.kind,
        made.object,
        case when acl.grantee operator(pg_catalog.=) 0 then 'public' else acl.grantee::pg_catalog.regrole::text end
      )
    from (
      select 'function' as kind, proc.oid::pg_catalog.regprocedure::text as object, proc.proacl as acl, proc.proowner as owner
      from pg_catalog.pg_proc as proc
      where proc.oid operator(pg_catalog.=) any (
        array[
          'add_jobs'::pg_catalog.regproc, 'force_unlock_workers'::pg_catalog.regproc, 'tg_migrations__refuse'::pg_catalog.regproc,
          'tg_jobs__unlock_arriving'::pg_catalog.regproc, 'kongtask.grant_worker'::pg_catalog.regproc
        ]
      )
      union all
      select 'type', 'job_spec', type.typacl, type.typowner
      from pg_catalog.pg_type as type
      where type.oid operator(pg_catalog.=) 'job_spec'::pg_catalog.regtype
    ) as made
    cross join lateral pg_catalog.aclexplode(made.acl) as acl
    where
      acl.grantee operator(pg_catalog.<>) made.owner
      and not (made.kind operator(pg_catalog.=) 'type' and acl.grantee operator(pg_catalog.=) 0)
  loop
    execute v_statement;
  end loop;
end
$$;
revoke all on function
  add_jobs, force_unlock_workers, tg_migrations__refuse, tg_jobs__unlock_arriving, kongtask.grant_worker
from public;
revoke all on sequence jobs_id_seq from public;
