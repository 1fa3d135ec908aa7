-- Functions for administrators change many jobs in one call, and return those that they changed. A job that runs is left out.
\set VERBOSITY terse
set search_path = graphile_worker, public;

-- Five jobs; `runs` is locked by an external worker, `was left` by one whose lock is older than job_expiry (4 hours).
select add_job('a', '"waits"'), add_job('b', '"runs"'), add_job('c', '"was left"'), add_job('d', '"has failed"'),
  add_job('e', '"is scheduled"', run_at := now() + interval '1 day') \g /dev/null
update jobs set attempts = 1, locked_at = now(), locked_by = 'a worker' where task_identifier = 'b';
update jobs set attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'a dead worker' where task_identifier = 'c';
update jobs set attempts = max_attempts, last_error = 'an error' where task_identifier = 'd';

-- reschedule_jobs changes what is given. A job that has failed for good comes back if it is given further attempts.
select payload, priority, attempts, last_error
  from reschedule_jobs(array(select id from jobs), run_at := '2099-01-01', priority := 3, attempts := 0) order by id;

-- permanently_fail_jobs ends a job without deleting it.
select payload, attempts, max_attempts, last_error
  from permanently_fail_jobs(array(select id from jobs where task_identifier in ('a', 'b')), 'no longer wanted');
select last_error from permanently_fail_jobs(array(select id from jobs where task_identifier = 'a'));

-- complete_jobs deletes jobs as if they had succeeded.
select payload from complete_jobs(array(select id from jobs)) order by id;
select payload from jobs;

-- force_unlock_workers takes the locks of external workers that are known to be dead.
select force_unlock_workers(array['a worker']) \g /dev/null
select payload, attempts, locked_by from jobs;

-- NULL, and ids that are no job's, change nothing.
select count(*) from complete_jobs(null);
select count(*) from complete_jobs(array[-1]);

delete from jobs;
