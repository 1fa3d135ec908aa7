-- What enqueuers promise and handlers do. Neither table keeps anybody from doing it twice: that is what is counted.

create role web login;
create role alpha login;
create role beta login;

-- Written in the transaction that adds the job: the one is there if the other is.
create table promise (
  id bigint not null,
  task text not null,
  queue text,
  -- The job that add_job said it is. A key can give one job to several promises: the last of them is what it does.
  job bigint not null,
  revision int not null,
  -- Whether the job has this promise's payload: not if it was left as it was (unsafe_dedupe).
  is_taken boolean not null
);
create index on promise (id);

create table effect (
  at bigserial,
  promise bigint,
  run_at timestamptz,
  -- The transaction's begin, and as good as its end.
  begun timestamptz default now(),
  ended timestamptz default clock_timestamp()
);
create index on effect (promise);

-- Pauses, each while it was surely in force. NULL: any.
create table paused (task text, queue text, begun timestamptz not null, ended timestamptz not null);

-- What kongtask.cancel has answered.
create table cancelled (task text, answer text not null);

-- What the handlers of limited tasks have done, by their own clock: how many jobs each time, and in which life of the server.
create table limited_run (
  name text not null,
  key text not null,
  jobs int not null,
  life int not null,
  began timestamptz not null,
  ended timestamptz not null
);

-- Each start of the server's shared memory has another checkpointer.
create function life() returns int language sql security definer as $$
  select pid from pg_stat_activity where backend_type = 'checkpointer'
$$;

-- Takes a lock for each of some jobs, until their transaction ends in whatever way. There are as many as may run at once, so one is
-- free unless the limit is exceeded: also by attempts that are rolled back, and leave no row.
create function take_locks(name text, key text, jobs int, most int) returns void language plpgsql as $$
declare
  number int = 0;
begin
  for job in 1..jobs loop
    loop
      number := number + 1;
      if number > most then raise 'more than % at once, limit %, key %', most, name, key; end if;
      exit when pg_try_advisory_xact_lock(hashtext(name || ' ' || key), number);
    end loop;
  end loop;
end $$;

create sequence child;

-- How many jobs wait, if that is less than enough.
create function waiting(enough bigint) returns bigint language sql security definer as $$
  select count(*) from (select from graphile_worker.jobs limit enough) jobs
$$;

grant usage on schema public, kongtask, graphile_worker to web, alpha, beta;
grant execute on function graphile_worker.add_job to web, beta;
grant execute on function graphile_worker.add_jobs to web;
grant execute on function kongtask.register_task to alpha, beta;
grant insert, select on promise to web, beta;
grant insert on effect, limited_run to alpha, beta;
grant usage on sequence effect_at_seq, child to alpha, beta;
grant create on schema public to alpha, beta;

set role alpha;

create function quick(p json) returns void language sql as $$
  insert into public.effect (promise) values ((p ->> 'promise')::bigint)
$$;

create function slow(p json) returns void language plpgsql as $$ begin
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  perform pg_sleep(0.1 + random() * 0.3);
end $$;

