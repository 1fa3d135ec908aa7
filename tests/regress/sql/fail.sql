-- A handler that raises an error has failed: its effects are rolled back, and the job is tried again later.
\set VERBOSITY terse
create schema app;
set search_path = app, graphile_worker, public;
create table done (what text);
create view shown as select payload, attempts, max_attempts, split_part(last_error, E'\nCONTEXT', 1) as last_error, locked_by
  from jobs order by id;

create function fails(payload json) returns void language plpgsql as $$ begin
  insert into app.done values ('an effect');
  raise 'it failed: %', payload using errcode = 'XX123', detail = 'the detail', hint = 'the hint'; end $$;
select kongtask.register_task('fails', 'fails(json)') \g /dev/null
select add_job('fails', '1', max_attempts := 2) \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null', '1');

-- last_error has the message with SQLSTATE, detail, hint and context.
select * from shown;
select count(*) from done;
-- The next attempt is due after exp(1) seconds, the second after exp(2), ... up to exp(10), which is six hours.
select run_at - updated_at between '2.7 s' and '2.72 s' as back_off from jobs;

-- It can have it at once. After the last attempt the job has failed for good, and stays.
select reschedule_jobs(array(select id from jobs), run_at := now()) \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs where attempts = 2 and locked_at is null', '1');
select * from shown;

-- Once the handler is mended, it can be given further attempts.
create or replace function fails(payload json) returns void language sql as $$ insert into app.done values ('mended') $$;
select reschedule_jobs(array(select id from jobs), run_at := now(), attempts := 0) \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs', '0');
select * from done;

-- So has one that a deferred constraint fails as it commits, ...
create table parents (id int primary key);
create table children (parent int references parents deferrable initially deferred);
create function orphan() returns void language sql as $$ insert into app.children values (1) $$;
select kongtask.register_task('orphan', 'orphan()') \g /dev/null
select add_job('orphan', max_attempts := 1) \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null', '1');
select split_part(last_error, E'\n', 1) as last_error from shown;
delete from jobs;

-- ... one that takes longer than its timeout, ...
create function sleeps() returns void language sql as $$ select pg_sleep(60) $$;
select kongtask.register_task('sleeps', 'sleeps()', timeout := '100 ms') \g /dev/null
select add_job('sleeps', max_attempts := 1) \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null', '1');
select split_part(last_error, E'\n', 1) as last_error from shown;
delete from jobs;

-- ... and one whose handler is gone.
drop function orphan();
select add_job('orphan', max_attempts := 1) \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null', '1');
select split_part(last_error, E'\n', 1) as last_error from shown;
delete from jobs;

-- One that fails in a batch, or in a set, leaves the others.
create function all_but_3(payload json) returns void language plpgsql as $$ begin
  if payload::text = '3' then raise 'not 3'; end if; insert into app.done values (payload); end $$;
create function set_but_3(payloads json[]) returns void language plpgsql as $$ begin
  perform app.all_but_3(p) from unnest(payloads) p; end $$;
select kongtask.register_task('batch', 'all_but_3(json)', max_batch := 50), kongtask.register_task('set', 'set_but_3(json[])') \g /dev/null
truncate done;
select count(add_job('batch', to_json(n), max_attempts := 1)) from generate_series(1, 5) n;
call wait_for('select count(*) || '' '' || sum(attempts) from graphile_worker.jobs', '1 1');
select string_agg(what, ' ' order by what) from done;
delete from jobs;
truncate done;
select count(add_job('set', to_json(n), max_attempts := 1)) from generate_series(1, 5) n;
call wait_for('select count(*) || '' '' || sum(attempts) from graphile_worker.jobs', '1 1');
select string_agg(what, ' ' order by what) from done;
delete from jobs;

select count(kongtask.unregister_task(identifier)) > 0 as unregistered from kongtask.tasks;
set client_min_messages = warning;
drop schema app cascade;
