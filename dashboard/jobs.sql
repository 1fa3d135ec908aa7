-- The jobs, newest first, with filters. A page reads on from an id, so that a later one is as quick as the first.
--   $state, $task, $queue, $text: filters; empty: any
--   $before: the id below which the page begins; empty: the newest jobs

select 'redirect' as component, refused.link
from pg_temp.refusal(
  'jobs', sqlpage.header('host'), sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN')
) as refused (link)
where refused.link is not null;

set state = (select nullif($state, ''));
set task = (select nullif($task, ''));
set queue = (select nullif($queue, ''));
set text = (select nullif($text, ''));
set before = (select case when $before ~ '^[0-9]{1,18}$' then $before else '9223372036854775807' end);
-- A text is looked for in so many jobs at a time, and in the beginning of each payload: reading all of a million jobs would take
-- too long.
set depth = (select case when $text is not null then '100000' end);

select 'dynamic' as component, sqlpage.run_sql('sqlpage/shell.sql', json_build_object('page', 'jobs')) as properties;

select 'form' as component, 'get' as method, 'jobs.sql' as action, 'Show' as validate, 'filter' as validate_icon, 'filter' as id;
select
  'state' as name, 'State' as label, 'select' as type, $state as value, 'any' as empty_option, 3 as width,
  '[{"value":"ready","label":"ready"},{"value":"waiting","label":"kept waiting"},{"value":"scheduled","label":"for later"},{"value":"running","label":"running"},{"value":"retrying","label":"to be retried"},{"value":"failed","label":"failed for good"}]' as options;
select 'task' as name, 'Task' as label, 'text' as type, $task as value, 3 as width, 'any' as placeholder, false as autocomplete;
select 'queue' as name, 'Queue' as label, 'text' as type, $queue as value, 3 as width, 'any' as placeholder, false as autocomplete;
select
  'text' as name, 'Text' as label, 'search' as type, $text as value, 3 as width, 'in key, payload or error' as placeholder,
  false as autocomplete;

-- The jobs of the page: their ids, newest first.
set ids = (
  select json_agg(found.id)
  from (
    select searched.id
    from (
      select job.id, job.key, job.payload, job.last_error
      from kongtask.job_states as job
      where
        job.id < $before::bigint
        and ($task is null or job.task_identifier = $task)
        and ($queue is null or job.queue_name = $queue)
        -- What is cheap to see goes before `state`, which is found out job by job.
        and (
          $state is null
          or job.state = $state
          and case $state
            when 'failed' then job.attempts >= job.max_attempts
            when 'scheduled' then job.attempts = 0 and job.run_at > now()
            when 'retrying' then job.attempts > 0 and job.attempts < job.max_attempts and job.run_at > now()
            when 'running' then
              job.locked_at is not null
              or job.id = any (array(select worker.job_id from kongtask.workers as worker where worker.state <> 'idle'))
            else job.attempts < job.max_attempts and job.run_at <= now() and job.locked_at is null
          end
        )
      order by job.id desc
      limit $depth::bigint
    ) as searched
    where
      $text is null
      or position(lower($text) in lower(searched.key)) > 0
      or position(lower($text) in lower(left(searched.payload::text, 10000))) > 0
      or position(lower($text) in lower(left(searched.last_error, 10000))) > 0
    order by searched.id desc
    limit 50
  ) as found
);

-- Where the next page begins; NULL: there is none.
set next = (
  select case
    when json_array_length($ids::json) = 50 then ($ids::json) ->> 49
    when $depth is not null then (
      select min(searched.id)::text
      from (
        select job.id
        from kongtask.job_states as job
        where
          job.id < $before::bigint
          and ($task is null or job.task_identifier = $task)
          and ($queue is null or job.queue_name = $queue)
        order by job.id desc
        limit $depth::bigint
      ) as searched
      having count(*) = $depth::bigint
    )
  end
);

select
  'table' as component, 'id' as markdown, true as small, true as hover, 'attempts' as align_right, 'id' as raw_numbers,
  'No job fits.' as empty_description;
select
  format('[%s](job.sql?id=%s)', job.id, job.id) as id,
  job.task_identifier as task,
  job.state,
  case
    when job.state in ('failed', 'retrying') and job.last_error is not null
      then pg_temp.cut(split_part(left(job.last_error, 500), E'\n', 1), 120)
    else job.why
  end as why,
  pg_temp.ago(job.run_at) as due,
  job.attempts || ' of ' || job.max_attempts as attempts,
  job.queue_name as queue,
  pg_temp.cut(job.key, 60) as key,
  pg_temp.cut(left(job.payload::text, 200), 80) as payload,
  case job.state when 'failed' then 'red' when 'retrying' then 'orange' when 'running' then 'blue' end as _sqlpage_color
from kongtask.job_states as job
where job.id = any (array(select json_array_elements_text($ids::json)::bigint))
order by job.id desc;

select 'text' as component where $depth is not null and $next is not null;
select
  'The text was looked for in ' || $depth || ' jobs, and in the first 10,000 characters of each. Go on for older ones.' as contents
where $depth is not null and $next is not null;

select 'button' as component, 'center' as justify where $next is not null or $before <> '9223372036854775807';
select
  'Newest' as title, 'chevrons-left' as icon, 'secondary' as outline,
  sqlpage.link('jobs.sql', json_strip_nulls(json_build_object('state', $state, 'task', $task, 'queue', $queue, 'text', $text)))
    as link
where $before <> '9223372036854775807';
select
  'Older' as title, 'chevron-right' as icon_after, 'secondary' as outline,
  sqlpage.link(
    'jobs.sql',
    json_strip_nulls(
      json_build_object('state', $state, 'task', $task, 'queue', $queue, 'text', $text, 'before', $next)
    )
  ) as link
where $next is not null;
