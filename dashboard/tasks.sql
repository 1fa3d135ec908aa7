-- The tasks: what is registered, and what became of their jobs.

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'tasks', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'tasks')) as properties;

select
  'table' as component, 'task' as markdown, true as small, true as hover, true as sort,
  json_build_array('added', 'completed', 'failed', 'for good', 'running', 'mean wait', 'mean run') as align_right,
  'No task is registered, and no job was added.' as empty_description;
select
  pg_temp.link(pg_temp.cut(coalesce(task.identifier, stats.task), 60), 'task.sql', 'task', coalesce(task.identifier, stats.task))
    as task,
  coalesce(task.handler, 'not registered') as handler,
  task.role,
  coalesce(stats.added, 0) as added,
  coalesce(stats.succeeded, 0) as completed,
  coalesce(stats.failed, 0) as failed,
  coalesce(stats.discarded, 0) as "for good",
  coalesce(stats.running, 0) as running,
  pg_temp.ms(stats.total_wait_time / nullif(stats.succeeded + stats.failed + stats.snoozed, 0)) as "mean wait",
  pg_temp.ms(stats.mean_run_time) as "mean run",
  case when stats.last_failure_at > coalesce(stats.last_success_at, '-infinity') then 'orange' end as _sqlpage_color
from kongtask.tasks as task
full join kongtask.stat_tasks as stats on task.identifier = stats.task
order by stats.added desc nulls last, 1
limit 500;
