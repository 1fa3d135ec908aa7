-- How many jobs run at once, and how many begin in a time.

create table kongtask.limit_settings (
  name text not null primary key check (length(name) >= 1 and length(name) <= 128),
  tasks text[] check (cardinality(tasks) >= 1 and array_position(tasks, null) is null),
  by text check (length(by) >= 1 and length(by) <= 128),
  concurrency int check (concurrency >= 1),
  rate int check (rate >= 1),
  per interval check (per > '0'),
  burst int not null default 1 check (burst >= 1),
  role text not null,
  since timestamptz not null default now(),
  constraint limit_settings_limits_check check (concurrency is not null or rate is not null),
  constraint limit_settings_rate_per_check check ((rate is null) = (per is null))
);

create function kongtask.tg_limit_settings__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_pauses_changed';

create trigger _900_changed
  after insert or update or delete or truncate on kongtask.limit_settings for each statement
  execute function kongtask.tg_limit_settings__changed();

create function kongtask.set_limit(
  name text,
  tasks text[] = null,
  by text = null,
  concurrency integer = null,
  rate integer = null,
  per interval = null,
  burst integer = 1
) returns kongtask.limit_settings
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_set_limit';

create function kongtask.drop_limit(name text) returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_drop_limit';

create function kongtask.throttle(name text, delay interval, key text = null) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_throttle';

create function kongtask.limit_key(payload json, queue_name text, by text) returns text
  language c immutable
  as 'MODULE_PATHNAME', 'kongtask_limit_key';

