-- Run by SQLPage on each connection that it makes. The functions are the connection's own (pg_temp): they run as the role that
-- the dashboard logs in as, and need no installation. The pages say `pg_temp.` before each call.

set application_name = 'kongtask dashboard';
-- What a page reads takes a second with a million jobs. A page is no reason to keep the server busy for longer than this.
set statement_timeout = '10s';
-- An action waits for no handler; this is for a session that holds a lock by hand.
set lock_timeout = '3s';
-- A page's statement is another one with each filter: a plan for any of them would be a bad one.
set plan_cache_mode = force_custom_plan;
-- Nor is one compiled: that takes longer than what it saves.
set jit = off;
set idle_in_transaction_session_timeout = '1min';

-- The queue's schema has any name: graphile_worker, unless CREATE EXTENSION said otherwise.
select set_config('search_path', format('pg_catalog, %I', nspname), false)
from pg_extension inner join pg_namespace on extnamespace = pg_namespace.oid
where extname = 'kongtask';

-- A role that may not read something gets the functions for it too: `sees` keeps it from the pages that call them.
set check_function_bodies = off;

-- Returns true if the relation is there and the current role may read it.
create function pg_temp.reads(relation text) returns boolean
language sql stable as $$
  select coalesce(
    has_schema_privilege('kongtask', 'usage') and has_table_privilege(to_regclass('kongtask.' || relation), 'select'),
    false
  )
$$;

-- Returns true if a function of that name is there, in schema kongtask or the queue's, and the current role may call it.
create function pg_temp.calls(name text) returns boolean
language sql stable as $$
  select coalesce(bool_or(has_function_privilege(proc.oid, 'execute') and has_schema_privilege(proc.pronamespace, 'usage')), false)
  from pg_proc as proc
  where
    proc.proname = name
    and (
      proc.pronamespace = to_regnamespace('kongtask')
      or proc.pronamespace = (select extnamespace from pg_extension where extname = 'kongtask')
    )
$$;

-- Returns true if the current role owns the extension or is a superuser: it may control all tasks.
create function pg_temp.is_owner() returns boolean
language sql stable as $$
  select
    (select rolsuper from pg_roles where rolname = current_user)
    or (select extowner = current_user::regrole from pg_extension where extname = 'kongtask')
$$;

-- Returns true if the current role may read the table of jobs. Row level security hides all of them from a role that may not
-- execute get_job.
create function pg_temp.sees_jobs() returns boolean
language sql stable as $$
  select coalesce(
    has_schema_privilege(relnamespace, 'usage') and has_table_privilege(oid, 'select')
      and (not row_security_active(oid) or pg_temp.calls('get_job')),
    false
  )
  from pg_class where oid = to_regclass('jobs')
$$;

-- Returns true if the current role may see a page.
create function pg_temp.sees(page text) returns boolean
language sql stable as $$
  select case page
    when 'index' then
      pg_temp.reads('overview') and pg_temp.reads('stat_tasks') and pg_temp.reads('holds') and pg_temp.calls('live_overview')
      and pg_temp.calls('live_stats') and pg_temp.calls('live_holds') and pg_temp.calls('stat_histogram') and pg_temp.sees_jobs()
    when 'jobs' then
      pg_temp.reads('job_states') and pg_temp.reads('tasks') and pg_temp.reads('workers') and pg_temp.calls('job_state')
      and pg_temp.calls('live_workers') and pg_temp.sees_jobs()
    when 'tasks' then
      pg_temp.reads('tasks') and pg_temp.reads('stat_tasks') and pg_temp.reads('pauses') and pg_temp.calls('live_stats')
      and pg_temp.calls('stat_histogram')
    when 'queues' then
      pg_temp.reads('queues') and pg_temp.reads('pauses') and pg_temp.calls('live_workers') and pg_temp.sees_jobs()
      and has_table_privilege('job_queues', 'select')
    when 'schedules' then
      pg_temp.reads('schedules') and pg_temp.calls('schedule_status') and pg_temp.calls('next_runs')
      and pg_temp.calls('describe_cron')
    when 'pauses' then pg_temp.reads('pauses') and pg_temp.reads('tasks')
    when 'workers' then pg_temp.reads('workers') and pg_temp.calls('live_workers')
    when 'limits' then
      pg_temp.reads('limits') and pg_temp.reads('limit_settings') and pg_temp.reads('tasks') and pg_temp.calls('live_limits')
      and pg_temp.calls('limit_key') and pg_temp.calls('job_state') and pg_temp.sees_jobs()
    when 'doctor' then
      pg_temp.calls('doctor') and pg_temp.calls('server_state') and pg_temp.calls('handler_problem') and pg_temp.reads('tasks')
      and pg_temp.reads('schedules') and pg_temp.sees_jobs()
    else false
  end
$$;

-- Returns true if the current role may control a task (NULL: all of them): pause and resume it, cancel and redrive its jobs.
create function pg_temp.controls(task text) returns boolean
language sql stable as $$
  select
    pg_temp.is_owner()
    or coalesce((select pg_has_role(runs_as, 'usage') from kongtask.tasks where identifier = task), false)
