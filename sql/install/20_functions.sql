create function add_job(
  identifier text,
  payload json = null,
  queue_name text = null,
  run_at timestamptz = null,
  max_attempts integer = null,
  job_key text = null,
  priority integer = null,
  flags text[] = null,
  job_key_mode text = 'replace'
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_job';
comment on function add_job is
  'Adds a job, or replaces the one with the same job_key, and returns its row. job_key_mode: replace, preserve_run_at or '
  'unsafe_dedupe. Errors: GWBID, GWBQN, GWBJK (identifier, queue_name or job_key too long), GWBMA (max_attempts below 1), '
  'GWBKM (unknown job_key_mode)';

-- A second add_job beside the first would make add_job('task', '{}') ambiguous.
create function kongtask.add_job_jsonb(
  identifier text,
  payload jsonb = null,
  queue_name text = null,
  run_at timestamptz = null,
  max_attempts integer = null,
  job_key text = null,
  priority integer = null,
  flags text[] = null,
  job_key_mode text = 'replace'
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_job_jsonb';
comment on function kongtask.add_job_jsonb is 'As add_job of the queue''s schema, for a payload that is jsonb';

-- As graphile-worker 0.16 and later have them: add_jobs, job_spec, force_unlock_workers.
create type job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);
comment on type job_spec is 'A job to be added by add_jobs: what add_job takes, but for job_key_mode';

create function add_jobs(specs job_spec[], job_key_preserve_run_at boolean = false) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_jobs';
comment on function add_jobs is
  'Adds many jobs at once, or replaces those with the same job_key, and returns their rows. Where the payloads of both are '
  'arrays, the new one is appended. job_key_preserve_run_at: a job that is replaced keeps its run_at unless it was tried. '
  'Errors as add_job, and 21000 where two of the jobs have the same job_key';

create function force_unlock_workers(worker_ids text[]) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_force_unlock_workers';
comment on function force_unlock_workers is
  'Unlocks every job and queue that these workers hold: for external workers that are known to be dead';

create function get_job(
  worker_id text,
  task_identifiers text[] = null,
  job_expiry interval = interval '4 hours',
  forbidden_flags text[] = null,
  now timestamptz = now()
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_get_job';
comment on function get_job is
  'For external workers: locks the next runnable job for worker_id (10 characters at least) and returns it, or NULL';

create function complete_job(worker_id text, job_id bigint) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_complete_job';
comment on function complete_job is 'For external workers: deletes a job that succeeded and releases its queue';

create function fail_job(worker_id text, job_id bigint, error_message text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_fail_job';
comment on function fail_job is
  'For external workers: records a failed attempt; the job is due again after exp(least(attempts, 10)) seconds';

create function complete_jobs(job_ids bigint[]) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_complete_jobs';
comment on function complete_jobs is 'Deletes the given jobs as if they had succeeded; locked and running ones are left out';

create function permanently_fail_jobs(job_ids bigint[], error_message text = null) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_permanently_fail_jobs';
comment on function permanently_fail_jobs is
  'Marks the given jobs as failed for good; locked and running ones are left out';

create function reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz = null,
  priority int = null,
  attempts int = null,
  max_attempts int = null
) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_reschedule_jobs';
comment on function reschedule_jobs is
  'Changes what is given of when and how the given jobs run; locked and running ones are left out';

create function remove_job(job_key text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_remove_job';
comment on function remove_job is
  'Deletes the job with this key; if it is running, clears its key and lets it have no further attempt. NULL if there is none';
