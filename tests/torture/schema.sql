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
grant insert on effect to alpha, beta;
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

select
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

select
  kongtask.register_task('set', 'set_of(json[])', max_batch := 1000),
  kongtask.register_task('chain', 'chain(json)'),
  kongtask.register_task('queued_beta', 'queued_beta(graphile_worker.jobs)');

reset role;
