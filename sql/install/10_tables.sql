-- The tables as graphile-worker's migrations 1 to 9 leave them, but for the random default of jobs.queue_name, for
-- migrations.breaking, which graphile-worker 0.14 and later would add, and for what follows the block below. Where those of graphile-worker itself have been
-- taken over (05_adopt.sql) they are there, and the same.

do $$
begin
  if pg_catalog.to_regclass(pg_catalog.format('%I.jobs', pg_catalog.current_schema())) is not null then
    return;
  end if;

  create table migrations (
    id int primary key,
    ts timestamptz not null default now(),
    breaking boolean not null default false
  );

  insert into migrations (id) values (1), (2), (3), (4), (5), (6), (7), (8), (9);

  create table job_queues (
    queue_name text not null primary key,
    job_count int not null,
    locked_at timestamptz,
    locked_by text
  );

  alter table job_queues enable row level security;

  create table jobs (
    id bigserial primary key,
    queue_name text,
    task_identifier text not null,
    payload json not null default '{}'::json,
    priority int not null default 0,
    run_at timestamptz not null default now(),
    attempts int not null default 0,
    max_attempts int not null default 25,
    last_error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    key text unique check (length(key) > 0),
    locked_at timestamptz,
    locked_by text,
    revision int not null default 0,
    flags jsonb default null
  );

  alter table jobs enable row level security;

  create index jobs_priority_run_at_id_locked_at_without_failures_idx
    on jobs (priority, run_at, id, locked_at)
    where attempts < max_attempts;

  create table known_crontabs (
    identifier text not null primary key,
    known_since timestamptz not null,
    last_execution timestamptz
  );

  alter table known_crontabs enable row level security;
end
$$;

-- A row is the lock of a queue: inserted with the claim of one of its jobs, deleted when that job is let go. So neither adding a
-- job nor completing one waits for whoever adds to the same queue.
alter table job_queues add column job_id bigint;
-- In tables that were taken over.
update job_queues as queue
  set job_id = (
    select job.id
    from jobs as job
    where
      job.queue_name operator(pg_catalog.=) queue.queue_name
      and job.locked_by operator(pg_catalog.=) queue.locked_by
    limit 1
  );

-- A queue runs dry again and again. Cutting off the empty end of its tables would take an ACCESS EXCLUSIVE lock each time, also on
-- standbys, for space that is needed again at once.
alter table jobs set (vacuum_truncate = off, toast.vacuum_truncate = off);
alter table job_queues set (vacuum_truncate = off);
-- Dead rows come with each job that runs, however many others wait for later: a fifth of those would be too many.
alter table jobs set (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_scale_factor = 0.01);

-- Only jobs that are in a queue pay for it.
create index jobs_queue_name_priority_run_at_id_idx
  on jobs (queue_name, priority, run_at, id)
  where queue_name is not null and attempts < max_attempts;

-- Only jobs that are scheduled for later, or to be retried, pay for it: it tells what falls due next whatever their priorities.
create index jobs_run_at_idx
  on jobs (run_at)
  where run_at > created_at and attempts < max_attempts;
