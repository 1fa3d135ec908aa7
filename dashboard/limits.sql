-- The limits, in a database that has kongtask.limits.

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'limits', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'limits')) as properties;

select
  'table' as component, true as small, true as hover,
  json_build_array('running', 'of', 'waiting') as align_right, 'No limit is set.' as empty_description;
select
  limited.name,
  limited.key,
  limited.running,
  limited.concurrency as of,
  limited.waiting,
  pg_temp.ago(limited.next_start_at) as "next start",
  case when limited.running >= limited.concurrency then 'orange' end as _sqlpage_color
from kongtask.limits as limited
order by limited.waiting desc nulls last, limited.name, limited.key
limit 500;
