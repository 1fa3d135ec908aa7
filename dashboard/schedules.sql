-- The schedules, with what they did last and will do next.

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'schedules', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'schedules')) as properties;

select
  'table' as component, 'schedule' as markdown, true as small, true as hover,
  json_build_array('missed', 'skipped') as align_right, 'Nothing is scheduled.' as empty_description;
select
  pg_temp.link(pg_temp.cut(schedule.name, 60), 'schedule.sql', 'name', schedule.name) as schedule,
  schedule.cron,
  schedule.task,
  case when schedule.active then coalesce(pg_temp.ago(schedule.next_run_at), 'never') else 'inactive' end as "next run",
  pg_temp.ago(schedule.last_run_at) as "last run",
  schedule.timezone as zone,
  schedule.missed_count as missed,
  schedule.skipped_count as skipped,
  schedule.problem,
  case when schedule.problem is not null then 'red' end as _sqlpage_color
from kongtask.schedules as schedule
order by schedule.next_run_at nulls last, schedule.name
limit 500;
