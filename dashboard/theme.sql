-- Notes in a cookie which theme the browser's user wants, and goes back. It changes nothing in the database.

select
  'cookie' as component,
  'kongtask_theme' as name,
  case $to when 'dark' then 'dark' else 'light' end as value,
  31536000 as max_age,
  coalesce(sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') like 'https:%', false) as secure;

select 'redirect' as component, 'index.sql' as link;
