-- The overview: how many jobs are in which state, and charts of what the page has seen since it was opened.
--   $every: seconds between two looks; 0: none

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'index', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

set every = (select case when $every in ('0', '2', '5', '15', '60') then $every else '5' end);

-- One look at the table of jobs, which takes a tenth of a second for a million of them.
set now = (select row_to_json(overview)::text from kongtask.overview);

-- The charts end now, and begin sixty looks ago, in milliseconds.
set xmax = (select (extract(epoch from clock_timestamp()) * 1000)::bigint::text);
set xmin = (select ($xmax::bigint - 60000 * (case $every when '0' then '5' else $every end)::bigint)::text);

set series = (
  select pg_temp.series(
    sqlpage.cookie('kongtask_series'),
    (extract(epoch from clock_timestamp()) * 1000)::bigint,
    coalesce(sum(stats.succeeded), 0)::bigint,
    coalesce(sum(stats.failed), 0)::bigint,
    coalesce(sum(stats.succeeded + stats.failed + stats.snoozed), 0)::bigint,
    coalesce(sum(stats.total_wait_time), 0)::bigint,
    (($now::json) ->> 'ready')::bigint
  )
  from kongtask.stat_tasks as stats
);

select
  'cookie' as component,
  'kongtask_series' as name,
  $series as value,
  600 as max_age,
  coalesce(sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') like 'https:%', false) as secure;

select
  'dynamic' as component,
  sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'index', 'refresh', nullif($every, '0'))) as properties;

select 'alert' as component, 'red' as color, 'hand-stop' as icon, 'No job runs in this database' as title, held.reason as description
from kongtask.holds as held
where held.database = current_database();

select 'big_number' as component, 4 as columns, 'kt-numbers' as class;
select
  item.title, item.value, item.unit, item.color, item.title_link, item.value_link, item.description, item.progress_percent,
  item.progress_color
from (
  select
    jobs.*,
    jobs.workers_busy * 100 / nullif(jobs.workers, 0) as busy
  from json_to_record($now::json) as jobs (
    ready bigint, waiting bigint, running bigint, scheduled bigint, retrying bigint, failed bigint, oldest_ready_age interval,
    jobs_per_second double precision, workers_busy bigint, workers bigint
  )
) as jobs
cross join lateral (
  values
    (1, 'Completed', round(jobs.jobs_per_second::numeric, 1)::text, '/s', null, null, null, 'mean of 10 s', null, null),
    (2, 'Running', to_char(jobs.running, 'FM999,999,999,999'), null, 'blue', 'jobs.sql?state=running', 'jobs.sql?state=running',
      format('%s of %s workers', jobs.workers_busy, jobs.workers), jobs.busy, 'blue'),
    (3, 'Ready', to_char(jobs.ready, 'FM999,999,999,999'), null, 'green', 'jobs.sql?state=ready', 'jobs.sql?state=ready',
      coalesce('the oldest for ' || pg_temp.short(jobs.oldest_ready_age), 'none waits'), null, null),
    (4, 'Kept waiting', to_char(jobs.waiting, 'FM999,999,999,999'), null, case when jobs.waiting > 0 then 'yellow' end, 'jobs.sql?state=waiting',
      'jobs.sql?state=waiting', 'due, but held up', null, null),
    (5, 'For later', to_char(jobs.scheduled, 'FM999,999,999,999'), null, null, 'jobs.sql?state=scheduled', 'jobs.sql?state=scheduled',
      'not yet due', null, null),
    (6, 'To be retried', to_char(jobs.retrying, 'FM999,999,999,999'), null, case when jobs.retrying > 0 then 'orange' end, 'jobs.sql?state=retrying',
      'jobs.sql?state=retrying', 'tried before', null, null),
    (7, 'Failed for good', to_char(jobs.failed, 'FM999,999,999,999'), null, case when jobs.failed > 0 then 'red' end, 'jobs.sql?state=failed',
      'jobs.sql?state=failed', 'no attempt is left', null, null),
    (8, 'Workers', jobs.workers::text, null, null, 'workers.sql', 'workers.sql', 'they come with jobs', null, null)
) as item (place, title, value, unit, color, title_link, value_link, description, progress_percent, progress_color)
order by item.place;

select 'html' as component, '<div class="kt-charts mt-3">' as html;

select
  'chart' as component, 'area' as type, 'Throughput: jobs a second' as title, true as time, true as show_legend, 0 as ymin,
  $xmin::bigint as xmin, $xmax::bigint as xmax, 220 as height, 'green' as color, 'red' as color, 'kt-throughput' as id;
select seen.series, seen.x, seen.y
from (
  select 'completed' as series, point.at as x, round(point.succeeded, 2) as y from pg_temp.points($series) as point
  union all
  select 'failed attempts', point.at, round(point.failed, 2) from pg_temp.points($series) as point
) as seen
order by seen.series, seen.x;

select
  'chart' as component, 'area' as type, 'Wait before an attempt: ms' as title, true as time, 0 as ymin,
  $xmin::bigint as xmin, $xmax::bigint as xmax, 220 as height, 'blue' as color, 'kt-wait' as id;
select 'mean wait' as series, point.at as x, point.wait as y from pg_temp.points($series) as point;

select
  'chart' as component, 'bar' as type, 'Failed attempts by task' as title, true as horizontal, 220 as height, 'red' as color,
  'kt-failures' as id;
select 'failed attempts' as series, pg_temp.cut(stats.task, 40) as x, stats.failed as y
from kongtask.stat_tasks as stats
where stats.failed > 0
order by stats.failed desc
limit 8;

select
  'chart' as component, 'bar' as type, 'How long jobs have waited' as title, 220 as height, 'azure' as color,
  'kt-waits' as id;
select 'attempts' as series, case when bin.le < 'infinity' then 'to ' || pg_temp.ms(bin.le) else 'longer' end as x, bin.count as y
from kongtask.stat_histogram(null, 'wait') as bin
where
  bin.le between
    (select min(least(low.le, 0.5)) from kongtask.stat_histogram(null, 'wait') as low where low.count > 0)
    and (select max(high.le) from kongtask.stat_histogram(null, 'wait') as high where high.count > 0)
order by bin.le;

select 'html' as component, '</div>' as html;

select
  'table' as component, 'The busiest tasks' as description, 'task' as markdown, true as small, true as hover,
  json_build_array('added', 'completed', 'failed', 'running', 'mean wait', 'mean run') as align_right;
select
  pg_temp.link(pg_temp.cut(stats.task, 60), 'task.sql', 'task', stats.task) as task,
  stats.added,
  stats.succeeded as completed,
  stats.failed,
  stats.running,
  pg_temp.ms(stats.total_wait_time / nullif(stats.succeeded + stats.failed + stats.snoozed, 0)) as "mean wait",
  pg_temp.ms(stats.mean_run_time) as "mean run"
from kongtask.stat_tasks as stats
where stats.added + stats.succeeded + stats.failed > 0
order by stats.total_run_time desc
limit 8;

select 'text' as component;
select
  case $every
    when '0' then 'This page does not load itself again.'
    else 'This page loads itself again every ' || $every || ' seconds. The charts show what it has seen since it was opened.'
  end as contents;

select 'button' as component, 'sm' as size;
select 'Every ' || every || ' s' as title, 'secondary' as outline, 'index.sql?every=' || every as link
from unnest('{2,5,15,60}'::text[]) as every where every <> $every;
select 'Stop' as title, 'secondary' as outline, 'index.sql?every=0' as link where $every <> '0';
