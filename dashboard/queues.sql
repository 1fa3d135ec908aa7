-- The queues, whose jobs run one at a time.

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'queues', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'queues')) as properties;

set found = (
  select json_agg(row_to_json(shown))
  from (select * from kongtask.queues as queue order by queue.oldest_wait desc nulls last, queue.jobs desc limit 201) as shown
);

select
  'table' as component, json_build_array('queue', 'next', 'runs') as markdown, true as small, true as hover,
  json_build_array('jobs', 'due', 'failed') as align_right, 'No job is in a queue.' as empty_description;
select
  pg_temp.link(pg_temp.cut(queue.queue_name, 60), 'queue.sql', 'queue', queue.queue_name) as queue,
  queue.jobs,
  queue.ready as due,
  queue.failed,
  format('[%s](job.sql?id=%s)', queue.running, queue.running) as runs,
  pg_temp.ago(queue.since) as since,
  format('[%s](job.sql?id=%s)', queue.head, queue.head) as next,
  pg_temp.short(queue.oldest_wait) as "oldest wait"
from json_to_recordset($found::json) as queue (
  queue_name text, jobs bigint, ready bigint, failed bigint, running bigint, since timestamptz, head bigint, oldest_wait interval
)
limit 200;

select 'text' as component;
select 'The 200 queues whose jobs have waited longest are shown.' as contents where json_array_length($found::json) > 200;
