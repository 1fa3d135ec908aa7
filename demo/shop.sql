-- A shop. An order is a row; what follows from it is jobs, which a trigger adds in the order's own transaction, and which
-- workers inside the server run by calling the functions below.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
set client_min_messages = warning;

\echo
\echo '== CREATE EXTENSION kongtask: the queue is tables and functions in this database'
\echo
create extension kongtask;
\dt graphile_worker.*

create schema shop;

create table shop.products (
  sku text primary key,
  stock int not null check (stock >= 0)
);

create table shop.orders (
  id bigint generated always as identity primary key,
  sku text not null references shop.products,
  quantity int not null,
  customer text not null,
  status text not null default 'new'
);

create table shop.letters (
  order_id bigint not null references shop.orders,
  subject text not null,
  written_at timestamptz not null default clock_timestamp()
);

insert into shop.products values ('chair', 10), ('table', 3), ('lamp', 25);

\echo '== Handlers are functions in SQL or plpgsql; registering one makes its jobs run here, as the role that registers it'
\echo

create function shop.reserve_stock(payload json) returns void
language plpgsql as $$
declare
  v_order shop.orders;
begin
  select * into strict v_order from shop.orders where id = (payload ->> 'order_id')::bigint for update;
  update shop.products set stock = stock - v_order.quantity where sku = v_order.sku;
  update shop.orders set status = 'reserved' where id = v_order.id;
  -- Enqueuing inside a handler: this job exists if and only if the reservation does.
  perform graphile_worker.add_job('charge_card', payload);
end
$$;

-- A flaky one: the payment provider answers at the third attempt only.
create function shop.charge_card(payload json, job graphile_worker.jobs) returns void
language plpgsql as $$
begin
  update shop.orders set status = 'paid' where id = (payload ->> 'order_id')::bigint;
  if job.attempts < 3 then
    raise exception 'the payment provider did not answer'
      using hint = 'This attempt is rolled back, and made again a little later.';
  end if;
  perform graphile_worker.add_job('confirm_order', payload, priority := -1);
end
$$;

create function shop.confirm_order(payload json) returns void
language sql as $$
  update shop.orders set status = 'confirmed' where id = (payload ->> 'order_id')::bigint;
  insert into shop.letters (order_id, subject) values ((payload ->> 'order_id')::bigint, 'Your order is confirmed');
$$;

create function shop.ask_for_review(payload json) returns void
language sql as $$
  insert into shop.letters (order_id, subject) values ((payload ->> 'order_id')::bigint, 'How do you like it?');
$$;

select kongtask.register_task('reserve_stock', 'shop.reserve_stock(json)') is not null as registered
\g /dev/null
select kongtask.register_task('charge_card', 'shop.charge_card(json, graphile_worker.jobs)') is not null as registered
\g /dev/null
select kongtask.register_task('confirm_order', 'shop.confirm_order(json)') is not null as registered
\g /dev/null
select kongtask.register_task('ask_for_review', 'shop.ask_for_review(json)') is not null as registered
\g /dev/null
select identifier, handler, role from kongtask.tasks order by identifier;

\echo '== A trigger enqueues'
\echo

create function shop.order_placed() returns trigger
language plpgsql as $$
begin
  -- One queue for each product: its reservations are made one at a time, and in order.
  perform graphile_worker.add_job(
    'reserve_stock', json_build_object('order_id', new.id), queue_name := 'stock of ' || new.sku);
  -- Two seconds ahead.
  perform graphile_worker.add_job(
    'ask_for_review', json_build_object('order_id', new.id), run_at := now() + interval '2 seconds');
  return new;
end
$$;

create trigger order_placed after insert on shop.orders for each row execute function shop.order_placed();

\echo '== Five customers order. Nothing but this INSERT is said to anyone'
\echo
insert into shop.orders (sku, quantity, customer) values
  ('chair', 4, 'Ada'), ('table', 1, 'Grace'), ('lamp', 2, 'Edsger'), ('chair', 2, 'Barbara'), ('table', 2, 'Donald');

\echo '== And this one is taken back: its jobs were never there'
\echo
begin;
insert into shop.orders (sku, quantity, customer) values ('lamp', 1, 'Nobody');
rollback;

-- The demo's own patience: waits for a condition, and fails if it does not come.
create procedure shop.wait_until(condition text, what text)
language plpgsql as $$
declare
  v_done boolean;
  v_begun timestamptz := clock_timestamp();
begin
  loop
    execute 'select ' || condition into v_done;
    -- Ends the transaction, so that the next look sees what was committed since.
    commit;
    exit when v_done;
    if clock_timestamp() > v_begun + interval '60 seconds' then
      raise exception 'waited in vain until %', what;
    end if;
    perform pg_sleep(0.02);
  end loop;
end
$$;

call shop.wait_until(
  $$ (select count(*) from graphile_worker.jobs where last_error is not null) = 5 $$,
  'every payment had failed once');

\echo '== The payments failed: rolled back, recorded, and due again after exp(attempts) seconds'
\echo
select id, task_identifier, attempts, max_attempts, split_part(last_error, E'\n', 1) as last_error, run_at
  from graphile_worker.jobs where last_error is not null order by id;

\echo '== Not waiting for that: the third attempt is made as soon as the second has failed'
\echo
call shop.wait_until($$
  -- Whatever waits for its next attempt is rescheduled to now.
  (select count(*) from graphile_worker.reschedule_jobs(
    array(select id from graphile_worker.jobs where last_error is not null), run_at := now())) >= 0
  and not exists (select from shop.orders where status <> 'confirmed') $$, 'every order was confirmed');
call shop.wait_until($$ (select count(*) = 0 from graphile_worker.jobs) $$, 'the queue was empty');

\echo '== Every order is confirmed, stock and letters agree'
\echo
select * from shop.orders order by id;
select * from shop.products order by sku;
select subject, count(*) as letters from shop.letters group by subject order by subject;

\echo '== The queue is empty, its workers idle'
\echo
select count(*) as jobs_left from graphile_worker.jobs;
select pid, database, role, state, since from kongtask.workers order by pid;

\echo '== How fast? 10,000 jobs that each write a row, one transaction each'
\echo
create table shop.clicks (n int);
create function shop.count_click(payload json) returns void
language sql as $$ insert into shop.clicks values ((payload ->> 'n')::int) $$;
select kongtask.register_task('count_click', 'shop.count_click(json)') is not null as registered
\g /dev/null
select clock_timestamp() as begun \gset
select count(graphile_worker.add_job('count_click', json_build_object('n', n))) as jobs_added
  from generate_series(1, 10000) as n;
call shop.wait_until($$ (select count(*) = 0 from graphile_worker.jobs) $$, 'the queue was empty');
select count(*) as effects, count(distinct n) as different,
    round(10000 / extract(epoch from clock_timestamp() - :'begun'::timestamptz)) as jobs_per_second
  from shop.clicks;