$$;

-- Returns where to send a request that must not be answered; NULL if it may. A name that an attacker's DNS has pointed at this
-- server's address is none of ours, so neither are requests that come by it.
create function pg_temp.refusal(page text, host text, origin text) returns text
language sql stable as $$
  select case
    when origin is not null and host is distinct from regexp_replace(origin, '^[a-z]+://', '') then 'refused.sql?why=host'
    when not pg_temp.sees(page) then 'refused.sql?why=rights'
  end
$$;

-- Returns why a request must not change anything; NULL if it may. A browser says where a form comes from, and no page of another
-- site can have it say otherwise. So a form of another site is refused, also where the browser would add a password by itself.
create function pg_temp.post_refusal(method text, from_origin text, fetch_site text, origin text) returns text
language sql stable as $$
  select case
    when method is distinct from 'POST' then 'method'
    when origin is null then 'readonly'
    when from_origin is distinct from origin then 'origin'
    when fetch_site is not null and fetch_site <> 'same-origin' then 'origin'
  end
$$;

-- Does what a button asks for, and returns {"link": the page that shows it} or what went wrong: {"error", "detail", "hint"}.
create function pg_temp.attempt(action text, id text, task text, queue_name text, name text, until text, reason text) returns json
language plpgsql as $$
declare
  v_id bigint;
  v_task text := nullif(task, '');
  v_queue_name text := nullif(queue_name, '');
  v_name text := nullif(name, '');
  v_reason text := nullif(reason, '');
  v_until timestamptz;
  v_done text := action;
  v_count bigint;
  v_message text;
  v_detail text;
  v_hint text;
begin
  v_id := nullif(id, '')::bigint;
  v_until := case when nullif(until, '') is not null then now() + until::interval end;
  case action
    when 'cancel' then
      v_done := kongtask.cancel(v_id, v_reason);
    when 'redrive' then
      v_count := kongtask.redrive(v_task, case when v_id is not null then array[v_id] end);
    when 'retry' then
      -- Of jobs that wait for their next attempt, or for later. Jobs that run are left alone.
      select count(*) into v_count from reschedule_jobs(array[v_id], run_at := now());
    when 'pause' then
      perform kongtask.pause(v_task, v_queue_name, v_until, v_reason);
    when 'resume' then
      if not kongtask.resume(v_task, v_queue_name) then v_done := 'not_paused'; end if;
    when 'run' then
      v_id := (kongtask.run_schedule(v_name)).id;
    when 'activate' then
      perform kongtask.alter_schedule(v_name, active := true);
    when 'deactivate' then
      perform kongtask.alter_schedule(v_name, active := false);
    else
      raise 'there is no action "%"', action;
  end case;
  if v_count = 0 then
    v_done := 'nothing';
  end if;
  return json_build_object(
    'page', case
      when action in ('cancel', 'retry', 'run') or action = 'redrive' and v_id is not null then 'job.sql'
      when v_name is not null then 'schedule.sql'
      when v_task is not null and v_queue_name is null then 'task.sql'
      when v_queue_name is not null and v_task is null then 'queue.sql'
      else 'pauses.sql'
    end,
    'parameters', json_strip_nulls(
      json_build_object('id', v_id, 'task', v_task, 'queue', v_queue_name, 'name', v_name, 'done', v_done, 'count', v_count)
    )
  );
exception when others then
  get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
  return json_build_object(
    'error', format('%s (SQLSTATE %s)', v_message, sqlstate), 'detail', v_detail, 'hint', v_hint
  );
end
$$;

-- Returns what a page says once a button has done its work: title|description|colour.
create function pg_temp.told(done text, count text) returns table (title text, description text, color text)
language sql immutable as $$
  select told.title, told.description, told.color
  from (
    values
      ('cancelled', 'Cancelled', 'The job did not run. It has failed for good.', 'green'),
      ('stopping', 'Stopping', 'The job runs, and its handler is being interrupted.', 'green'),
      ('gone', 'Gone', 'There is no such job any more, or it had failed for good before.', 'yellow'),
      ('redrive', 'Redriven', 'Failed jobs have got further attempts: ' || case when count ~ '^[0-9]{1,9}$' then count else '1' end || '.', 'green'),
      ('retry', 'Due now', 'A free worker takes the job.', 'green'),
      ('pause', 'Paused', 'No further job of it begins.', 'green'),
      ('resume', 'Resumed', 'Waiting jobs begin.', 'green'),
      ('not_paused', 'Not paused', 'There was no such pause any more.', 'yellow'),
      ('run', 'Added', 'The schedule has added this job.', 'green'),
      ('activate', 'Active', 'The schedule fires from now on.', 'green'),
      ('deactivate', 'Inactive', 'The schedule does not fire any more.', 'green'),
      ('nothing', 'Nothing done', 'The job runs, is gone, or is in another state by now.', 'yellow')
  ) as told (done, title, description, color)
  where told.done = $1
$$;

-- Returns text that markdown shows as it is.
create function pg_temp.md(value text) returns text
language sql immutable as $$
  select regexp_replace(regexp_replace(value, '([][\\`*_{}()#+.!|<>~&:@"''^$=-])', '\\\1', 'g'), '\s+', ' ', 'g')
