-- A job runs in a worker, and what it did is there with its completion. Fails if it has not within a minute.
create extension kongtask;
create table done (at timestamptz);
create function work() returns void language sql as $$ insert into public.done values (now()) $$;
select kongtask.register_task('work', 'work()');
select (graphile_worker.add_job('work')).task_identifier;
do $$
begin
  for i in 1 .. 600 loop
    -- What is committed is looked at anew: each look is a transaction of its own.
    commit;
    exit when exists (select from done) and not exists (select from graphile_worker.jobs);
    perform pg_sleep(0.1);
  end loop;
  assert (select count(*) from done) = 1, 'no job has run within a minute';
end
$$;
select count(*) as effects from done;
select role, state from kongtask.workers;
