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

-- Functions are executable by PUBLIC unless told otherwise; and whoever ALTER DEFAULT PRIVILEGES names has rights to all that
-- is made. Both is undone: who may do what is told by a grant on this extension.
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
      select 'routine' as kind, proc.oid::pg_catalog.regprocedure::text as object, proc.pronamespace as namespace,
        coalesce(proc.proacl, pg_catalog.acldefault('f', proc.proowner)) as acl, proc.proowner as owner
      from pg_catalog.pg_proc as proc
      union all
      select case class.relkind when 'S' then 'sequence' else 'table' end, class.oid::pg_catalog.regclass::text,
        class.relnamespace, class.relacl, class.relowner
      from pg_catalog.pg_class as class
      where class.relkind operator(pg_catalog.=) any ('{r,v,S}')
      union all
      select 'type', type.oid::pg_catalog.regtype::text, type.typnamespace, type.typacl, type.typowner
      from pg_catalog.pg_type as type
      where type.typname operator(pg_catalog.=) 'job_spec'
      union all
      select 'schema', namespace.oid::pg_catalog.regnamespace::text, namespace.oid, namespace.nspacl, namespace.nspowner
      from pg_catalog.pg_namespace as namespace
      where namespace.nspname operator(pg_catalog.=) 'kongtask'
    ) as made
    inner join pg_catalog.pg_namespace as namespace on made.namespace operator(pg_catalog.=) namespace.oid
    cross join lateral pg_catalog.aclexplode(made.acl) as acl
    where
      namespace.nspname operator(pg_catalog.=) any (array[pg_catalog.current_schema(), 'kongtask'])
      and acl.grantee operator(pg_catalog.<>) made.owner
      and not (made.kind operator(pg_catalog.=) 'type' and acl.grantee operator(pg_catalog.=) 0)
  loop
    execute v_statement;
  end loop;
end
$$;

-- What pg_dump takes along. job_queues is rebuilt by the triggers while jobs is restored (restoring both would count
-- each job twice, and a lock belongs to a worker of the old server); migrations 1 to 9 come with CREATE EXTENSION.
select pg_catalog.pg_extension_config_dump('jobs', '');
select pg_catalog.pg_extension_config_dump('jobs_id_seq', '');
select pg_catalog.pg_extension_config_dump('job_queues', 'where false');
select pg_catalog.pg_extension_config_dump('migrations', 'where id > 9');
select pg_catalog.pg_extension_config_dump('known_crontabs', '');
select pg_catalog.pg_extension_config_dump('kongtask.tasks', '');
select pg_catalog.pg_extension_config_dump('kongtask.crontab', '');
select pg_catalog.pg_extension_config_dump('kongtask.schedule_state', '');
select pg_catalog.pg_extension_config_dump('kongtask.schedule_runs', '');
select pg_catalog.pg_extension_config_dump('kongtask.pauses', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_0', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_1', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_2', '');
select pg_catalog.pg_extension_config_dump('kongtask.runs_3', '');
select pg_catalog.pg_extension_config_dump('kongtask.run_tables', '');
select pg_catalog.pg_extension_config_dump('kongtask.limit_settings', '');
