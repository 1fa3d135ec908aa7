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

create function add_jobs(specs job_spec[], job_key_preserve_run_at boolean = false) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_add_jobs';

create function force_unlock_workers(worker_ids text[]) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_force_unlock_workers';

create function get_job(
  worker_id text,
  task_identifiers text[] = null,
  job_expiry interval = interval '4 hours',
  forbidden_flags text[] = null,
  now timestamptz = now()
) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_get_job';

create function complete_job(worker_id text, job_id bigint) returns jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_complete_job';

create function fail_job(worker_id text, job_id bigint, error_message text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_fail_job';

create function complete_jobs(job_ids bigint[]) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_complete_jobs';

create function permanently_fail_jobs(job_ids bigint[], error_message text = null) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_permanently_fail_jobs';

create function reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz = null,
  priority int = null,
  attempts int = null,
  max_attempts int = null
) returns setof jobs
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_reschedule_jobs';

create function remove_job(job_key text) returns jobs
  language c volatile strict
  as 'MODULE_PATHNAME', 'kongtask_remove_job';
