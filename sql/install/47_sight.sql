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

create view kongtask.stat_tasks as
  select
    stats.task,
    task.role,
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
    stats.last_error,
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
    -- One that runs in place does not say so in its row.
    coalesce(lock.job_id, worker.job_id) as running,
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
          and queued.locked_at is null
          and queued.id operator(pg_catalog.<>) all (
            array(
              select busy.job_id
              from kongtask.live_workers() as busy
              where busy.job_id is not null and busy.database operator(pg_catalog.=) current_database()
            )
          ) as is_due
      from jobs as queued
      where queued.queue_name is not null
    ) as job
    group by job.queue_name
  ) as waiting
  full join (
    select
      locked.queue_name,
      (
        select running.id
        from jobs as running
        where
          running.queue_name operator(pg_catalog.=) locked.queue_name
          and running.locked_by operator(pg_catalog.=) locked.locked_by
        order by running.priority, running.run_at, running.id
        limit 1
      ) as job_id,
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

comment on function kongtask.live_stats is 'Returns the rows of kongtask.stat_tasks.';
comment on view kongtask.stat_tasks is
'Counters of each task in this database, since they were last reset.

Times are in milliseconds. As those of pg_stat_*, the counters outlive a
restart of the server, and are zero after a crash. Jobs that external
workers run are not counted, nor those added while their task was not
registered here.

There are kongtask.max_tracked_tasks rows for all databases together.
Further tasks are counted in one row, <others>, which all databases share.

Rights: SELECT on the view, EXECUTE on kongtask.live_stats and USAGE on
schema kongtask. last_error is NULL unless you may read all jobs.';
comment on column kongtask.stat_tasks.task is 'Name of the task.';
comment on column kongtask.stat_tasks.role is
'Role that it runs as. NULL: it is not registered
any more.';
comment on column kongtask.stat_tasks.added is 'Number of jobs added, by committed transactions.';
comment on column kongtask.stat_tasks.succeeded is 'Number of jobs completed.';
comment on column kongtask.stat_tasks.failed is
'Number of attempts that failed, for whatever
reason.';
comment on column kongtask.stat_tasks.discarded is
'Number of jobs whose last attempt failed: they
have failed for good.';
comment on column kongtask.stat_tasks.cancelled is 'Number of jobs cancelled.';
comment on column kongtask.stat_tasks.snoozed is 'Number of attempts that put their job off.';
comment on column kongtask.stat_tasks.timed_out is
'Number of failed attempts that took longer than
the task''s timeout.';
comment on column kongtask.stat_tasks.crashed is
'Number of times that a worker process crashed or
was killed while it ran a job.';
comment on column kongtask.stat_tasks.running is 'Number of jobs that run now.';
comment on column kongtask.stat_tasks.total_run_time is
'Time spent on attempts. Of jobs that share a
call, each counts an equal part.';
comment on column kongtask.stat_tasks.min_run_time is 'Shortest attempt.';
comment on column kongtask.stat_tasks.max_run_time is 'Longest attempt.';
comment on column kongtask.stat_tasks.mean_run_time is 'Mean time of an attempt.';
comment on column kongtask.stat_tasks.stddev_run_time is
'Population standard deviation of the time of an
attempt.';
comment on column kongtask.stat_tasks.total_wait_time is
'Time from when jobs were added and due until an
attempt began.';
comment on column kongtask.stat_tasks.max_wait_time is 'Longest such time.';
comment on column kongtask.stat_tasks.last_success_at is 'Time when a job was last completed.';
comment on column kongtask.stat_tasks.last_failure_at is 'Time when an attempt last failed.';
comment on column kongtask.stat_tasks.last_error is 'Beginning of the latest error.';
comment on column kongtask.stat_tasks.stats_reset is 'Time from which on the row counts.';

comment on function kongtask.stat_reset is
'Resets the counters of kongtask.stat_tasks to zero.

Arguments:
- task: name of the task. NULL: all of this database, and <others>.

Errors:
- 42501: the current role may not.

Rights: EXECUTE on the function, for the owner of the extension and
superusers; the role that a task runs as can reset the counters of that
task.';
comment on function kongtask.stat_histogram is
'Returns how many attempts took how long: 24 rows, of which each has twice
the time of the one before.

le is the upper bound of a row in milliseconds, from 0.125 on; the last is
infinity. count is the number of attempts above the bound of the row before
and not above this one. Sum it up for what Prometheus calls le.

Arguments:
- task: name of the task. NULL: all tasks of this database.
- what: run (how long attempts took) or wait (how long jobs had waited
  before).

Errors:
- 22004: what is NULL.
- 22023: what is neither.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

comment on function kongtask.job_state is 'Returns state and why of a row of kongtask.job_states.';
comment on view kongtask.job_states is
'Jobs, each with its state and why it does not run.

Rights: those of the table jobs, row level security included; EXECUTE on
kongtask.job_state and USAGE on schema kongtask.';
comment on column kongtask.job_states.id is 'Number of the job.';
comment on column kongtask.job_states.task_identifier is 'Task that the job is for.';
comment on column kongtask.job_states.queue_name is 'Queue of the job. NULL: none.';
comment on column kongtask.job_states.key is 'Name of the job. NULL: none.';
comment on column kongtask.job_states.priority is 'Jobs with a lower number run first.';
comment on column kongtask.job_states.run_at is 'Time before which the job does not run.';
comment on column kongtask.job_states.attempts is 'Number of attempts begun.';
comment on column kongtask.job_states.max_attempts is
'Number of attempts after which the job has
failed for good.';
comment on column kongtask.job_states.state is
'ready (a free worker takes it), waiting (it is
due, and something keeps it from running),
scheduled (it was never tried, and is for later),
running, retrying (an attempt failed, and the
next is for later) or failed (for good).';
comment on column kongtask.job_states.why is
'Why it does not run. NULL: it runs or is ready.';
comment on column kongtask.job_states.last_error is 'Error of the latest failed attempt.';
comment on column kongtask.job_states.created_at is 'Time when the job was added.';
comment on column kongtask.job_states.locked_at is
'Time when a worker claimed the job. NULL: none
has. Jobs that run in place are not claimed.';
comment on column kongtask.job_states.locked_by is 'Id of the worker that has claimed the job.';
comment on column kongtask.job_states.flags is 'Object with a member for each flag, or NULL.';
comment on column kongtask.job_states.payload is 'Argument for the handler.';

