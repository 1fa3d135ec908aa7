-- Grants a role what the dashboard reads, and the functions that its buttons call. As a superuser, in the database of the queue:
--
--   psql -v role=dashboard -f dashboard/grants.sql DATABASE
--
-- The role sees all jobs, their payloads and errors included. Its buttons work on the tasks of roles that it is a member of: grant
-- it those (`grant mailer to dashboard`). Leave out the last part for a dashboard that only shows.
\set ON_ERROR_STOP on
\set QUIET on
select extnamespace::regnamespace as queue from pg_extension where extname = 'kongtask' \gset

-- Functions of the session, that the pages use.
grant connect, temporary on database :"DBNAME" to :"role";

-- To read.
grant pg_read_all_stats to :"role";
grant usage on schema kongtask, :queue to :"role";
grant select on
  kongtask.overview, kongtask.job_states, kongtask.failed, kongtask.tasks, kongtask.stat_tasks, kongtask.queues,
  kongtask.schedules, kongtask.pauses, kongtask.workers, kongtask.holds
to :"role";
grant select on :queue.jobs, :queue.job_queues, :queue.known_crontabs to :"role";
grant execute on function
  kongtask.live_overview, kongtask.live_stats, kongtask.stat_histogram, kongtask.live_workers, kongtask.live_holds,
  kongtask.job_state, kongtask.schedule_status, kongtask.next_runs, kongtask.describe_cron, kongtask.role_named,
  kongtask.doctor, kongtask.server_state, kongtask.handler_problem,
  -- Row level security shows jobs to roles that may claim them.
  :queue.get_job
to :"role";

-- Limits, and the history of jobs, which shows what ran as roles that this one is a member of.
select format('grant select on %s to %I', relation, :'role')
from unnest('{kongtask.limits,kongtask.limit_settings,kongtask.runs}'::text[]) as relation
where to_regclass(relation) is not null
union all
select format('grant execute on function %s to %I', oid::regprocedure, :'role')
from pg_proc
where pronamespace = 'kongtask'::regnamespace and proname in ('live_limits', 'limit_key')
\gexec

-- To act.
grant execute on function
  kongtask.cancel, kongtask.redrive, kongtask.pause, kongtask.resume, kongtask.run_schedule, kongtask.alter_schedule,
  -- Makes any job that waits due now, whatever its task. alter_schedule needs add_job.
  :queue.reschedule_jobs, :queue.add_job
to :"role";
