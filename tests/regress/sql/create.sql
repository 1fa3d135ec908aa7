-- CREATE EXTENSION kongtask, and what a database has then. The files that follow use this database, one after another.

-- Workers run in a server that preloads the library. Where this says f, add kongtask to shared_preload_libraries, and restart the server.
select current_setting('shared_preload_libraries') ~ '\mkongtask\M' as is_preloaded;

create extension kongtask;

-- The queue is in a schema of its own, graphile_worker unless another is named; what is new is in schema kongtask.
select nspname from pg_namespace where nspname in ('graphile_worker', 'kongtask') order by 1;

select to_regclass('graphile_worker.jobs') as jobs, to_regclass('kongtask.tasks') as tasks,
  to_regclass('kongtask.workers') as workers;

-- Nothing of it is granted to PUBLIC.
select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where n.nspname in ('graphile_worker', 'kongtask') and has_function_privilege('public', p.oid, 'execute');

-- Every object has a comment, which \d+ and \df+ show.
select count(*) from pg_depend d
  where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    and d.refobjid = (select oid from pg_extension where extname = 'kongtask')
    and d.classid in ('pg_proc'::regclass, 'pg_class'::regclass)
    and not exists (select from pg_class c where d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relkind not in ('r', 'v'))
    and obj_description(d.objid, case d.classid when 'pg_proc'::regclass then 'pg_proc' else 'pg_class' end) is null;

-- A second one is refused.
create extension kongtask;

-- The tests that follow wait with this for what workers do: until a query answers `expected`, for 60 seconds at most.
create procedure public.wait_for(query text, expected text) language plpgsql as $$
declare
  deadline timestamptz = clock_timestamp() + interval '60 s';
  answer text;
begin
  loop
    execute query into answer;
    exit when answer is not distinct from expected;
    if clock_timestamp() > deadline then
      raise exception 'after 60 seconds, % still answers %, not %', query, answer, expected;
    end if;
    commit;
    perform pg_sleep(0.01);
  end loop;
end $$;

-- The database is served now: it has a scheduler. It has none where kongtask.databases leaves it out.
call wait_for(
  $$ select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler' and datname = current_database() $$, '1');
