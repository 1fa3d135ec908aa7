-- Two schemas, one extension. `kongtask` is made here, and a member of the extension. The queue's own is the schema that the
-- extension is said to be in (pg_extension.extnamespace): whoever named one in CREATE EXTENSION gets that, anyone else
-- graphile_worker. It is no member, as pg_dump is to write CREATE SCHEMA and CREATE EXTENSION ... SCHEMA for it. What
-- follows creates the queue's objects unqualified, under a search_path that holds nothing but that schema.

do $$
begin
  if exists (select from pg_catalog.pg_namespace where nspname operator(pg_catalog.=) 'kongtask') then
    raise exception using
      errcode = 'duplicate_schema',
      message = 'schema kongtask already exists',
      detail = 'The extension creates the schema kongtask itself, and owns everything in it.',
      hint = 'Rename that schema, or drop it if it is not needed.';
  end if;
end
$$;

create schema kongtask;

-- Only this script asks.
create function kongtask.schema_is_named() returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_schema_is_named';

do $$
declare
  v_given pg_catalog.name;
  v_is_named boolean;
  v_queue pg_catalog.name;
  v_namespace pg_catalog.oid;
  v_owner pg_catalog.oid;
  v_contents text;
  v_grantee pg_catalog.regrole;
begin
  select namespace.nspname into strict v_given
    from pg_catalog.pg_extension as extension
    inner join pg_catalog.pg_namespace as namespace
      on extension.extnamespace operator(pg_catalog.=) namespace.oid
    where extension.extname operator(pg_catalog.=) 'kongtask';
  -- Where a function, say, runs CREATE EXTENSION, there is no telling: then a schema other than public is taken for named.
  -- Nobody means public, where the tables would be among everybody's: it is what Postgres fills in.
  v_is_named = v_given operator(pg_catalog.<>) 'public' and coalesce(kongtask.schema_is_named(), true);
  v_queue = case when v_is_named then v_given else 'graphile_worker' end;

  if not exists (select from pg_catalog.pg_namespace where nspname operator(pg_catalog.=) v_queue) then
    execute pg_catalog.format('create schema %I', v_queue);
    -- What ALTER DEFAULT PRIVILEGES adds.
    for v_grantee in
      select distinct acl.grantee::pg_catalog.regrole
      from pg_catalog.pg_namespace as namespace
      cross join lateral pg_catalog.aclexplode(namespace.nspacl) as acl
      where
        namespace.nspname operator(pg_catalog.=) v_queue
        and acl.grantee operator(pg_catalog.<>) all (array[0::pg_catalog.oid, namespace.nspowner])
    loop
      execute pg_catalog.format('revoke all on schema %I from %s', v_queue, v_grantee);
    end loop;
    execute pg_catalog.format('alter extension kongtask drop schema %I', v_queue);
    execute pg_catalog.format('comment on schema %I is %L', v_queue,
      'The job queue: tables and functions as graphile-worker and KongTask know them, implemented by the kongtask extension');
    select oid into strict v_namespace
      from pg_catalog.pg_namespace
      where nspname operator(pg_catalog.=) v_queue;
  else
    select oid, nspowner into strict v_namespace, v_owner
      from pg_catalog.pg_namespace
      where nspname operator(pg_catalog.=) v_queue;
    select pg_catalog.string_agg(pg_catalog.pg_describe_object(content.classid, content.objid, content.objsubid), ', ')
      into v_contents
      from (
        select depend.classid, depend.objid, depend.objsubid
        from pg_catalog.pg_depend as depend
        where
          depend.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
          and depend.refobjid operator(pg_catalog.=) v_namespace
          and depend.deptype operator(pg_catalog.=) 'n'
          and depend.classid operator(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass
        limit 4
      ) as content;
    if v_contents is not null and not (
      v_is_named
      and pg_catalog.to_regclass(pg_catalog.format('%I.migrations', v_queue)) is not null
      and pg_catalog.to_regclass(pg_catalog.format('%I.jobs', v_queue)) is not null
    ) then
      raise exception using
        errcode = 'object_not_in_prerequisite_state',
        message = pg_catalog.format('schema %I is not empty', v_queue),
        detail = pg_catalog.format('It holds %s.', v_contents),
        hint = case
          when v_is_named then 'Name an empty schema, or one that graphile-worker made, or no schema.'
          else 'To take over a schema that graphile-worker made, with its jobs, run '
            'CREATE EXTENSION kongtask SCHEMA graphile_worker. Or name another, empty schema.'
        end;
    end if;
    if not v_is_named
      and v_owner operator(pg_catalog.<>) pg_catalog.quote_ident(current_user)::pg_catalog.regrole
      and not exists (select from pg_catalog.pg_roles where oid operator(pg_catalog.=) v_owner and rolsuper)
    then
      raise exception using
        errcode = 'insufficient_privilege',
        message = pg_catalog.format('schema %I is owned by role %s', v_queue, v_owner::pg_catalog.regrole),
        detail = 'The owner of a schema can put functions beside those of the queue.',
        hint = pg_catalog.format('To install into it nevertheless, run CREATE EXTENSION kongtask SCHEMA %I.', v_queue);
    end if;
  end if;

  if not v_is_named and exists (
    select from pg_catalog.pg_namespace as namespace
    cross join lateral pg_catalog.aclexplode(namespace.nspacl) as acl
    where
      namespace.nspname operator(pg_catalog.=) v_queue
      and acl.privilege_type operator(pg_catalog.=) 'CREATE'
      and acl.grantee operator(pg_catalog.<>) namespace.nspowner
  ) then
    raise exception using
      errcode = 'insufficient_privilege',
      message = pg_catalog.format('roles other than its owner may create objects in schema %I', v_queue),
      detail = 'A role that creates functions beside those of the queue can have them called instead.',
      hint = pg_catalog.format('Revoke CREATE on schema %1$I from these roles. Or, to install into it nevertheless, run '
        'CREATE EXTENSION kongtask SCHEMA %1$I.', v_queue);
  end if;

  if v_queue operator(pg_catalog.<>) v_given then
    update pg_catalog.pg_extension
      set extnamespace = v_namespace
      where extname operator(pg_catalog.=) 'kongtask';
    update pg_catalog.pg_depend as depend
      set refobjid = v_namespace
      from pg_catalog.pg_extension as extension
      where
        extension.extname operator(pg_catalog.=) 'kongtask'
        and depend.classid operator(pg_catalog.=) extension.tableoid
        and depend.objid operator(pg_catalog.=) extension.oid
        and depend.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass;
  end if;
  -- pg_temp is named, and last: unnamed it would come first, and a temporary table called jobs before ours.
  perform pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', v_queue), true);
end
$$;

drop function kongtask.schema_is_named();

-- A script of an extension is run with client_min_messages at warning.
set local client_min_messages = notice;
do $$
begin
  if pg_catalog.current_setting('shared_preload_libraries') operator(pg_catalog.!~) '(^|[,/\s])kongtask(\.so)?(\s|,|$)' then
    raise notice using
      message = 'kongtask is not in shared_preload_libraries: jobs can be added, but no worker will run them',
      hint = 'Add shared_preload_libraries = ''kongtask'' to postgresql.conf and restart the server. SELECT * FROM kongtask.doctor() tells what else is missing.';
  end if;
end
$$;
set local client_min_messages = warning;
