-- Who may do what: nothing is granted to PUBLIC, and a handler has the rights of the role that registered its task.
\set VERBOSITY terse
set client_min_messages = warning;
drop role if exists regress_kongtask_web, regress_kongtask_app, regress_kongtask_other;
reset client_min_messages;
create role regress_kongtask_web;
-- Workers log in as the role that registers a task.
create role regress_kongtask_app login;
create schema app authorization regress_kongtask_app;

-- A role may add jobs with USAGE on the schema and EXECUTE on add_job, and needs no right to the tables.
set role regress_kongtask_web;
select graphile_worker.add_job('a');
reset role;
grant usage on schema graphile_worker to regress_kongtask_web;
set role regress_kongtask_web;
select graphile_worker.add_job('a');
reset role;
grant execute on function graphile_worker.add_job to regress_kongtask_web;
set role regress_kongtask_web;
select task_identifier, payload from graphile_worker.add_job('who', '"secret"');
-- It sees no jobs, and changes none.
select * from graphile_worker.jobs;
select graphile_worker.complete_jobs('{1}');
select graphile_worker.get_job('external-worker');
select kongtask.register_task('who', 'pg_sleep(float8)');
reset role;

-- A role may register tasks with EXECUTE on register_task; the handlers run as that role, logged in as it.
grant usage on schema kongtask to regress_kongtask_app;
grant execute on function kongtask.register_task, kongtask.unregister_task to regress_kongtask_app;
set role regress_kongtask_app;
create table app.done (session text, who text);
create function app.who(payload json) returns void language plpgsql as $$ begin
  -- There is nothing to go back to.
  reset role;
  insert into app.done values (session_user, current_user);
end $$;
select identifier, role from kongtask.register_task('who', 'app.who(json)');
call wait_for('select count(*) from app.done', '1');
select * from app.done;
reset role;

-- A task belongs to the role that registered it: besides it, only a superuser changes the task.
create role regress_kongtask_other login;
grant usage on schema kongtask, app to regress_kongtask_other;
grant execute on function kongtask.register_task, kongtask.unregister_task to regress_kongtask_other;
set role regress_kongtask_other;
select kongtask.register_task('who', 'app.who(json)');
select kongtask.unregister_task('who');
reset role;
select kongtask.unregister_task('who');

-- grant_worker lets a role run external workers.
set role regress_kongtask_web;
select graphile_worker.get_job('external-worker');
reset role;
select kongtask.grant_worker('regress_kongtask_web');
select graphile_worker.add_job('elsewhere') \g /dev/null
set role regress_kongtask_web;
select task_identifier from graphile_worker.get_job('external-worker');
select task_identifier from graphile_worker.complete_job('external-worker', (select id from graphile_worker.jobs));
reset role;

set client_min_messages = warning;
drop owned by regress_kongtask_web, regress_kongtask_app, regress_kongtask_other;
drop role regress_kongtask_web, regress_kongtask_app, regress_kongtask_other;
