-- DROP EXTENSION takes the queue with its jobs; workers stop first.
\set VERBOSITY terse
create function of_row(job graphile_worker.jobs) returns void language sql as '';
select kongtask.register_task('row', 'of_row(graphile_worker.jobs)') \g /dev/null

-- A function that takes the table's row depends on it.
drop extension kongtask;
-- What is not dropped goes on.
select graphile_worker.add_job('row') \g /dev/null
call wait_for('select count(*) from graphile_worker.jobs', '0');
set client_min_messages = warning;
drop extension kongtask cascade;
reset client_min_messages;
select count(*) from pg_proc where proname = 'of_row';

-- No process of this database's is left.
call wait_for('select count(*) from pg_stat_activity where backend_type ~ ''^kongtask'' and datname = current_database()', '0');

-- The queue can be in a schema of another name. It is used like the usual one.
create schema jobs_q;
create extension kongtask schema jobs_q;
create table done (what text);
create function note(payload json) returns void language sql as $$ insert into public.done values (payload::text) $$;
select identifier from kongtask.register_task('note', 'note(json)');
select task_identifier from jobs_q.add_job('note', '"in jobs_q"');
call wait_for('select what from public.done', '"in jobs_q"');

-- It can be renamed.
alter schema jobs_q rename to work;
truncate done;
select task_identifier from work.add_job('note', '"in work"');
call wait_for('select what from public.done', '"in work"');

-- A DROP EXTENSION that is rolled back leaves everything as it was.
begin;
drop extension kongtask;
rollback;
truncate done;
select task_identifier from work.add_job('note', '"still here"');
call wait_for('select what from public.done', '"still here"');

-- There is one queue in a database.
create extension kongtask schema public;

drop extension kongtask;
drop schema work;
drop table done;
drop function note;
drop procedure wait_for;
