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
    -- Not TRIGGER: a trigger's function would run as the owner of the tables.
    execute format('grant select, insert, update, delete, truncate, references on %s to %s', v_object, worker);
  end loop;
end
$$;
comment on function kongtask.grant_worker is
  'Lets a role run external workers, such as graphile-worker''s: it may call all functions of the queue, and read and change '
  'all its rows. Only for the owner of the tables. To take that back: REVOKE';

-- Functions are executable by PUBLIC unless told otherwise; tables, schemas and views are not.
do $$
declare
  v_schema pg_catalog.name;
begin
  foreach v_schema in array array[pg_catalog.current_schema(), 'kongtask'] loop
    execute pg_catalog.format('revoke all on all functions in schema %I from public', v_schema);
    execute pg_catalog.format('revoke all on all tables in schema %I from public', v_schema);
    execute pg_catalog.format('revoke all on all sequences in schema %I from public', v_schema);
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
