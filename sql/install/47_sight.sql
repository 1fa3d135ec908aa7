create function kongtask.live_stats(
  out task text,
  out added bigint,
  out succeeded bigint,
  out failed bigint,
  out discarded bigint,
  out cancelled bigint,
  out snoozed bigint,
  out timed_out bigint,
  out crashed bigint,
  out running bigint,
  out total_run_time double precision,
  out min_run_time double precision,
  out max_run_time double precision,
  out mean_run_time double precision,
  out stddev_run_time double precision,
  out total_wait_time double precision,
  out max_wait_time double precision,
  out last_success_at timestamptz,
  out last_failure_at timestamptz,
  out last_error text,
  out stats_reset timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_stats';

-- The error of a job is for those who may read the job.
create view kongtask.stat_tasks as
  select
    stats.task,
    coalesce(task.runs_as::text, task.role) as role,
    stats.added,
    stats.succeeded,
    stats.failed,
    stats.discarded,
    stats.cancelled,
    stats.snoozed,
    stats.timed_out,
    stats.crashed,
    stats.running,
    stats.total_run_time,
    stats.min_run_time,
    stats.max_run_time,
    stats.mean_run_time,
    stats.stddev_run_time,
    stats.total_wait_time,
    stats.max_wait_time,
    stats.last_success_at,
    stats.last_failure_at,
    case
      when
        pg_catalog.has_table_privilege('jobs'::regclass, 'select')
        and (
          not pg_catalog.row_security_active('jobs'::regclass)
          or pg_catalog.has_function_privilege('get_job'::regproc, 'execute')
        )
        then stats.last_error
    end as last_error,
    stats.stats_reset
  from kongtask.live_stats() as stats
  left join kongtask.tasks as task on stats.task operator(pg_catalog.=) task.identifier;

create function kongtask.stat_reset(task text = null) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_stat_reset';

create function kongtask.stat_histogram(
  task text = null,
  what text = 'run',
  out le double precision,
  out count bigint
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_stat_histogram';

create function kongtask.job_state(job jobs, deleter xid, out state text, out why text) returns setof record
  language c stable rows 1
  as 'MODULE_PATHNAME', 'kongtask_job_state';

create view kongtask.job_states with (security_invoker = true) as
  select
    job.id,
    job.task_identifier,
    job.queue_name,
    job.key,
    job.priority,
    job.run_at,
    job.attempts,
    job.max_attempts,
    seen.state,
    seen.why,
    job.last_error,
    job.created_at,
    job.locked_at,
    job.locked_by,
    job.flags,
    job.payload
  from jobs as job
  cross join lateral kongtask.job_state(job, job.xmax) as seen;

create view kongtask.queues with (security_invoker = true) as
  select
    coalesce(waiting.queue_name, lock.queue_name) as queue_name,
    coalesce(waiting.jobs, 0) as jobs,
    coalesce(waiting.ready, 0) as ready,
    coalesce(waiting.failed, 0) as failed,
    waiting.head,
    lock.job_id as running,
    lock.locked_by,
    worker.pid,
    lock.locked_at as since,
    waiting.oldest_wait
  from (
    select
      job.queue_name,
      count(*) as jobs,
      count(*) filter (where job.is_due) as ready,
      count(*) filter (where job.attempts operator(pg_catalog.>=) job.max_attempts) as failed,
      (array_agg(job.id order by job.priority, job.run_at, job.id) filter (where job.is_due))[1] as head,
      statement_timestamp() operator(pg_catalog.-)
        min(greatest(job.run_at, job.created_at)) filter (where job.is_due) as oldest_wait
    from (
      select
        queued.id,
        queued.queue_name,
        queued.priority,
        queued.run_at,
        queued.created_at,
        queued.attempts,
        queued.max_attempts,
        queued.attempts operator(pg_catalog.<) queued.max_attempts
          and queued.run_at operator(pg_catalog.<=) statement_timestamp()
          and queued.locked_at is null as is_due
      from jobs as queued
      where queued.queue_name is not null
    ) as job
    group by job.queue_name
  ) as waiting
  full join (
    select
      locked.queue_name,
      locked.job_id,
      locked.locked_by,
      locked.locked_at
    from job_queues as locked
    where locked.locked_at is not null
  ) as lock on waiting.queue_name operator(pg_catalog.=) lock.queue_name
  left join kongtask.live_workers() as worker on lock.locked_by operator(pg_catalog.=) worker.worker_id;

create function kongtask.live_overview(
  out ready bigint,
  out waiting bigint,
  out running bigint,
  out scheduled bigint,
  out retrying bigint,
  out failed bigint,
  out oldest_ready_age interval,
  out jobs_per_second double precision,
  out workers_busy bigint,
  out workers bigint
) returns setof record
  language c volatile rows 1
  as 'MODULE_PATHNAME', 'kongtask_live_overview';

create view kongtask.overview as
  select
    now.ready,
    now.waiting,
    now.running,
    now.scheduled,
    now.retrying,
    now.failed,
    now.oldest_ready_age,
    now.jobs_per_second,
    now.workers_busy,
    now.workers
  from kongtask.live_overview() as now;
