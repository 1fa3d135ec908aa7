-- A job key names a job: adding another with the same key changes the one that waits. job_key_mode says how.
\set VERBOSITY terse
set search_path = graphile_worker, public;

create view shown as select payload, extract(year from run_at) as run_year, attempts, max_attempts, last_error, key, revision
  from jobs order by id;

-- replace, which is the default: everything is as the last call says, attempts begin anew.
select add_job('a', '1', run_at := '2031-07-01', job_key := 'k', max_attempts := 7) \g /dev/null
select add_job('a', '2', run_at := '2032-07-01', job_key := 'k') \g /dev/null
select * from shown;

-- preserve_run_at: the same, but a job that has not been tried keeps its time.
select add_job('a', '3', run_at := '2033-07-01', job_key := 'k', job_key_mode := 'preserve_run_at') \g /dev/null
select * from shown;
update jobs set attempts = 2, last_error = 'an error';
select add_job('a', '4', run_at := '2034-07-01', job_key := 'k', job_key_mode := 'preserve_run_at') \g /dev/null
select * from shown;

-- unsafe_dedupe: the job stays as it is, even if it runs or has failed; only its revision says that somebody asked.
select add_job('a', '5', run_at := '2035-07-01', job_key := 'k', job_key_mode := 'unsafe_dedupe') \g /dev/null
select * from shown;

-- While a job runs (an external worker has locked this one) its key goes to a new job, and it has no further attempt.
update jobs set attempts = 1, max_attempts = 7, locked_at = now(), locked_by = 'a worker';
select add_job('a', '6', run_at := '2036-07-01', job_key := 'k') \g /dev/null
select * from shown;

-- remove_job deletes the job that has the key ...
select payload from remove_job('k');
-- ... takes key and further attempts from one that runs ...
update jobs set key = 'k', attempts = 1;
select key, attempts from remove_job('k');
-- ... and returns NULL where there is none.
select remove_job('k') is null as is_null;
select * from shown;

-- add_jobs does the same for many at once. Two arrays as payloads are joined.
delete from jobs;
select add_jobs(array[('a', '[1]', null, null, null, 'k', null, null)]::job_spec[]) \g /dev/null
select add_jobs(array[('a', '[2]', null, null, null, 'k', null, null)]::job_spec[]) \g /dev/null
select payload, revision from jobs;
-- A key may be there once in a call.
select add_jobs(array[('a', '1', null, null, null, 'l', null, null), ('a', '2', null, null, null, 'l', null, null)]::job_spec[]) \g /dev/null

drop view shown;
delete from jobs;
