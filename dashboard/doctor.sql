-- What keeps jobs from running, and the statement that mends it.

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'doctor', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'doctor')) as properties;

-- The check of handlers looks them up as the role that asks: it is of no use to one that may not see them.
set found = (
  select json_agg(row_to_json(finding))::text
  from kongtask.doctor() as finding
  where pg_temp.is_owner() or finding."check" <> 'handler'
);

select 'alert' as component, 'green' as color, 'check' as icon, 'Nothing keeps jobs from running' as title
where not exists (select from json_to_recordset($found::json) as finding (status text) where finding.status <> 'ok');

select
  'table' as component, true as small, true as hover, json_build_array('statement') as monospace,
  'Nothing was found.' as empty_description
where exists (select from json_to_recordset($found::json) as finding (status text) where finding.status <> 'ok');
select
  finding."check",
  finding.status,
  finding.detail,
  finding.hint as statement,
  case finding.status when 'error' then 'red' else 'yellow' end as _sqlpage_color
from json_to_recordset($found::json) as finding ("check" text, status text, detail text, hint text)
where finding.status <> 'ok';

select 'text' as component;
select 'In order: ' || coalesce(string_agg(finding."check", ', ' order by finding."check"), 'nothing') || '.' as contents
from json_to_recordset($found::json) as finding ("check" text, status text)
where finding.status = 'ok';
select ' The check of handlers needs the owner of the extension or a superuser.' as contents where not pg_temp.is_owner();
