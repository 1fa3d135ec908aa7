create function kongtask.server_state(
  out is_preloaded boolean,
  out is_served boolean,
  out workers int,
  out lacks_slot boolean,
  out needs_login boolean,
  out job_expiry interval,
  out flags_problem text
) returns setof record
  language c volatile rows 1
  as 'MODULE_PATHNAME', 'kongtask_server_state';

create function kongtask.handler_problem(handler text, role oid, out problem text, out mend text) returns setof record
  language c volatile rows 1
  as 'MODULE_PATHNAME', 'kongtask_handler_problem';

create function kongtask.doctor(out "check" text, out status text, out detail text, out hint text) returns setof record
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  as $$
begin
  return query execute format(
    $doctor$
    with server as materialized (
      select * from kongtask.server_state()
    ),
    task as (
      select t.identifier, t.handler, t.role, coalesce(t.runs_as, kongtask.role_named(t.role))::oid as role_id
      from kongtask.tasks as t
    ),
    garbage as (
      select t.n_dead_tup, t.n_live_tup
      from pg_stat_all_tables as t
      where t.relid = '%1$s.jobs'::regclass and t.n_dead_tup > 50000 + 2 * t.n_live_tup
    ),
    lock as (
      select q.locked_by, q.locked_at, format('queue "%%s"', q.queue_name) as what,
        -- A worker of ours that goes on with the queue leaves job_id as it was.
        not starts_with(q.locked_by, 'kongtask:')
          and not exists (select from %1$s.jobs as j where j.id = q.job_id) as is_orphan
      from %1$s.job_queues as q
      where q.locked_at is not null
      union all
      select j.locked_by, j.locked_at, format('job %%s', j.id),
        j.queue_name is not null
          and not exists (select from %1$s.job_queues as q where q.queue_name = j.queue_name and q.locked_at is not null)
      from %1$s.jobs as j
      where j.locked_at is not null
    ),
    limited as (
      select s.name, s.tasks, s.by, s.concurrency, s.rate, s.per, s.burst from kongtask.limit_settings as s
      union all
      select 'task:' || t.identifier, array[t.identifier], null, t.concurrency, null, null, 1
      from kongtask.tasks as t
      where t.concurrency is not null
    ),
    -- Limits and keys that have had no room for a minute: so long have as many jobs as may run at once been running.
    saturated as (
      select limited.name, limited.tasks, limited.by, run.key, max(run.since) as since,
        array_agg(run.job_id order by run.since) as job_ids
      from limited
      cross join lateral (
        select w.job_id, w.since, case when limited.by is not null then kongtask.limit_key(j.payload, j.queue_name, limited.by) end as key
        from kongtask.workers as w
        inner join %1$s.jobs as j on j.id = w.job_id
        where
          w.database = current_database() and w.state = 'running'
          and (limited.tasks is null or j.task_identifier = any(limited.tasks))
      ) as run
      group by limited.name, limited.tasks, limited.by, limited.concurrency, run.key
      having count(*) >= limited.concurrency and max(run.since) < clock_timestamp() - interval '1 min'
    ),
    finding as (
      select
        'preload' as name,
        'error' as status,
        'The library is not in shared_preload_libraries: jobs can be added, and no worker runs them. A change takes effect after a restart of the server.' as detail,
        format(
          'alter system set shared_preload_libraries = %%s',
          concat_ws(', ', (
            select string_agg(quote_literal(btrim(library, ' "')), ', ')
            from pg_settings, regexp_split_to_table(setting, ',') as library
            where pg_settings.name = 'shared_preload_libraries' and btrim(library) <> ''
          ), quote_literal('kongtask'))
        ) as hint
      from server where not is_preloaded
      union all
      select 'databases', 'error',
        format('kongtask.databases does not list database "%%s".', current_database()),
        format(
          'alter system set kongtask.databases = %%L; select pg_reload_conf()',
          case
            when btrim(current_setting('kongtask.databases')) = '' then current_database()
            else format('%%s, %%s', current_setting('kongtask.databases'), current_database())
          end
        )
      from server where not is_served
      union all
      select 'workers', 'error', 'kongtask.workers is 0: no job runs.',
        format(
          'alter system set kongtask.workers = %%s; select pg_reload_conf()',
          least(16, greatest(1, current_setting('max_worker_processes')::int - 2))
        )
      from server where workers = 0
      union all
      select 'slots', case when lacks_slot then 'error' else 'warning' end,
        format(
          'max_worker_processes is %%s. kongtask needs one slot for its launcher, and one for the scheduler and up to %%s for the workers of each database with jobs. A change takes effect after a restart of the server.',
          current_setting('max_worker_processes'),
          workers
        ),
        format('alter system set max_worker_processes = %%s', current_setting('max_worker_processes')::int + 2 + workers)
      from server
      where
        is_preloaded and is_served
        and (
          lacks_slot
          -- The default is for servers that have slots enough; others run fewer.
          or current_setting('max_worker_processes')::int < 2 + workers
          and (select s.source from pg_settings as s where s.name = 'kongtask.workers') <> 'default'
        )
      union all
      select 'standby', 'warning', 'The server is a standby: jobs run on its primary.', 'select pg_promote()'
      where pg_is_in_recovery()
      union all
      select 'holds', 'error', format('No job runs in this database: %%s.', held.reason),
        coalesce(
          (
            select format('alter subscription %%I disable', s.subname)
            from pg_subscription as s
            inner join pg_subscription_rel as r on s.oid = r.srsubid
            where
              s.subenabled and r.srrelid = '%1$s.jobs'::regclass and held.reason ~ 'subscription'
              and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
            limit 1
          ),
          'select kongtask.release_holds()'
        )
      from kongtask.holds as held
      where held.database = current_database()
      union all
      select 'role', 'error',
        case
          when role.oid is null and task.role ~ '^[0-9]+$'
            then format('Task "%%s" runs as a role that has been dropped.', task.identifier)
          when role.oid is null then format('Task "%%s" runs as role %%s, which does not exist.', task.identifier, task.role)
          when not role.rolcanlogin and server.needs_login
            then format('Task "%%s" runs as role %%I, which cannot log in.', task.identifier, role.rolname)
          else format('Task "%%s" runs as role %%I, which may not connect to this database.', task.identifier, role.rolname)
        end,
        case
          when role.oid is null and task.role ~ '^[0-9]+$' then format('select kongtask.unregister_task(%%L)', task.identifier)
          when role.oid is null then format('create role %%s login', task.role)
          when not role.rolcanlogin and server.needs_login then format('alter role %%I login', role.rolname)
          else format('grant connect on database %%I to %%I', current_database(), role.rolname)
        end
      from task
      cross join server
      left join pg_roles as role on task.role_id = role.oid
      where
        role.oid is null
        or not role.rolcanlogin and server.needs_login
        or not has_database_privilege(role.oid, current_database(), 'connect')
      union all
      select 'task', 'warning',
        format(
          '%%s jobs wait for task "%%s", the oldest since %%s. The task is not registered in this database, and no session looks like an external worker.',
          count(*),
          job.task_identifier,
          date_trunc('second', min(job.run_at))
        ),
        format('select kongtask.register_task(%%L, ''HANDLER(json)'')', job.task_identifier)
      from %1$s.jobs as job
      where
        job.attempts < job.max_attempts
        and not exists (select from task where task.identifier = job.task_identifier)
        and not exists (
          select from pg_stat_activity as session
          where
            session.datname = current_database() and session.pid <> pg_backend_pid()
            and session.query ~ 'get_job|jobs:insert'
        )
      group by job.task_identifier
      union all
      select 'handler', 'error', format('Task "%%s": %%s.', task.identifier, checked.problem),
        coalesce(checked.mend, format('select kongtask.unregister_task(%%L)', task.identifier))
      from task
      cross join lateral kongtask.handler_problem(task.handler, task.role_id) as checked
      where task.role_id is not null and checked.problem is not null
      union all
      select 'failing', 'warning',
        format(
          'The latest attempt of task "%%s" failed, and %%s attempts before it; %%s have succeeded. The latest error is: %%s. Mend the handler first.',
          stats.task, stats.failed - 1, stats.succeeded, stats.last_error
        ),
        format(
          'select count(*) from %1$s.reschedule_jobs(array(select id from %1$s.jobs where task_identifier = %%L and attempts > 0), run_at := now(), attempts := 0)',
          stats.task
        )
      from kongtask.stat_tasks as stats
      where stats.failed >= 3 and stats.last_failure_at > coalesce(stats.last_success_at, '-infinity')
      union all
      select 'locks', 'warning',
        format('Worker "%%s", which has locked %%s and %%s more, does not live.', lock.locked_by, min(lock.what), count(*) - 1),
        format('select %1$s.force_unlock_workers(array[%%L])', lock.locked_by)
      from lock
      cross join server
      where
        lock.is_orphan
        or case starts_with(lock.locked_by, 'kongtask:')
          when true then not exists (select from kongtask.workers as w where w.worker_id = lock.locked_by)
          else lock.locked_at < now() - server.job_expiry
        end
      group by lock.locked_by
      union all
      select 'autovacuum', 'warning',
        format('Table jobs has %%s dead rows beside %%s live ones.', garbage.n_dead_tup, garbage.n_live_tup),
        'vacuum %1$s.jobs'
      from garbage
      union all
      select 'autovacuum', 'warning', 'The setting autovacuum is off: dead rows make searches slow.',
        'alter system set autovacuum = on; select pg_reload_conf()'
      where current_setting('autovacuum') = 'off'
      union all
      select 'xmin', 'warning',
        format(
          'The transaction of process %%s (%%s, %%s) has been open since %%s: dead rows of table jobs stay.',
          session.pid, session.usename, session.state, date_trunc('second', session.xact_start)
        ),
        format('select pg_terminate_backend(%%s)', session.pid)
      from garbage
      cross join pg_stat_activity as session
      where session.backend_xmin is not null and session.xact_start < clock_timestamp() - interval '5 s'
      union all
      select 'xmin', 'warning',
        format('Transaction "%%s" has been prepared since %%s: dead rows of table jobs stay.', p.gid, date_trunc('second', p.prepared)),
        format('rollback prepared %%L', p.gid)
      from garbage
      cross join pg_prepared_xacts as p
      where p.prepared < clock_timestamp() - interval '5 s'
      union all
      select 'xmin', 'warning',
        format('Replication slot "%%s" is not in use and keeps dead rows of table jobs.', slot.slot_name),
        format('select pg_drop_replication_slot(%%L)', slot.slot_name)
      from garbage
      cross join pg_replication_slots as slot
      where not slot.active and (slot.xmin is not null or slot.catalog_xmin is not null)
      union all
      select 'clock', 'warning',
        format('%%s jobs were added or claimed in the future: the clock has been set back.', count(*)),
        'update %1$s.jobs set run_at = least(run_at, now()), created_at = least(created_at, now()), locked_at = least(locked_at, now()) where created_at > now() or locked_at > now()'
      from %1$s.jobs as job
      where job.created_at > now() + interval '1 min' or job.locked_at > now() + interval '1 min'
      having count(*) > 0
      union all
      select 'run_at', 'warning',
        format('%%s jobs are to run more than ten years from now.', count(*)),
        'select count(*) from %1$s.reschedule_jobs(array(select id from %1$s.jobs where run_at > now() + interval ''10 years'' and run_at < ''infinity''), run_at := now())'
      from %1$s.jobs as job
      where job.run_at > now() + interval '10 years' and job.run_at < 'infinity'
      having count(*) > 0
      union all
      select 'schedules', 'warning', format('Schedule "%%s": %%s.', schedule.name, schedule.problem),
        format('select kongtask.unschedule(%%L)', schedule.name)
      from kongtask.schedules as schedule
      where schedule.problem is not null
      union all
      select 'limits', 'warning',
        format('Limit "%%s" names tasks that are not registered: %%s.', limited.name, array_to_string(named.unknown, ', ')),
        case
          when named.known is null then format('select kongtask.drop_limit(%%L)', limited.name)
          else format(
            'select kongtask.set_limit(%%L, %%L, %%L, %%L, %%L, %%L, %%L)',
            limited.name, named.known, limited.by, limited.concurrency, limited.rate, limited.per, limited.burst
          )
        end
      from limited
      cross join lateral (
        select
          array_agg(l.task order by l.task) filter (where task.identifier is null) as unknown,
          array_agg(l.task order by l.task) filter (where task.identifier is not null) as known
        from unnest(limited.tasks) as l (task)
        left join task on task.identifier = l.task
      ) as named
      where named.unknown is not null
      union all
      select 'limits', 'warning',
        format(
          'Of %%s jobs that wait under limit "%%s", %%s share one limit, as they have no %%s. Perhaps it is spelt otherwise.',
          waiting.jobs, limited.name, waiting.without,
          case when limited.by = 'queue_name' then 'queue' else format('member "%%s"', limited.by) end
        ),
        format(
          'select kongtask.set_limit(%%L, %%L, ''MEMBER'', %%L, %%L, %%L, %%L)',
          limited.name, limited.tasks, limited.concurrency, limited.rate, limited.per, limited.burst
        )
      from limited
      cross join lateral (
        select count(*) as jobs, count(*) filter (where kongtask.limit_key(j.payload, j.queue_name, limited.by) is null) as without
        from (
          select j.payload, j.queue_name
          from %1$s.jobs as j
          where
            j.attempts < j.max_attempts and j.locked_at is null
            and (limited.tasks is null or j.task_identifier = any(limited.tasks))
          limit 1000
        ) as j
      ) as waiting
      where limited.by is not null and waiting.jobs >= 10 and waiting.without * 2 > waiting.jobs
      union all
      select 'limits', 'warning',
        format(
          'Limit "%%s" has had no room%%s since %%s: %%s jobs wait until one of these ends: %%s.',
          saturated.name, coalesce(' for key "' || saturated.key || '"', ''), date_trunc('second', saturated.since),
          waiting.jobs, array_to_string(saturated.job_ids, ', ')
        ),
        format('select kongtask.cancel(%%s)', saturated.job_ids[1])
      from saturated
      cross join lateral (
        select count(*) as jobs
        from %1$s.jobs as j
        where
          j.attempts < j.max_attempts and j.locked_at is null and j.run_at <= saturated.since
          and j.id <> all(saturated.job_ids)
          and (saturated.tasks is null or j.task_identifier = any(saturated.tasks))
          and (saturated.by is null or kongtask.limit_key(j.payload, j.queue_name, saturated.by) is not distinct from saturated.key)
      ) as waiting
      where waiting.jobs > 0
      union all
      select 'flags', 'error', format('kongtask.forbidden_flags_function: %%s. No job runs meanwhile.', flags_problem),
        'alter system set kongtask.forbidden_flags_function = ''''; select pg_reload_conf()'
      from server where flags_problem is not null
      union all
      select 'triggers', 'warning',
        format('Trigger %%s of table %%s is disabled: workers do not learn of jobs at once.', t.tgname, t.tgrelid::regclass),
        format('alter table %%s enable trigger %%I', t.tgrelid::regclass, t.tgname)
      from pg_trigger as t
      where t.tgrelid in ('%1$s.jobs'::regclass, '%1$s.job_queues'::regclass) and t.tgenabled = 'D' and not t.tgisinternal
    ),
    known (name) as (
      values ('preload'), ('databases'), ('workers'), ('slots'), ('standby'), ('holds'), ('role'), ('task'), ('handler'),
        ('failing'), ('locks'), ('autovacuum'), ('xmin'), ('clock'), ('run_at'), ('schedules'), ('limits'), ('flags'), ('triggers')
    )
    select found.name, found.status, found.detail, found.hint
    from (
      select * from finding
      union all
      select known.name, 'ok', null, null
      from known
      where not exists (select from finding where finding.name = known.name)
    ) as found
    order by array_position('{error,warning,ok}', found.status), found.name, found.detail
    $doctor$,
    (select extnamespace::regnamespace from pg_extension where extname = 'kongtask')
  );
end
$$;

comment on function kongtask.server_state is 'Returns what kongtask.doctor wants to know of the server.';
comment on function kongtask.handler_problem is
'Returns why a handler cannot be called as a role, and the statement that
mends it, if there is one.';
comment on function kongtask.doctor is
'Looks for what keeps jobs from running, and returns a row for each thing
that it has found.

status is error (no job of the database or of a task runs), warning, or ok
for a check that has found nothing. hint is a statement that mends it. Where
that changes a setting that is read at start, the detail says so. A task
that is not registered needs your handler: put its name in place of
HANDLER, and that of the member that limits jobs in place of MEMBER.

The function works also where the library is not preloaded, and changes
nothing.

Rights: EXECUTE on the function, SELECT on the tables and views of the
extension: for its owner and superusers.';
