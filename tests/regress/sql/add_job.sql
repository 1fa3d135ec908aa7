-- add_job adds a job and returns its row. No task is registered yet, so no worker takes these jobs.
\set VERBOSITY terse
set search_path = graphile_worker, public;

-- Only the task's identifier is required.
select task_identifier, payload, queue_name, priority, max_attempts, attempts, key, flags, run_at = now() as due_now
  from add_job('send_mail');

-- The arguments by position: identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode ...
select task_identifier, payload, queue_name, run_at at time zone 'UTC' as run_at, max_attempts, key, priority, flags
  from add_job('send_mail', '{"to": "ada"}', 'mails', '2030-01-01 00:00Z', 3, 'ada', -5, array['slow', 'mail'], 'replace');

-- ... and by name. NULL is the default of each.
select task_identifier, payload, queue_name, priority, max_attempts, key
  from add_job('send_mail', json_build_object('to', 'grace'), priority := 7, queue_name := null, max_attempts := null);

-- The payload is kept letter by letter.
select payload from add_job('send_mail', '{"b" :  1, "a": 2, "a": 3}');

-- A jsonb payload has a function of its own; add_job has none for it.
select payload from kongtask.add_job_jsonb('send_mail', jsonb_build_object('to', 'hedy'));
select add_job('send_mail', payload := '{}'::jsonb);

-- The job is part of the transaction that adds it.
begin;
select task_identifier from add_job('never_added');
rollback;
select count(*) from jobs where task_identifier = 'never_added';

-- What is refused, each with a SQLSTATE of its own.
do $$
declare
  arguments text;
begin
  foreach arguments in array array[
    $q$repeat('a', 129)$q$,
    $q$'a', queue_name := repeat('q', 129)$q$,
    $q$'a', job_key := repeat('k', 513)$q$,
    $q$'a', max_attempts := 0$q$,
    $q$'a', job_key := 'k', job_key_mode := 'other'$q$,
    $q$null$q$
  ] loop
    begin
      execute format('select graphile_worker.add_job(%s)', arguments);
    exception when others then
      raise info '% -> % %', arguments, sqlstate, sqlerrm;
    end;
  end loop;
end $$;

-- add_jobs adds many in one call.
select task_identifier, payload, queue_name, key, priority from add_jobs(array[
    ('send_mail', '{"to": "joan"}', null, null, null, null, null, null),
    ('send_mail', '{"to": "jean"}', 'mails', null, 4, 'jean', 9, null)
  ]::job_spec[]) order by priority;

delete from jobs;
