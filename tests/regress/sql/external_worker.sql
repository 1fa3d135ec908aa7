-- An external worker takes a job with get_job, does the work, and calls complete_job or fail_job.
\set VERBOSITY terse
set search_path = graphile_worker, public;

select add_job('low', priority := 5), add_job('first', queue_name := 'q'), add_job('second', queue_name := 'q'),
  add_job('flagged', flags := array['slow']), add_job('later', run_at := now() + interval '1 hour') \g /dev/null

-- Its name has ten characters at least.
select get_job('short');

-- The order is priority, run_at, id. Flags can be left out.
select task_identifier, attempts, locked_by, locked_at = now() as locked_now
  from get_job('external-worker-1', forbidden_flags := array['slow']);
-- The job of a queue locks its queue: `second` is passed over.
select queue_name, locked_by from job_queues;
select task_identifier from get_job('external-worker-2', forbidden_flags := array['slow']);
-- A list of tasks is all that a worker is given.
select task_identifier from get_job('external-worker-2', array['second', 'later']);
select task_identifier from get_job('external-worker-2', array['flagged']);

-- fail_job records a failed attempt. The next one is due after exp(least(attempts, 10)) seconds; the queue is free.
select task_identifier, attempts, last_error, locked_by, run_at - now() between '2.7 s' and '2.72 s' as back_off
  from fail_job('external-worker-1', (select id from jobs where task_identifier = 'first'), 'an error');
select count(*) from job_queues;
select task_identifier from get_job('external-worker-1');

-- A job is failed by the worker that holds it, and by no other.
select fail_job('external-worker-2', id, 'an error') is null as is_null from jobs where task_identifier = 'second';

-- complete_job deletes the job, and releases its queue.
select task_identifier from complete_job('external-worker-1', (select id from jobs where task_identifier = 'second'));
select count(*) from job_queues;

-- A worker that has died is known by the age of its lock.
select task_identifier, attempts from get_job('external-worker-3', array['low']);
select task_identifier, attempts from get_job('external-worker-3', array['low'], job_expiry := interval '-1 second');

-- Nothing is left for now: NULL.
select get_job('external-worker-3') is null as is_null;

delete from jobs;