$$;

-- Returns text as it stands in a URL.
create function pg_temp.encoded(value text) returns text
language sql immutable as $$
  select string_agg(
    case
      when letter ~ '^[A-Za-z0-9]$' then letter
      else regexp_replace(encode(convert_to(letter, 'UTF8'), 'hex'), '(..)', '%\1', 'g')
    end,
    '' order by place
  )
  from regexp_split_to_table(value, '') with ordinality as letters (letter, place)
$$;

-- Returns a link in markdown. The text and the parameters may be anything.
create function pg_temp.link(value text, page text, parameter text, argument text) returns text
language sql immutable as $$
  select format('[%s](%s?%s=%s)', pg_temp.md(value), page, parameter, pg_temp.encoded(argument))
$$;

create function pg_temp.short(duration interval) returns text
language sql immutable as $$
  select case
    when seconds < 0.01 then trim_scale(round(seconds * 1000, 2)) || ' ms'
    when seconds < 0.9995 then round(seconds * 1000) || ' ms'
    when seconds < 120 then round(seconds) || ' s'
    when seconds < 7200 then round(seconds / 60) || ' min'
    when seconds < 172800 then round(seconds / 3600) || ' h'
    else round(seconds / 86400) || ' days'
  end
  from (select extract(epoch from duration) as seconds) as length
$$;

-- Returns how long ago a time is, or how far ahead, in its largest unit.
create function pg_temp.ago(at timestamptz) returns text
language sql stable as $$
  select case
    when at is null then null
    when at in ('infinity', '-infinity') then at::text
    when at > now() then 'in ' || pg_temp.short(at - now())
    else pg_temp.short(clock_timestamp() - at) || ' ago'
  end
$$;

create function pg_temp.ms(milliseconds double precision) returns text
language sql immutable as $$
  select pg_temp.short(milliseconds * interval '1 ms')
$$;

create function pg_temp.at(at timestamptz) returns text
language sql stable as $$
  select case when isfinite(at) then to_char(at, 'YYYY-MM-DD HH24:MI:SS') else at::text end
$$;

-- Returns the beginning of a text, cut to so many characters.
create function pg_temp.cut(value text, length int) returns text
language sql immutable as $$
  select case when length(value) > length then left(value, length - 1) || '…' else value end
$$;

create function pg_temp.state_color(state text) returns text
language sql immutable as $$
  select case state
    when 'running' then 'blue' when 'failed' then 'red' when 'retrying' then 'orange' when 'waiting' then 'yellow' when 'ready' then 'green'
  end
$$;

-- Appends a sample to the series of the overview's charts, which the browser keeps in a cookie: nothing is stored here. A
-- series is the totals of the latest sample, and the points before it:
--   SERVER_TIME_SUCCEEDED_FAILED_ATTEMPTS_WAITED then, for each point, .TIME_SUCCEEDED A MINUTE_FAILED A MINUTE_WAIT_READY
-- Times are in milliseconds. One of another server, or that a browser made up, is begun anew.
create function pg_temp.series(
  past text, clock bigint, succeeded bigint, failed bigint, attempts bigint, waited bigint, ready bigint
) returns text
language plpgsql stable as $$
declare
  v_server text := left(md5(concat_ws(' ', pg_postmaster_start_time(), current_database())), 6);
  v_head text := concat_ws('_', v_server, clock, succeeded, failed, attempts, waited);
  v_former text[];
  v_before bigint[];
  v_points text;
begin
  if past is null or past !~ ('^' || v_server || '(_[0-9]{1,15}){5}(\.[0-9]{1,15}(_[0-9]{1,12}){4}){0,60}$') then
    return v_head;
  end if;
  v_former := string_to_array(past, '.');
  v_before := (string_to_array(v_former[1], '_'))[2:]::bigint[];
  -- Two pages at a time, or counters that were reset.
  if clock < v_before[1] + 500 then
    return past;
  elsif succeeded < v_before[2] or failed < v_before[3] or attempts < v_before[4] or waited < v_before[5] then
    return v_head;
  end if;
  v_points := concat_ws('_', clock,
    (succeeded - v_before[2]) * 60000 / (clock - v_before[1]),
    (failed - v_before[3]) * 60000 / (clock - v_before[1]),
    (waited - v_before[5]) / greatest(attempts - v_before[4], 1),
    ready);
  return array_to_string(v_head || v_former[greatest(2, cardinality(v_former) - 58):] || v_points, '.');
end
$$;

-- Returns the points of a series, oldest first.
create function pg_temp.points(series text) returns table (at timestamptz, succeeded numeric, failed numeric, wait bigint, ready bigint)
language sql immutable as $$
  select to_timestamp(point[1] / 1000.0), point[2] / 60.0, point[3] / 60.0, point[4], point[5]
  from (
    select string_to_array(text, '_')::bigint[] as point, place
    from unnest(string_to_array(series, '.')) with ordinality as parts (text, place)
    where place > 1
  ) as points
  order by place
$$;
