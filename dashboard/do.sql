-- What the buttons post to. It changes something only where post_refusal has no objection, and the database decides whether the
-- role may. Then it goes to a page that shows what came of it; where it failed, it says why.
--   :action: see pg_temp.attempt in sqlpage/on_connect.sql, as for the other fields of the form

set refused = (
  select pg_temp.post_refusal(
    sqlpage.request_method(),
    sqlpage.header('origin'),
    sqlpage.header('sec-fetch-site'),
    sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
  )
);

set outcome = (
  select case
    when $refused is null then pg_temp.attempt(:action, :id, :task, :queue, :name, :until, :reason)::text
    else json_build_object('error', told.error, 'hint', told.hint)::text
  end
  from (
    values
      ('method', 'Nothing was changed: this page takes forms only', 'Use the buttons.'),
      ('readonly', 'This dashboard is read only', 'Set KONGTASK_DASHBOARD_ORIGIN to the address at which browsers reach it.'),
      ('origin', 'This form does not come from the dashboard itself', 'Open the dashboard at the address that KONGTASK_DASHBOARD_ORIGIN says.')
  ) as told (why, error, hint)
  where told.why = coalesce($refused, 'method')
);

select 'redirect' as component, sqlpage.link(outcome ->> 'page', outcome -> 'parameters') as link
from (select $outcome::json as outcome) as done
where outcome ->> 'page' is not null;

select 'status_code' as component, case when $refused is null then 409 when $refused = 'method' then 405 else 403 end as status;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', '')) as properties;

select
  'alert' as component,
  'red' as color,
  'alert-triangle' as icon,
  outcome ->> 'error' as title,
  concat_ws(' ', outcome ->> 'detail', outcome ->> 'hint') as description
from (select $outcome::json as outcome) as done;

select 'button' as component;
select 'Back' as title, 'arrow-left' as icon, coalesce(
  case
    when :id <> '' then 'job.sql?id=' || pg_temp.encoded(:id)
    when :name <> '' then 'schedule.sql?name=' || pg_temp.encoded(:name)
    when :task <> '' and coalesce(:queue, '') = '' then 'task.sql?task=' || pg_temp.encoded(:task)
    when :queue <> '' and coalesce(:task, '') = '' then 'queue.sql?queue=' || pg_temp.encoded(:queue)
  end,
  'index.sql'
) as link;