-- Fails once what it did is done.
create function failing(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  if j.attempts <= 1 + j.id % 2 then raise 'attempt %', j.attempts; end if;
end $$;

-- Long enough to be superseded while it runs.
create function keyed(p json) returns void language plpgsql as $$ begin
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  perform pg_sleep(random() * 0.02);
end $$;

-- Those that fail at first share their transaction, or their call, with others.
create function batched(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  if j.attempts = 1 and j.id % 97 = 0 then raise 'the first attempt'; end if;
end $$;

create function rows(jobs graphile_worker.jobs[]) returns void language plpgsql as $$ begin
  insert into public.effect (promise) select (j.payload ->> 'promise')::bigint from unnest(jobs) j;
  if exists (select from unnest(jobs) j where j.attempts = 1 and j.id % 997 = 0) then raise 'a first attempt'; end if;
end $$;

create function queued_alpha(j graphile_worker.jobs) returns void language sql as $$
  insert into public.effect (promise, run_at) values ((j.payload ->> 'promise')::bigint, j.run_at)
$$;

create function limited(p json) returns void language plpgsql as $$
declare
  began timestamptz = clock_timestamp();
begin
  perform public.take_locks('limited', '', 1, 2);
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  perform pg_sleep(random() * 0.02);
  insert into public.limited_run values ('limited', '', 1, public.life(), began, clock_timestamp());
end $$;

-- Some of the first attempts are rolled back once they have run.
create function of_tenant(p json, j graphile_worker.jobs) returns void language plpgsql as $$
declare
  began timestamptz = clock_timestamp();
begin
  perform public.take_locks('tenants', p ->> 'tenant', 1, 2);
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  perform pg_sleep(random() * 0.004);
  insert into public.limited_run values ('tenants', p ->> 'tenant', 1, public.life(), began, clock_timestamp());
  if j.attempts = 1 and j.id % 23 = 0 then raise 'the first attempt'; end if;
end $$;

create function paced(p json) returns void language plpgsql as $$
declare
  began timestamptz = clock_timestamp();
begin
  perform public.take_locks('pace', '', 1, 2);
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  insert into public.limited_run values ('pace', '', 1, public.life(), began, clock_timestamp());
end $$;

select
  kongtask.register_task('limited', 'limited(json)', concurrency := 2),
  kongtask.register_task('tenant', 'of_tenant(json, graphile_worker.jobs)'),
  kongtask.register_task('tenant_claimed', 'of_tenant(json, graphile_worker.jobs)', in_place := false),
  kongtask.register_task('tenant_batch', 'of_tenant(json, graphile_worker.jobs)', max_batch := 10),
  kongtask.register_task('paced', 'paced(json)'),
  kongtask.register_task('quick', 'quick(json)'),
  kongtask.register_task('slow', 'slow(json)'),
  kongtask.register_task('failing', 'failing(json, graphile_worker.jobs)'),
  kongtask.register_task('keyed', 'keyed(json)'),
  kongtask.register_task('batched', 'batched(json, graphile_worker.jobs)', max_batch := 50),
  kongtask.register_task('rows', 'rows(graphile_worker.jobs[])', max_batch := 1000),
  kongtask.register_task('queued_alpha', 'queued_alpha(graphile_worker.jobs)');

set role beta;

create function set_of(payloads json[]) returns void language sql as $$
  insert into public.effect (promise) select (p ->> 'promise')::bigint from unnest(payloads) p
$$;

-- Promises more itself.
create function chain(p json) returns void language plpgsql as $$ begin
  insert into public.effect (promise) values ((p ->> 'promise')::bigint);
  insert into public.promise (id, task, job, revision, is_taken)
    select child.id, 'quick', job.id, job.revision, true
    from (select -nextval('public.child') as id from generate_series(1, 2)) child,
      graphile_worker.add_job('quick', json_build_object('promise', child.id), max_attempts := 1000) job;
end $$;

create function queued_beta(j graphile_worker.jobs) returns void language sql as $$
  insert into public.effect (promise, run_at) values ((j.payload ->> 'promise')::bigint, j.run_at)
$$;

create function set_of_tenant(payloads json[]) returns void language plpgsql as $$
declare
  began timestamptz = clock_timestamp();
  tenant text;
  jobs int;
begin
  for tenant, jobs in select p ->> 'tenant', count(*) from unnest(payloads) p group by 1 loop
    perform public.take_locks('tenants', tenant, jobs, 2);
  end loop;
  insert into public.effect (promise) select (p ->> 'promise')::bigint from unnest(payloads) p;
  perform pg_sleep(random() * 0.004);
  insert into public.limited_run
    select 'tenants', p ->> 'tenant', count(*), public.life(), began, clock_timestamp() from unnest(payloads) p group by 2;
end $$;

select
  kongtask.register_task('tenant_set', 'set_of_tenant(json[])', max_batch := 10),
  kongtask.register_task('set', 'set_of(json[])', max_batch := 1000),
  kongtask.register_task('chain', 'chain(json)'),
  kongtask.register_task('queued_beta', 'queued_beta(graphile_worker.jobs)');

reset role;

select
  kongtask.set_limit('tenants', '{tenant,tenant_claimed,tenant_batch,tenant_set}', by := 'tenant', concurrency := 2),
  kongtask.set_limit('pace', '{paced}', concurrency := 2, rate := 10, per := '250 ms', burst := 3);
