-- Workers in the server run the jobs of registered tasks as soon as the transaction that added them commits.
\set VERBOSITY terse
create schema app;
set search_path = app, graphile_worker, public;
create table done (at serial, what text);

-- Each handler gets what its arguments ask for.
create function of_nothing() returns void language sql as
  $$ insert into app.done (what) select 'of_nothing: ' || payload from kongtask.current_job() $$;
create function of_json(payload json) returns void language sql as
  $$ insert into app.done (what) values ('of_json: ' || payload) $$;
create function of_jsonb(payload jsonb) returns void language sql as
  $$ insert into app.done (what) values ('of_jsonb: ' || payload::text) $$;
create function of_row(job jobs) returns void language sql as
  $$ insert into app.done (what) values ('of_row: ' || job.payload || ' of ' || job.task_identifier) $$;
create function of_both(payload json, job jobs) returns void language sql as
  $$ insert into app.done (what) values ('of_both: ' || payload || ' of ' || job.task_identifier) $$;
do $$ begin
  perform kongtask.register_task(f, (f || a)::regprocedure) from (values ('of_nothing', '()'), ('of_json', '(json)'),
    ('of_jsonb', '(jsonb)'), ('of_row', '(jobs)'), ('of_both', '(json, jobs)')) v (f, a);
end $$;
select count(add_job(identifier, '{"a":1}')) from kongtask.tasks;
call wait_for('select count(*) from graphile_worker.jobs', '0');
select what from done order by what;

-- A trigger may add jobs. They are there if what fired it commits.
create table orders (customer text);
create function order_placed() returns trigger language plpgsql as $$ begin
  perform graphile_worker.add_job('of_json', to_json(new.customer)); return new; end $$;
create trigger order_placed after insert on orders for each row execute function order_placed();
truncate done;
begin;
insert into orders values ('rolled back');
rollback;
insert into orders values ('Ada'), ('Grace');
call wait_for('select count(*) from app.done', '2');
select what from done order by what;

-- Jobs of one queue run one at a time, in order of priority, run_at and id.
truncate done restart identity;
select count(add_job('of_json', to_json(n), queue_name := 'q')) from generate_series(1, 10) n;
call wait_for('select count(*) from app.done', '10');
select string_agg(what, ', ' order by at) from done;
call wait_for('select count(*) from graphile_worker.job_queues', '0');

-- A job that is due later waits until then.
truncate done;
select add_job('of_json', '"due soon"', run_at := now() + interval '0.2 s'),
  add_job('of_json', '"due in a year"', run_at := now() + interval '1 year') \g /dev/null
call wait_for('select count(*) from app.done', '1');
select what, (select count(*) from jobs) as left from done;
delete from jobs;

-- Small jobs may share a transaction ...
truncate done;
create table transactions (id xid8);
create function counts(payload json) returns void language sql as
  $$ insert into app.transactions values (pg_current_xact_id()) $$;
select kongtask.register_task('counts', 'counts(json)', max_batch := 50) \g /dev/null
select count(add_job('counts', to_json(n))) from generate_series(1, 500) n;
call wait_for('select count(*) from app.transactions', '500');
select count(distinct id) < 500 as they_share from transactions;
-- ... or be handed over in one call.
create function of_set(payloads json[]) returns void language sql as
  $$ insert into app.done (what) select 'of_set: ' || p from unnest(payloads) p $$;
select kongtask.register_task('of_set', 'of_set(json[])') \g /dev/null
select count(add_job('of_set', to_json(n))) from generate_series(1, 500) n;
call wait_for('select count(*) from app.done', '500');
select count(distinct what) from done;

-- A handler may add jobs, also one with its own key: it is a new job.
truncate done restart identity;
create function countdown(payload json) returns void language plpgsql as $$ begin
  insert into app.done (what) values ('countdown: ' || payload);
  if payload::text <> '0' then
    perform graphile_worker.add_job('countdown', to_json(payload::text::int - 1), job_key := 'countdown');
  end if; end $$;
select kongtask.register_task('countdown', 'countdown(json)') \g /dev/null
select add_job('countdown', '3', job_key := 'countdown') \g /dev/null
call wait_for('select count(*) from app.done', '4');
select string_agg(what, ', ' order by at) from done;

-- A job of a task that is registered after it was added runs then.
call wait_for('select count(*) from graphile_worker.jobs', '0');
truncate done;
select add_job('of_late', '1') \g /dev/null
select kongtask.register_task('of_late', 'of_json(json)') \g /dev/null
call wait_for('select count(*) from app.done', '1');
select what from done;

-- Outside of a handler there is no current job.
select kongtask.current_job() is null as is_null;

-- kongtask.workers shows the processes of this database: they run as the role that registered the tasks.
select distinct database = current_database() as here, role = current_user as as_me from kongtask.workers where database = current_database();

call wait_for('select count(*) from graphile_worker.jobs', '0');
select count(kongtask.unregister_task(identifier)) > 0 as unregistered from kongtask.tasks;
set client_min_messages = warning;
drop schema app cascade;
