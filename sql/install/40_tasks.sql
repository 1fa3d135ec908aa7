create function kongtask.role_named(role text) returns regrole
  language c immutable strict
  as 'MODULE_PATHNAME', 'kongtask_role_named';

create table kongtask.tasks (
  identifier text not null primary key check (length(identifier) between 1 and 128),
  handler text not null,
  role text not null,
  registered_at timestamptz not null default now(),
  max_batch int not null default 1 check (max_batch between 1 and 10000),
  in_place boolean not null default true,
  timeout interval check (timeout > '0'),
  runs_as regrole generated always as (kongtask.role_named(role)) stored,
  backoff interval[] check (
    -- Not BETWEEN, which a dump writes in another way than the catalog.
    cardinality(backoff) >= 1
    and cardinality(backoff) <= 100
    and array_position(backoff, null) is null
    and '0' < all (backoff)
    and '10 years' >= all (backoff)
  ),
  max_attempts int check (max_attempts >= 1),
  keep text not null default 'none' check (keep = any ('{none,failures,all}')),
  keep_for interval not null default '7 days' check (keep_for > '0' and keep_for <= '10 years'),
  keep_payload boolean not null default false,
  concurrency int check (concurrency >= 1)
);

create function kongtask.register_task(
  identifier text,
  handler regprocedure,
  max_batch integer = null,
  in_place boolean = true,
  timeout interval = null,
  backoff interval[] = null,
  max_attempts integer = null,
  keep text = 'none',
  keep_for interval = '7 days',
  keep_payload boolean = false,
  concurrency integer = null
) returns kongtask.tasks
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_register_task';

create function kongtask.alter_task(
  identifier text,
  max_batch integer = null,
  in_place boolean = null,
  timeout interval = null,
  backoff interval[] = null,
  max_attempts integer = null,
  keep text = null,
  keep_for interval = null,
  keep_payload boolean = null,
  concurrency integer = null
) returns kongtask.tasks
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_alter_task';

create function kongtask.unregister_task(identifier text) returns boolean
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_unregister_task';

create function kongtask.current_job() returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_current_job';

create function kongtask.tg_tasks__changed() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_tasks_changed';

create trigger _900_changed
  after insert or update or delete or truncate on kongtask.tasks for each statement
  execute function kongtask.tg_tasks__changed();

create function kongtask.live_workers(
  out pid int,
  out database name,
  out role name,
  out state text,
  out job_id bigint,
  out task_identifier text,
  out since timestamptz,
  out worker_id text,
  out done bigint,
  out total bigint,
  out message text
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_workers';

create view kongtask.workers as
  select
    w.pid,
    w.database,
    w.role,
    w.state,
    w.job_id,
    w.task_identifier,
    w.since,
    w.worker_id,
    w.done,
    w.total,
    w.message
  from kongtask.live_workers() as w;

create function kongtask.live_holds(
  out database name,
  out reason text,
  out pid int,
  out since timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_holds';

create view kongtask.holds as
  select
    h.database,
    h.reason,
    h.pid,
    h.since
  from kongtask.live_holds() as h;

create function kongtask.release_holds() returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_release_holds';