comment on view kongtask.queues is
'Queues, whose jobs run one at a time: what runs, and what waits.

Rights: those of the tables jobs and job_queues, row level security
included; EXECUTE on kongtask.live_workers and USAGE on schema kongtask.';
comment on column kongtask.queues.queue_name is 'Name of the queue.';
comment on column kongtask.queues.jobs is 'Number of its jobs, in any state.';
comment on column kongtask.queues.ready is 'Number of jobs that are due and not running.';
comment on column kongtask.queues.failed is 'Number of jobs that have failed for good.';
comment on column kongtask.queues.head is
'Number of the job that is next. NULL: none is
due.';
comment on column kongtask.queues.running is 'Number of the job that runs. NULL: none.';
comment on column kongtask.queues.locked_by is 'Id of the worker that runs it.';
comment on column kongtask.queues.pid is
'Process id of that worker. NULL: none, or an
external one.';
comment on column kongtask.queues.since is 'Time when it was claimed.';
comment on column kongtask.queues.oldest_wait is
'Time that the job has waited that was due
first. NULL: none is due.';

comment on function kongtask.live_overview is 'Returns the row of kongtask.overview.';
comment on view kongtask.overview is
'One row for this database: how many jobs are in which state, how fast they
run, and how many workers are busy.

It reads the whole table jobs: less than a fifth of a second for a million
jobs. In psql, \watch makes a live picture of it.

Rights: SELECT on the view and the table jobs, EXECUTE on
kongtask.live_overview and USAGE on schema kongtask; where row level
security applies to you, EXECUTE on get_job.';
comment on column kongtask.overview.ready is 'Number of jobs that a free worker takes.';
comment on column kongtask.overview.waiting is
'Number of jobs that are due, and that something
keeps from running: see kongtask.job_states.';
comment on column kongtask.overview.running is 'Number of jobs that run.';
comment on column kongtask.overview.scheduled is
'Number of jobs that were never tried and are for
later.';
comment on column kongtask.overview.retrying is
'Number of jobs that wait for another attempt.';
comment on column kongtask.overview.failed is 'Number of jobs that have failed for good.';
comment on column kongtask.overview.oldest_ready_age is
'Time that the oldest ready job has been due.
NULL: none is ready.';
comment on column kongtask.overview.jobs_per_second is
'Number of jobs completed in a second, on average
of the latest ten. External workers'' jobs are
not counted.';
comment on column kongtask.overview.workers_busy is 'Number of workers that run jobs.';
comment on column kongtask.overview.workers is 'Number of workers.';
