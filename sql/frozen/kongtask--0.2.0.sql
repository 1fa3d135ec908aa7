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
comment on schema kongtask is
  'What the kongtask extension adds to the job queue: tasks handled inside the server, and views of their workers';

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
          when v_is_named then 'Name a schema that is empty, or that holds what graphile-worker made, or none.'
          else 'To take over a schema that graphile-worker made, with its jobs, say so: '
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
        detail = 'Whoever owns a schema can put functions beside those of the queue.',
        hint = pg_catalog.format('If that is as it should be, say so: CREATE EXTENSION kongtask SCHEMA %I.', v_queue);
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
      message = pg_catalog.format('in schema %I others than its owner may create objects', v_queue),
      detail = 'Whoever can create functions beside those of the queue can have them called instead.',
      hint = pg_catalog.format('REVOKE CREATE ON SCHEMA %1$I from them, or say that it is as it should be: '
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
      hint = 'Add shared_preload_libraries = ''kongtask'' to postgresql.conf and restart the server.';
  end if;
end
$$;
set local client_min_messages = warning;
-- Taking over a schema that graphile-worker made, at any of its migrations 1 to 9: the tables stay what they are, with
-- every row, and end up as 10_tables.sql makes them. Functions and triggers are dropped, to be made anew. Whatever
-- graphile-worker did not make is refused: it could run as the tables' new owner, and would not be in a dump.

-- What is to be said once everything is there: who may do what. Gone when this script ends.
create table kongtask.adopted (
  number int generated always as identity,
  statement text not null
);

do $$
declare
  v_schema constant pg_catalog.name = pg_catalog.current_schema();
  v_namespace constant pg_catalog.oid = (
    select oid from pg_catalog.pg_namespace where nspname operator(pg_catalog.=) pg_catalog.current_schema()
  );
  v_tables constant text[] = array['jobs', 'job_queues', 'migrations', 'known_crontabs'];
  v_migration int;
  v_owner pg_catalog.oid;
  v_found text;
  v_statement text;
  v_expected constant text[] = array[
    'job_queues 1 queue_name text not null',
    'job_queues 2 job_count integer not null',
    'job_queues 3 locked_at timestamp with time zone',
    'job_queues 4 locked_by text',
    'job_queues: CREATE UNIQUE INDEX job_queues_pkey ON job_queues USING btree (queue_name)',
    'job_queues: PRIMARY KEY (queue_name)',
    'jobs 1 id bigint not null default nextval(''jobs_id_seq''::regclass)',
    'jobs 2 queue_name text',
    'jobs 3 task_identifier text not null',
    'jobs 4 payload json not null default ''{}''::json',
    'jobs 5 priority integer not null default 0',
    'jobs 6 run_at timestamp with time zone not null default now()',
    'jobs 7 attempts integer not null default 0',
    'jobs 8 max_attempts integer not null default 25',
    'jobs 9 last_error text',
    'jobs 10 created_at timestamp with time zone not null default now()',
    'jobs 11 updated_at timestamp with time zone not null default now()',
    'jobs 12 key text',
    'jobs 13 locked_at timestamp with time zone',
    'jobs 14 locked_by text',
    'jobs 15 revision integer not null default 0',
    'jobs 16 flags jsonb',
    'jobs: CHECK (length(key) > 0)',
    'jobs: CREATE INDEX jobs_priority_run_at_id_locked_at_without_failures_idx ON jobs USING btree '
      '(priority, run_at, id, locked_at) WHERE attempts < max_attempts',
    'jobs: CREATE UNIQUE INDEX jobs_key_key ON jobs USING btree (key)',
    'jobs: CREATE UNIQUE INDEX jobs_pkey ON jobs USING btree (id)',
    'jobs: PRIMARY KEY (id)',
    'jobs: UNIQUE (key)',
    'known_crontabs 1 identifier text not null',
    'known_crontabs 2 known_since timestamp with time zone not null',
    'known_crontabs 3 last_execution timestamp with time zone',
    'known_crontabs: CREATE UNIQUE INDEX known_crontabs_pkey ON known_crontabs USING btree (identifier)',
    'known_crontabs: PRIMARY KEY (identifier)',
    'migrations 1 id integer not null',
    'migrations 2 ts timestamp with time zone not null default now()',
    'migrations 3 breaking boolean not null default false',
    'migrations: CREATE UNIQUE INDEX migrations_pkey ON migrations USING btree (id)',
    'migrations: PRIMARY KEY (id)'
  ];
  v_functions constant text[] = array[
    'add_job(text, json, text, timestamp with time zone, integer)',
    'add_job(text, json, text, timestamp with time zone, integer, text)',
    'add_job(text, json, text, timestamp with time zone, integer, text, integer)',
    'add_job(text, json, text, timestamp with time zone, integer, text, integer, text[])',
    'add_job(text, json, text, timestamp with time zone, integer, text, integer, text[], text)',
    'complete_job(text, bigint)',
    'complete_jobs(bigint[])',
    'fail_job(text, bigint, text)',
    'get_job(text, text[], interval)',
    'get_job(text, text[], interval, text[])',
    'get_job(text, text[], interval, text[], timestamp with time zone)',
    'jobs__decrease_job_queue_count()',
    'jobs__increase_job_queue_count()',
    'permanently_fail_jobs(bigint[], text)',
    'remove_job(text)',
    'reschedule_jobs(bigint[], timestamp with time zone, integer, integer, integer)',
    'tg__update_timestamp()',
    'tg_jobs__notify_new_jobs()'
  ];
  v_triggers constant text[] = array[
    '_100_timestamps', '_500_decrease_job_queue_count', '_500_decrease_job_queue_count_update',
    '_500_increase_job_queue_count', '_500_increase_job_queue_count_update', '_900_notify_worker'
  ];
begin
  if pg_catalog.to_regclass(pg_catalog.format('%I.jobs', pg_catalog.current_schema())) is null then
    return;
  end if;

  -- Nothing of theirs may run: neither a view's or a rule's query, nor a trigger, nor a function or operator by which
  -- something looks like what it is not.
  select pg_catalog.string_agg(alien.what, ', ' order by alien.what) into v_found
    from (
      select pg_catalog.pg_describe_object(depend.classid, depend.objid, depend.objsubid) as what
      from pg_catalog.pg_depend as depend
      left join pg_catalog.pg_class as class
        on
          depend.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          and depend.objid operator(pg_catalog.=) class.oid
      left join pg_catalog.pg_proc as proc
        on
          depend.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          and depend.objid operator(pg_catalog.=) proc.oid
      where
        depend.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
        and depend.refobjid operator(pg_catalog.=) v_namespace
        and depend.deptype operator(pg_catalog.=) 'n'
        and depend.classid operator(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass
        and not coalesce(
          class.relkind operator(pg_catalog.=) 'r' and class.relname::text operator(pg_catalog.=) any (v_tables)
          or class.relkind operator(pg_catalog.=) 'S' and class.relname operator(pg_catalog.=) 'jobs_id_seq'
          or pg_catalog.format('%s(%s)', proc.proname, pg_catalog.oidvectortypes(proc.proargtypes))
            operator(pg_catalog.=) any (v_functions)
          and proc.prokind operator(pg_catalog.=) 'f',
          false
        )
      union all
      select pg_catalog.pg_describe_object(rewrite.tableoid, rewrite.oid, 0)
      from pg_catalog.pg_rewrite as rewrite
      inner join pg_catalog.pg_class as class on rewrite.ev_class operator(pg_catalog.=) class.oid
      where class.relnamespace operator(pg_catalog.=) v_namespace and class.relkind operator(pg_catalog.=) 'r'
      union all
      select pg_catalog.pg_describe_object(trigger.tableoid, trigger.oid, 0)
      from pg_catalog.pg_trigger as trigger
      inner join pg_catalog.pg_class as class on trigger.tgrelid operator(pg_catalog.=) class.oid
      inner join pg_catalog.pg_proc as proc on trigger.tgfoid operator(pg_catalog.=) proc.oid
      where
        class.relnamespace operator(pg_catalog.=) v_namespace
        and not trigger.tgisinternal
        and not (
          trigger.tgname::text operator(pg_catalog.=) any (v_triggers)
          and proc.pronamespace operator(pg_catalog.=) v_namespace
        )
      union all
      select pg_catalog.pg_describe_object(policy.tableoid, policy.oid, 0)
      from pg_catalog.pg_policy as policy
      inner join pg_catalog.pg_class as class on policy.polrelid operator(pg_catalog.=) class.oid
      where class.relnamespace operator(pg_catalog.=) v_namespace
      union all
      select pg_catalog.format('inheritance of %s', inherits.inhrelid::pg_catalog.regclass)
      from pg_catalog.pg_inherits as inherits
      inner join pg_catalog.pg_class as class
        on class.oid operator(pg_catalog.=) inherits.inhrelid or class.oid operator(pg_catalog.=) inherits.inhparent
      where class.relnamespace operator(pg_catalog.=) v_namespace and class.relkind operator(pg_catalog.=) 'r'
      union all
      select pg_catalog.format('table %s, which is not permanent', class.relname)
      from pg_catalog.pg_class as class
      where
        class.relnamespace operator(pg_catalog.=) v_namespace
        and class.relkind operator(pg_catalog.=) 'r'
        and class.relpersistence operator(pg_catalog.<>) 'p'
    ) as alien;
  if v_found is not null then
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = pg_catalog.format('schema %I cannot be taken over: it holds what graphile-worker did not make', v_schema),
      detail = pg_catalog.format('That is %s.', v_found),
      hint = 'Drop it, or move it to another schema, and put it back afterwards where it is still needed.';
  end if;
  for v_statement in
    select pg_catalog.format('lock table %I in access exclusive mode', class.relname)
    from pg_catalog.pg_class as class
    where class.relnamespace operator(pg_catalog.=) v_namespace and class.relkind operator(pg_catalog.=) 'r'
  loop
    execute v_statement;
  end loop;

  select pg_catalog.max(id) into v_migration from migrations;
  if v_migration is null or v_migration operator(pg_catalog.<) 1 or v_migration operator(pg_catalog.>) 9 then
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = pg_catalog.format('schema %I cannot be taken over: its latest migration is %s', v_schema,
        coalesce(v_migration::text, 'none')),
      detail = 'kongtask knows graphile-worker''s migrations 1 to 9, which are those of its versions up to 0.12.',
      hint = pg_catalog.format('To have both: ALTER SCHEMA %I RENAME TO another name, which the worker''s option '
        '--schema is then to be told, and CREATE EXTENSION kongtask.', v_schema);
  end if;
  select relowner into strict v_owner
    from pg_catalog.pg_class
    where oid operator(pg_catalog.=) 'jobs'::pg_catalog.regclass;

  -- Everybody's rights, but for what PUBLIC may execute: that was harmless while the functions ran as their caller.
  insert into kongtask.adopted (statement)
  select pg_catalog.format(
      'grant %s%s on %s %s to %s%s',
      acl.privilege_type,
      case when held.attname is not null then pg_catalog.format(' (%I)', held.attname) end,
      held.kind,
      held.object,
      case when acl.grantee operator(pg_catalog.=) 0 then 'public' else acl.grantee::pg_catalog.regrole::text end,
      case when acl.is_grantable then ' with grant option' end
    )
  from (
    select
      class.relacl as acl,
      case class.relkind when 'S' then 'sequence' else 'table' end as kind,
      pg_catalog.quote_ident(class.relname) as object,
      null::pg_catalog.name as attname,
      class.relowner as owner
    from pg_catalog.pg_class as class
    where class.relnamespace operator(pg_catalog.=) v_namespace
    union all
    select attribute.attacl, 'table', pg_catalog.quote_ident(class.relname), attribute.attname, class.relowner
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_attribute as attribute on class.oid operator(pg_catalog.=) attribute.attrelid
    where class.relnamespace operator(pg_catalog.=) v_namespace and not attribute.attisdropped
    union all
    select proc.proacl, 'function', pg_catalog.quote_ident(proc.proname), null, proc.proowner
    from pg_catalog.pg_proc as proc
    where proc.pronamespace operator(pg_catalog.=) v_namespace
  ) as held
  cross join lateral pg_catalog.aclexplode(held.acl) as acl
  where
    acl.grantee operator(pg_catalog.<>) all (array[held.owner, pg_catalog.quote_ident(current_user)::pg_catalog.regrole])
    -- A trigger's function, and casts that a foreign key needs, would run as the tables' new owner.
    and acl.privilege_type operator(pg_catalog.<>) all (array['TRIGGER', 'REFERENCES'])
    and not (held.kind operator(pg_catalog.=) 'function' and acl.grantee operator(pg_catalog.=) 0);
  if v_owner operator(pg_catalog.<>) pg_catalog.quote_ident(current_user)::pg_catalog.regrole then
    insert into kongtask.adopted (statement)
    values (pg_catalog.format('select kongtask.grant_worker(%L)', v_owner::pg_catalog.regrole));
  end if;

  -- From here on the tables are ours, and nothing but their rows is left of what was there.
  begin
    for v_statement in
      select pg_catalog.format('drop trigger %I on %s', trigger.tgname, trigger.tgrelid::pg_catalog.regclass)
      from pg_catalog.pg_trigger as trigger
      inner join pg_catalog.pg_class as class on trigger.tgrelid operator(pg_catalog.=) class.oid
      where class.relnamespace operator(pg_catalog.=) v_namespace and not trigger.tgisinternal
      union all
      select pg_catalog.format('drop function %s', proc.oid::pg_catalog.regprocedure)
      from pg_catalog.pg_proc as proc
      where proc.pronamespace operator(pg_catalog.=) v_namespace
    loop
      execute v_statement;
    end loop;
  exception
    when dependent_objects_still_exist then
      get stacked diagnostics v_found = pg_exception_detail;
      raise exception using
        errcode = 'dependent_objects_still_exist',
        message = pg_catalog.format('schema %I cannot be taken over: something depends on a function that is replaced',
          v_schema),
        detail = v_found,
        hint = 'Drop what depends on it, and create it again afterwards.';
  end;
  for v_statement in
    select pg_catalog.format('alter table %I owner to %I', class.relname, current_user)
    from pg_catalog.pg_class as class
    where class.relnamespace operator(pg_catalog.=) v_namespace and class.relkind operator(pg_catalog.=) 'r'
    union all
    select distinct pg_catalog.format(
        'revoke all on table %I from %s cascade',
        class.relname,
        case when acl.grantee operator(pg_catalog.=) 0 then 'public' else acl.grantee::pg_catalog.regrole::text end
      )
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_attribute as attribute on class.oid operator(pg_catalog.=) attribute.attrelid
    cross join lateral (
      select grantee from pg_catalog.aclexplode(class.relacl)
      union all
      select grantee from pg_catalog.aclexplode(attribute.attacl)
    ) as acl
    where
      class.relnamespace operator(pg_catalog.=) v_namespace
      and class.relkind operator(pg_catalog.=) any ('{r,S}')
      and acl.grantee operator(pg_catalog.<>) all (array[class.relowner, pg_catalog.quote_ident(current_user)::pg_catalog.regrole])
  loop
    execute v_statement;
  end loop;

  -- What the migrations after theirs change.
  alter table migrations add column if not exists breaking boolean not null default false;
  if v_migration operator(pg_catalog.<) 2 then
    alter table jobs add column key text unique check (length(key) > 0);
    alter table jobs add column locked_at timestamptz, add column locked_by text;
    update jobs
      set locked_at = queue.locked_at, locked_by = queue.locked_by
      from job_queues as queue
      where
        jobs.queue_name operator(pg_catalog.=) queue.queue_name
        and queue.locked_at is not null;
  end if;
  alter table jobs alter column queue_name drop not null, alter column queue_name drop default;
  if v_migration operator(pg_catalog.<) 5 then
    alter table jobs add column revision int not null default 0, add column flags jsonb default null;
  end if;
  if v_migration operator(pg_catalog.<) 6 then
    create index jobs_priority_run_at_id_locked_at_without_failures_idx
      on jobs (priority, run_at, id, locked_at)
      where attempts < max_attempts;
    drop index jobs_priority_run_at_id_idx;
  end if;
  if v_migration operator(pg_catalog.<) 8 then
    create table known_crontabs (
      identifier text not null primary key,
      known_since timestamptz not null,
      last_execution timestamptz
    );
    alter table known_crontabs enable row level security;
  else
    alter extension kongtask add table known_crontabs;
  end if;
  alter extension kongtask add table jobs;
  alter extension kongtask add sequence jobs_id_seq;
  alter extension kongtask add table job_queues;
  alter extension kongtask add table migrations;
  insert into migrations (id)
  select missing.id
  from pg_catalog.generate_series(1, 9) as missing (id)
  on conflict do nothing;

  with actual as (
    select pg_catalog.concat(
        class.relname, ' ', attribute.attnum, ' ', attribute.attname, ' ',
        pg_catalog.format_type(attribute.atttypid, attribute.atttypmod),
        case when attribute.attnotnull then ' not null' end,
        case when attribute.attgenerated operator(pg_catalog.<>) '' then ' generated' end,
        case when attribute.attidentity operator(pg_catalog.<>) '' then ' identity' end,
        ' default ' operator(pg_catalog.||) pg_catalog.pg_get_expr(default_.adbin, default_.adrelid)
      ) as line
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_attribute as attribute
      on
        class.oid operator(pg_catalog.=) attribute.attrelid
        and attribute.attnum operator(pg_catalog.>) 0
        and not attribute.attisdropped
    left join pg_catalog.pg_attrdef as default_
      on
        attribute.attrelid operator(pg_catalog.=) default_.adrelid
        and attribute.attnum operator(pg_catalog.=) default_.adnum
    where class.relnamespace operator(pg_catalog.=) v_namespace and class.relkind operator(pg_catalog.=) 'r'
    union all
    select pg_catalog.format('%s: %s', class.relname, pg_catalog.pg_get_constraintdef(constraint_.oid, true))
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_constraint as constraint_ on class.oid operator(pg_catalog.=) constraint_.conrelid
    where class.relnamespace operator(pg_catalog.=) v_namespace and constraint_.contype operator(pg_catalog.<>) 'n'
    union all
    select pg_catalog.format('%s: %s', class.relname, pg_catalog.pg_get_indexdef(index.indexrelid, 0, true))
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_index as index on class.oid operator(pg_catalog.=) index.indrelid
    where class.relnamespace operator(pg_catalog.=) v_namespace and class.relkind operator(pg_catalog.=) 'r'
  )

  select pg_catalog.string_agg(difference.what, '; ' order by difference.what) into v_found
    from (
      select pg_catalog.format('%s is not graphile-worker''s', line) as what
      from actual
      where line operator(pg_catalog.<>) all (v_expected)
      union all
      select pg_catalog.format('%s is missing', line)
      from pg_catalog.unnest(v_expected) as expected (line)
      where line operator(pg_catalog.<>) all (select actual.line from actual)
    ) as difference;
  if v_found is not null then
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = pg_catalog.format('schema %I cannot be taken over: its tables are not as graphile-worker made them', v_schema),
      detail = pg_catalog.format('%s.', v_found),
      hint = 'Undo what was changed, and do it again afterwards where it is still needed.';
  end if;

  -- A script of an extension is run with client_min_messages at warning.
  perform pg_catalog.set_config('client_min_messages', 'notice', true);
  raise notice 'took over schema % (graphile-worker''s migration %) with % jobs in % queues', pg_catalog.quote_ident(v_schema),
    v_migration, (select pg_catalog.count(*) from jobs), (select pg_catalog.count(*) from job_queues);
  perform pg_catalog.set_config('client_min_messages', 'warning', true);
end
$$;
-- The tables as graphile-worker's migrations 1 to 9 leave them, but for the random default of jobs.queue_name, and for
-- migrations.breaking, which graphile-worker 0.14 and later would add. Where those of graphile-worker itself have been
-- taken over (05_adopt.sql) they are there, and the same.

do $$
begin
  if pg_catalog.to_regclass(pg_catalog.format('%I.jobs', pg_catalog.current_schema())) is not null then
    return;
  end if;

  create table migrations (
    id int primary key,
    ts timestamptz not null default now(),
    breaking boolean not null default false
  );

  insert into migrations (id) values (1), (2), (3), (4), (5), (6), (7), (8), (9);

  create table job_queues (
    queue_name text not null primary key,
    job_count int not null,
    locked_at timestamptz,
    locked_by text
  );

  alter table job_queues enable row level security;

  create table jobs (
    id bigserial primary key,
    queue_name text,
    task_identifier text not null,
    payload json not null default '{}'::json,
    priority int not null default 0,
    run_at timestamptz not null default now(),
    attempts int not null default 0,
    max_attempts int not null default 25,
    last_error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    key text unique check (length(key) > 0),
    locked_at timestamptz,
    locked_by text,
    revision int not null default 0,
    flags jsonb default null
  );

  alter table jobs enable row level security;

  create index jobs_priority_run_at_id_locked_at_without_failures_idx
    on jobs (priority, run_at, id, locked_at)
    where attempts < max_attempts;

  create table known_crontabs (
    identifier text not null primary key,
    known_since timestamptz not null,
    last_execution timestamptz
  );

  alter table known_crontabs enable row level security;
end
$$;

-- Only jobs that are in a queue pay for it.
create index jobs_queue_name_priority_run_at_id_idx
  on jobs (queue_name, priority, run_at, id)
  where queue_name is not null and attempts < max_attempts;

comment on column migrations.breaking is 'Whether older workers must not use the schema after it; never so for 1 to 9';
comment on table migrations is
  'The graphile-worker migrations this schema stands for, so that its workers find nothing to migrate';
comment on table job_queues is 'One row for each queue that has jobs; locked while one of them runs';
comment on column job_queues.job_count is 'Jobs in the queue, whatever their state; the row goes with the last one';
comment on column job_queues.locked_at is 'When a worker took the job of this queue that now runs';
comment on column job_queues.locked_by is 'The worker that runs a job of this queue';
comment on table jobs is 'Jobs that wait, run or failed; a job that succeeded is deleted';
comment on column jobs.queue_name is 'Jobs of one queue run one at a time and in order; NULL: no queue';
comment on column jobs.task_identifier is 'The task that handles the job';
comment on column jobs.payload is 'What the handler gets';
comment on column jobs.priority is 'Lower runs earlier';
comment on column jobs.run_at is 'Not run before this time';
comment on column jobs.attempts is 'Attempts begun, the running one included';
comment on column jobs.max_attempts is 'The job has failed for good once attempts has reached this';
comment on column jobs.last_error is 'Message, SQLSTATE, detail and context of the latest failed attempt';
comment on column jobs.key is 'At most one job has a given key: see add_job';
comment on column jobs.locked_at is 'When the worker that now runs the job took it; renewed while a kongtask worker runs it';
comment on column jobs.locked_by is 'The worker that runs the job; kongtask workers'' names begin with "kongtask:"';
comment on column jobs.revision is 'How often add_job replaced the job by its key';
comment on column jobs.flags is 'An object with a member for each flag; workers can be told to leave jobs with some flags alone';
comment on index jobs_priority_run_at_id_locked_at_without_failures_idx is 'The order in which jobs run';
comment on index jobs_queue_name_priority_run_at_id_idx is 'The order in which the jobs of one queue run';
comment on table known_crontabs is 'Crontab items seen, and when each was last turned into a job';
create function add_job(
  identifier text,
  payload json = null,
  queue_name text = null,
  run_at timestamptz = null,
  max_attempts integer = null,
  job_key text = null,
  priority integer = null,
  flags text[] = null,
  job_key_mode text = 'replace'
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_job';
comment on function add_job is
  'Adds a job, or replaces the one with the same job_key, and returns its row. job_key_mode: replace, preserve_run_at or '
  'unsafe_dedupe. Errors: GWBID, GWBQN, GWBJK (identifier, queue_name or job_key too long), GWBMA (max_attempts below 1), '
  'GWBKM (unknown job_key_mode)';

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

create function get_job(
  worker_id text,
  task_identifiers text[] = null,
  job_expiry interval = interval '4 hours',
  forbidden_flags text[] = null,
  now timestamptz = now()
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_get_job';
comment on function get_job is
  'For external workers: locks the next runnable job for worker_id (10 characters at least) and returns it, or NULL';

create function complete_job(worker_id text, job_id bigint) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_complete_job';
comment on function complete_job is 'For external workers: deletes a job that succeeded and releases its queue';

create function fail_job(worker_id text, job_id bigint, error_message text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_fail_job';
comment on function fail_job is
  'For external workers: records a failed attempt; the job is due again after exp(least(attempts, 10)) seconds';

create function complete_jobs(job_ids bigint[]) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_complete_jobs';
comment on function complete_jobs is 'Deletes the given jobs as if they had succeeded; locked and running ones are left out';

create function permanently_fail_jobs(job_ids bigint[], error_message text = null) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_permanently_fail_jobs';
comment on function permanently_fail_jobs is
  'Marks the given jobs as failed for good; locked and running ones are left out';

create function reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz = null,
  priority int = null,
  attempts int = null,
  max_attempts int = null
) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_reschedule_jobs';
comment on function reschedule_jobs is
  'Changes what is given of when and how the given jobs run; locked and running ones are left out';

create function remove_job(job_key text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_remove_job';
comment on function remove_job is
  'Deletes the job with this key; if it is running, clears its key and lets it have no further attempt. NULL if there is none';
create function tg__update_timestamp() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_update_timestamp';
comment on function tg__update_timestamp is 'Keeps updated_at up to date, and growing';

create function jobs__increase_job_queue_count() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_increase_job_queue_count';
comment on function jobs__increase_job_queue_count is 'Counts a job into its queue';

create function jobs__decrease_job_queue_count() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_decrease_job_queue_count';
comment on function jobs__decrease_job_queue_count is 'Counts a job out of its queue, and deletes the queue with its last job';

create function tg_jobs__notify_new_jobs() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_note_job';
comment on function tg_jobs__notify_new_jobs is
  'Notes who is to be woken at commit: the workers of a task that is handled here, or listeners to jobs:insert for any other';

create function tg_job_queues__released() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_note_queue';
comment on function tg_job_queues__released is 'Notes that the next job of a queue can run once this commits';

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
create trigger _100_timestamps
  before update on jobs for each row
  execute function tg__update_timestamp();
create trigger _500_increase_job_queue_count
  after insert on jobs for each row when (new.queue_name is not null)
  execute function jobs__increase_job_queue_count();
create trigger _500_decrease_job_queue_count
  after delete on jobs for each row when (old.queue_name is not null)
  execute function jobs__decrease_job_queue_count();
create trigger _500_increase_job_queue_count_update
  after update of queue_name on jobs for each row
  when (new.queue_name is distinct from old.queue_name and new.queue_name is not null)
  execute function jobs__increase_job_queue_count();
create trigger _500_decrease_job_queue_count_update
  after update of queue_name on jobs for each row
  when (new.queue_name is distinct from old.queue_name and old.queue_name is not null)
  execute function jobs__decrease_job_queue_count();
create trigger _900_notify_worker
  after insert on jobs for each row
  execute function tg_jobs__notify_new_jobs();
create trigger _900_notify_worker_update
  after update on jobs for each row when (new.locked_at is null)
  execute function tg_jobs__notify_new_jobs();
create trigger _900_released
  after update on job_queues for each row when (old.locked_at is not null and new.locked_at is null)
  execute function tg_job_queues__released();
create table kongtask.tasks (
  identifier text not null primary key check (length(identifier) between 1 and 128),
  handler text not null,
  role regrole not null,
  registered_at timestamptz not null default now(),
  max_batch int not null default 1 check (max_batch between 1 and 10000),
  in_place boolean not null default true,
  timeout interval check (timeout > '0')
);
comment on table kongtask.tasks is 'Tasks handled inside the server: see kongtask.register_task';
comment on column kongtask.tasks.identifier is 'What add_job calls the task';
comment on column kongtask.tasks.handler is 'The function that runs its jobs, schema and argument types included';
comment on column kongtask.tasks.role is 'The role the handler runs as: the one that registered it';
comment on column kongtask.tasks.max_batch is 'How many jobs may share a transaction, or a call of a set-based handler';
comment on column kongtask.tasks.in_place is 'Whether first attempts may run in the transaction that takes the job';
comment on column kongtask.tasks.timeout is 'A call of the handler that takes longer is cancelled, and has failed; NULL: none is';

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
  'The live worker processes of the whole server. state: starting, idle, running or stopping; since: when it was entered';
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
      select 'function' as kind, proc.oid::pg_catalog.regprocedure::text as object, proc.pronamespace as namespace,
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
-- The rights that are kept where tables were taken over. They are no part of the extension, as a dump is to hold them.

do $$
declare
  v_statement text;
begin
  for v_statement in
    select statement from kongtask.adopted order by number
  loop
    execute v_statement;
  end loop;

  update pg_catalog.pg_init_privs as initial
    set initprivs = array(
      select item
      from pg_catalog.unnest(initial.initprivs) as item
      where not exists (
        select from pg_catalog.aclexplode(array[item]) as acl
        where acl.grantee operator(pg_catalog.<>) pg_catalog.quote_ident(current_user)::pg_catalog.regrole
      )
    )
    from pg_catalog.pg_depend as member
    inner join pg_catalog.pg_extension as extension
      on
        member.refclassid operator(pg_catalog.=) extension.tableoid
        and member.refobjid operator(pg_catalog.=) extension.oid
    where
      extension.extname operator(pg_catalog.=) 'kongtask'
      and member.deptype operator(pg_catalog.=) 'e'
      and initial.classoid operator(pg_catalog.=) member.classid
      and initial.objoid operator(pg_catalog.=) member.objid
      and exists (select from kongtask.adopted);
  delete from pg_catalog.pg_init_privs where initprivs operator(pg_catalog.=) '{}';
end
$$;

drop table kongtask.adopted;
