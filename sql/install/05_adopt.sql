-- Taking over a schema that graphile-worker or KongTask made, at any of its migrations 1 to 9: the tables stay what they
-- are, with every row, and end up as 10_tables.sql makes them. Functions and triggers are dropped, to be made anew, and
-- so are a default and an index that only KongTask makes. Whatever neither of them made is refused: it could run as the
-- tables' new owner, and would not be in a dump.

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
  v_tables constant text[] = array['jobs', 'job_queues', 'known_crontabs', 'migrations'];
  v_table text;
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

  -- The tables are locked before anything is read of them, so that what is found still holds when it is acted upon; and
  -- in the order in which clients lock them, so that neither waits for the other in a circle.
  foreach v_table in array v_tables loop
    if exists (
      select from pg_catalog.pg_class as class
      where
        class.relnamespace operator(pg_catalog.=) v_namespace
        and class.relname operator(pg_catalog.=) v_table
        and class.relkind operator(pg_catalog.=) 'r'
    ) then
      execute pg_catalog.format('lock table only %I.%I in access exclusive mode', v_schema, v_table);
    end if;
  end loop;
  -- With a snapshot from before the locks, what came before they were held would not be seen.
  if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed' then
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = pg_catalog.format('schema %I cannot be taken over in a transaction at isolation level %s', v_schema,
        pg_catalog.current_setting('transaction_isolation')),
      detail = 'Such a transaction does not see what other transactions commit while it waits for the locks of the tables.',
      hint = 'Use a transaction at isolation level READ COMMITTED.';
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
      detail = pg_catalog.format('These are %s.', v_found),
      hint = 'Drop them, or move them to another schema, and put back afterwards what is still needed.';
  end if;
  select pg_catalog.max(id) into v_migration from migrations;
  if v_migration is null or v_migration operator(pg_catalog.<) 1 or v_migration operator(pg_catalog.>) 9 then
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = pg_catalog.format('schema %I cannot be taken over: its latest migration is %s', v_schema,
        coalesce(v_migration::text, 'none')),
      detail = 'kongtask can take over migrations 1 to 9, which are those of graphile-worker up to 0.12.',
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
    where
      proc.pronamespace operator(pg_catalog.=) v_namespace
      -- Which are not made anew.
      and proc.proname operator(pg_catalog.<>) all ('{jobs__increase_job_queue_count,jobs__decrease_job_queue_count}'::pg_catalog.name[])
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

  -- What KongTask's migration 8 makes beyond graphile-worker's, and comments, which 10_tables.sql writes anew.
  for v_statement in
    select 'alter table known_crontabs alter column known_since drop default'
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_attribute as attribute on class.oid operator(pg_catalog.=) attribute.attrelid
    inner join pg_catalog.pg_attrdef as default_
      on
        attribute.attrelid operator(pg_catalog.=) default_.adrelid
        and attribute.attnum operator(pg_catalog.=) default_.adnum
    where
      class.relnamespace operator(pg_catalog.=) v_namespace
      and class.relname operator(pg_catalog.=) 'known_crontabs'
      and attribute.attname operator(pg_catalog.=) 'known_since'
      and pg_catalog.pg_get_expr(default_.adbin, default_.adrelid) operator(pg_catalog.=) 'now()'
    union all
    select 'drop index idx_known_crontabs_last_execution'
    from pg_catalog.pg_class as class
    where
      class.relnamespace operator(pg_catalog.=) v_namespace
      and class.relkind operator(pg_catalog.=) 'i'
      and pg_catalog.pg_get_indexdef(class.oid, 0, true) operator(pg_catalog.=)
        'CREATE INDEX idx_known_crontabs_last_execution ON known_crontabs USING btree (last_execution)'
  loop
    execute v_statement;
  end loop;
  for v_statement in
    select pg_catalog.format(
        'comment on %s is null',
        case
          when description.objsubid operator(pg_catalog.<>) 0
            then pg_catalog.format('column %I.%I', class.relname, attribute.attname)
          when class.relkind operator(pg_catalog.=) 'S' then pg_catalog.format('sequence %I', class.relname)
          when class.relkind operator(pg_catalog.=) 'i' then pg_catalog.format('index %I', class.relname)
          else pg_catalog.format('table %I', class.relname)
        end
      )
    from pg_catalog.pg_description as description
    inner join pg_catalog.pg_class as class
      on
        description.classoid operator(pg_catalog.=) class.tableoid
        and description.objoid operator(pg_catalog.=) class.oid
    left join pg_catalog.pg_attribute as attribute
      on
        class.oid operator(pg_catalog.=) attribute.attrelid
        and description.objsubid operator(pg_catalog.=) attribute.attnum
    where class.relnamespace operator(pg_catalog.=) v_namespace
  loop
    execute v_statement;
  end loop;

  -- Here a row of job_queues is a lock, and jobs are not counted.
  delete from job_queues where locked_at is null;
  update job_queues set job_count = 1;

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
  -- An early KongTask's migration 5 made no column flags.
  alter table jobs
    add column if not exists revision int not null default 0,
    add column if not exists flags jsonb default null;
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
      hint = 'Undo the changes, and make them again afterwards where they are still needed.';
  end if;

  -- A script of an extension is run with client_min_messages at warning.
  perform pg_catalog.set_config('client_min_messages', 'notice', true);
  raise notice 'took over schema % (graphile-worker''s migration %) with % jobs in % queues', pg_catalog.quote_ident(v_schema),
    v_migration, (select pg_catalog.count(*) from jobs), (select pg_catalog.count(distinct queue_name) from jobs);
  perform pg_catalog.set_config('client_min_messages', 'warning', true);
end
$$;
