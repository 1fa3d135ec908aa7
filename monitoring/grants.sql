-- Grants a role what the queries for monitoring read. As a superuser, in each database that is monitored:
--
--   create role kongtask_monitor login;
--   psql -v role=kongtask_monitor -f monitoring/grants.sql DATABASE
--
-- Row level security hides the jobs from a role, unless it may claim them (EXECUTE on get_job) or has BYPASSRLS. A role that only
-- watches should not be able to claim jobs; and BYPASSRLS shows it no table that it is not granted.
\set ON_ERROR_STOP on
\set QUIET on
select extnamespace::regnamespace as queue from pg_extension where extname = 'kongtask' \gset

alter role :"role" bypassrls;
-- pg_stat_activity's and kongtask.workers' rows of other roles; pg_monitor includes it.
grant pg_read_all_stats to :"role";
grant usage on schema kongtask, :queue to :"role";
grant select on
  kongtask.overview, kongtask.stat_tasks, kongtask.workers, kongtask.queues, kongtask.holds, kongtask.pauses, kongtask.tasks,
  kongtask.schedules, kongtask.job_states, kongtask.failed, kongtask.limits, kongtask.limit_settings,
  :queue.jobs, :queue.job_queues
to :"role";
grant execute on function
  kongtask.live_overview, kongtask.live_stats, kongtask.stat_histogram, kongtask.live_workers, kongtask.live_holds,
  kongtask.job_state, kongtask.schedule_status, kongtask.role_named, kongtask.live_limits, kongtask.limit_key,
  kongtask.doctor, kongtask.server_state, kongtask.handler_problem
to :"role";
