-- A steady small load for the shop of shop.sql: customers order, some cards are refused, and the stock is filled up. Run by
-- scripts/dashboard, so that there is something to see.
\set ON_ERROR_STOP on
\set QUIET on
set client_min_messages = warning;

-- A task that a superuser registers runs as that superuser: the shop gets a role of its own, and so does the dashboard. It is a
-- member of the shop's, and so may pause, cancel and redrive what the shop's tasks do.
create role shop login;
create role operator login in role shop;
grant usage on schema kongtask, graphile_worker to shop;
grant execute on function
  graphile_worker.add_job, kongtask.register_task, kongtask.give_up, kongtask.schedule, kongtask.schedule_status
to shop;
grant select on kongtask.schedules to shop;
select format('alter schema shop owner to shop')
union all
select format('alter table %s owner to shop', oid::regclass) from pg_class
where relnamespace = 'shop'::regnamespace and relkind = 'r'
union all
select format('alter routine %s owner to shop', oid::regprocedure) from pg_proc where pronamespace = 'shop'::regnamespace
\gexec
select kongtask.unregister_task(identifier) from kongtask.tasks where handler like 'shop.%'
\g /dev/null

set role shop;

-- One card in fifty is refused, and the provider is as flaky as before.
create or replace function shop.charge_card(payload json, job graphile_worker.jobs) returns void
language plpgsql as $$
begin
  if job.attempts = 1 and random() < 0.02 then
    perform kongtask.give_up('the card was refused');
  elsif job.attempts < 3 and random() < 0.3 then
    raise exception 'the payment provider did not answer';
  end if;
  update shop.orders set status = 'paid' where id = (payload ->> 'order_id')::bigint;
  perform graphile_worker.add_job('confirm_order', payload, priority := -1);
end
$$;

create function shop.place_orders() returns void
language sql as $$
  update shop.products set stock = stock + 1000 where stock < 500;
  insert into shop.orders (sku, quantity, customer)
  select
    (array['chair', 'table', 'lamp'])[1 + floor(random() * 3)],
    1 + floor(random() * 3),
    (array['Ada', 'Grace', 'Edsger', 'Barbara', 'Donald'])[1 + floor(random() * 5)]
  from generate_series(1, 1 + floor(random() * 5)::int);
$$;

-- What is done is forgotten after an hour.
create function shop.tidy_up() returns void
language sql as $$
  delete from shop.letters where written_at < now() - interval '1 hour';
  delete from shop.orders as old where status = 'confirmed' and not exists (select from shop.letters where order_id = old.id);
$$;

select
  kongtask.register_task('reserve_stock', 'shop.reserve_stock(json)', timeout := '10 s'),
  kongtask.register_task('charge_card', 'shop.charge_card(json, graphile_worker.jobs)', in_place := false),
  kongtask.register_task('confirm_order', 'shop.confirm_order(json)'),
  kongtask.register_task('ask_for_review', 'shop.ask_for_review(json)'),
  kongtask.register_task('place_orders', 'shop.place_orders()'),
  kongtask.register_task('tidy_up', 'shop.tidy_up()')
\g /dev/null
select
  kongtask.schedule('orders', '1 second', 'place_orders', overlap := 'skip'),
  kongtask.schedule('tidy up', '*/10 * * * *', 'tidy_up')
\g /dev/null
reset role;