create function kongtask.live_limits(
  limits text[],
  keys text[],
  out number bigint,
  out running bigint,
  out next_start_at timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_limits';

create view kongtask.limits with (security_invoker = true) as
  with limited as (
    select
      setting.name,
      setting.tasks,
      setting.by,
      setting.concurrency
    from kongtask.limit_settings as setting
    union all
    select
      'task:' operator(pg_catalog.||) task.identifier,
      array[task.identifier],
      null::text,
      task.concurrency
    from kongtask.tasks as task
    where task.concurrency is not null
  ),

  counted as (
    select
      limited.name,
      case when limited.by is not null then kongtask.limit_key(job.payload, job.queue_name, limited.by) end as key,
      count(*) filter (where seen.state operator(pg_catalog.<>) 'running') as waiting
    from limited
    inner join jobs as job
      on limited.tasks is null or job.task_identifier operator(pg_catalog.=) any (limited.tasks)
    inner join kongtask.tasks as task on job.task_identifier operator(pg_catalog.=) task.identifier
    cross join lateral kongtask.job_state(job, job.xmax) as seen
    where seen.state operator(pg_catalog.=) any (array['ready', 'waiting', 'running'])
    group by limited.name, 2
  ),

  listed as (
    select
      limited.name,
      counted.key,
      limited.concurrency,
      coalesce(counted.waiting, 0) as waiting,
      row_number() over () as number
    from limited
    left join counted on limited.name operator(pg_catalog.=) counted.name
  )

  select
    listed.name,
    listed.key,
    live.running,
    listed.concurrency,
    live.next_start_at,
    listed.waiting
  from listed
  inner join kongtask.live_limits(
    (select array_agg(each.name order by each.number) from listed as each),
    (select array_agg(each.key order by each.number) from listed as each)
  ) as live on listed.number operator(pg_catalog.=) live.number;

-- What psql's \d+ and \df+ say, and what docs/reference is made from.
comment on table kongtask.limit_settings is
'Limits: how many jobs may run at once, and how many may begin in a time.

kongtask.set_limit and kongtask.drop_limit change the table. The concurrency
of one task is an option of register_task.';
comment on column kongtask.limit_settings.name is 'Name of the limit.';
comment on column kongtask.limit_settings.tasks is 'Tasks whose jobs fall under it. NULL: all.';
comment on column kongtask.limit_settings.by is
'Member of the payload, or queue_name: jobs that
differ in it are limited apart. NULL: all jobs
share the limit.';
comment on column kongtask.limit_settings.concurrency is
'Number of jobs that may run at once. NULL: any.';
comment on column kongtask.limit_settings.rate is
'Number of jobs that may begin within per. NULL:
any.';
comment on column kongtask.limit_settings.per is 'Time that rate is for.';
comment on column kongtask.limit_settings.burst is
'Number of jobs that may begin together after a
time in which none has.';
comment on column kongtask.limit_settings.role is 'Name of the role that called kongtask.set_limit last.';
comment on column kongtask.limit_settings.since is 'Time when the limit was last set.';
comment on constraint limit_settings_limits_check on kongtask.limit_settings is
'A limit has a concurrency, a rate, or both.';
comment on constraint limit_settings_rate_per_check on kongtask.limit_settings is
'A rate is for a time.';
comment on function kongtask.tg_limit_settings__changed is
'Trigger of kongtask.limit_settings: tells sessions and the scheduler of a
change.';
comment on function kongtask.set_limit is
'Sets a limit to jobs that run at once or that begin in a time, and returns
the row of kongtask.limit_settings. Replaces a limit of that name.

A job begins only if there is room under every limit that it falls under.
One that finds no room waits, and begins as soon as there is; jobs behind it
that have room pass it. A limit takes effect at the commit. Jobs that run go
on; where there are more than the new limit lets, none begins until enough
have ended.

The workers inside the server count exactly: a job that ends in whatever way
gives its room back at once. Jobs that external workers run are not counted,
and get_job takes no notice of limits. After a restart of the server, rates
begin anew. Jobs that share a call or a transaction (max_batch) count each.

Arguments:
- name: name of the limit, 1 to 128 characters. Not task:..., which stands
  for the concurrency of a task.
- tasks: tasks whose jobs fall under it, registered or not. NULL: all tasks.
- by: member of the payload, such as ''tenant'', or ''queue_name''. Jobs in
  which it differs are limited apart; those without it share one limit.
  NULL: all jobs share the limit.
- concurrency: number of jobs that may run at once. NULL: any.
- rate: number of jobs that may begin within per. They are spread evenly:
  one every per / rate. NULL: any.
- per: time that rate is for, 1 millisecond to 10 years.
- burst: number of jobs that may begin together after a time in which none
  has. Within any time of length per, rate + burst - 1 begin at most.

Errors:
- 22004: name is NULL.
- 22023: an argument is out of range, there is neither concurrency nor rate,
  or a rate and per are not given together.
- 42501: the current role may not limit these tasks.

Rights: EXECUTE on the function and USAGE on schema kongtask. The owner of
the extension and superusers may set any limit; the role that registered
tasks, and its members, one that names only these tasks.

Locks: waits for another transaction that sets or drops the same limit.';
comment on function kongtask.drop_limit is
'Removes a limit and returns true, or false if there is none.

At the commit, jobs that waited for it begin.

Arguments:
- name: name of the limit.

Errors:
- 42501: the current role may not limit these tasks.

Rights: as for set_limit.

Locks: waits for another transaction that sets or drops the same limit.';
comment on function kongtask.throttle is
'Lets no job begin under a limit for a while. A handler calls it when the
service that it uses asks for that, by HTTP status 429, for example.

It takes effect at once, whatever becomes of the transaction. Jobs that run
go on. The longest time counts of several. It is forgotten when the server
restarts.

Arguments:
- name: name of the limit; task:NAME for the concurrency of a task.
- delay: time from now in which no job begins, up to 10 years.
- key: value of the limit''s by for which this is. NULL: jobs without it; for
  a limit without by, all of its jobs.

Errors:
- 22004: name or delay is NULL.
- 22023: delay is out of range.
- 42704: there is no limit of that name.
- 42501: no handler of a task under the limit runs in this session, and the
  current role may not set the limit.
- 55000: kongtask is not in shared_preload_libraries.
- 53400: too many keys are limited at once (kongtask.max_limit_keys).

Rights: EXECUTE on the function and USAGE on schema kongtask.';
comment on function kongtask.limit_key is
'Returns the value by which a job is limited: a member of its payload, or its
queue.';
comment on function kongtask.live_limits is
'Returns what the workers know of limits, each given by its name and a key.';
comment on view kongtask.limits is
'Limits, each with the jobs that run and wait under it. A limit with by has a
row for each key that has jobs.

Rights: SELECT on the view, on kongtask.limit_settings, kongtask.tasks and
jobs, row level security included; EXECUTE on kongtask.job_state,
kongtask.limit_key and kongtask.live_limits, and USAGE on schema kongtask.';
comment on column kongtask.limits.name is
'Name of the limit; task:NAME for the concurrency
of a task.';
comment on column kongtask.limits.key is
'Value by which its jobs are limited. NULL: none,
or that of jobs without it.';
comment on column kongtask.limits.running is 'Number of jobs that run.';
comment on column kongtask.limits.concurrency is 'Number of jobs that may run at once. NULL: any.';
comment on column kongtask.limits.next_start_at is
'Time before which no job begins. NULL: none, or
it has passed.';
comment on column kongtask.limits.waiting is
'Number of jobs that are due and do not run, for
whatever reason.';
