-- register_task says which function runs the jobs of a task, and unregister_task leaves them to external workers again.
\set VERBOSITY terse
create schema app;
set search_path = app, public;

create function of_nothing() returns void language sql as '';
create function of_json(payload json) returns void language sql as '';
create function of_row(job graphile_worker.jobs) returns void language sql as '';
create function of_set(payloads json[]) returns void language sql as '';

-- Options that are not given have their defaults. What a handler returns is ignored.
select identifier, handler, max_batch, in_place, timeout from kongtask.register_task('nothing', 'of_nothing()');
select identifier, handler, max_batch, in_place, timeout
  from kongtask.register_task('json', 'of_json(json)', max_batch := 50, in_place := false, timeout := '30 s');
select identifier, handler, max_batch, in_place, timeout from kongtask.register_task('row', 'of_row(graphile_worker.jobs)');
-- A handler of an array is called once for many jobs: max_batch says for how many at most.
select identifier, handler, max_batch, in_place, timeout from kongtask.register_task('set', 'of_set(json[])');

-- Registering again replaces all options.
select identifier, handler, max_batch, in_place, timeout from kongtask.register_task('json', 'of_json(json)');

-- Who registers a task owns it: the handler runs as that role.
select identifier, handler, role = current_user as is_mine, runs_as = current_user::regrole as runs_as_me
  from kongtask.tasks order by identifier;

-- What is refused.
create function of_number(n int) returns void language sql as '';
create function many(payload json) returns setof int language sql as 'select 1';
create procedure commits(payloads json[]) language sql as '';
select kongtask.register_task('t', 'of_number(int)');
select kongtask.register_task('t', 'many(json)');
select kongtask.register_task('t', 'commits(json[])');
select kongtask.register_task('t', 'no_such_function(json)');
select kongtask.register_task('', 'of_json(json)');
select kongtask.register_task(null, 'of_json(json)');
select kongtask.register_task('t', 'of_json(json)', max_batch := 1001);
select kongtask.register_task('t', 'of_set(json[])', max_batch := 10001);
select kongtask.register_task('t', 'of_json(json)', timeout := '0');

-- True if it was registered.
select kongtask.unregister_task('json');
select kongtask.unregister_task('json');

select count(kongtask.unregister_task(identifier)) from kongtask.tasks;
set client_min_messages = warning;
drop schema app cascade;
