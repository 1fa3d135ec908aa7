//! The functions that SQL can call. They check arguments and pass them on.

mod cancel;
mod control;
mod holds;
mod in_handler;
mod install;
mod jobs;
mod limits;
mod schedule_admin;
mod schedules;
mod sight;
mod stats;
mod tasks;
mod wait_for;
mod workers;

use crate::jobs::triggers;
use crate::pg::function::sql_function;

sql_function!(kongtask_add_job, jobs::add_job);
sql_function!(kongtask_add_job_jsonb, jobs::add_job_jsonb);
sql_function!(kongtask_add_jobs, jobs::add_jobs);
sql_function!(kongtask_force_unlock_workers, jobs::force_unlock_workers);
sql_function!(kongtask_get_job, jobs::get_job);
sql_function!(kongtask_complete_job, jobs::complete_job);
sql_function!(kongtask_fail_job, jobs::fail_job);
sql_function!(kongtask_complete_jobs, jobs::complete_jobs);
sql_function!(kongtask_permanently_fail_jobs, jobs::permanently_fail_jobs);
sql_function!(kongtask_reschedule_jobs, jobs::reschedule_jobs);
sql_function!(kongtask_remove_job, jobs::remove_job);

sql_function!(kongtask_update_timestamp, triggers::update_timestamp);
sql_function!(kongtask_unlock_arriving, triggers::unlock_arriving);
sql_function!(kongtask_release_queue, triggers::release_queue);
sql_function!(kongtask_note_job, triggers::note_job);
sql_function!(kongtask_note_queue, triggers::note_queue);

// Those of version 0.2.0, until ALTER EXTENSION UPDATE.
sql_function!(kongtask_increase_job_queue_count, triggers::increase_job_queue_count);
sql_function!(kongtask_decrease_job_queue_count, triggers::release_queue);

sql_function!(kongtask_refuse_migration, triggers::refuse_migration);
sql_function!(kongtask_schema_is_named, install::schema_is_named);

sql_function!(kongtask_register_task, tasks::register_task);
sql_function!(kongtask_alter_task, tasks::alter_task);
sql_function!(kongtask_unregister_task, tasks::unregister_task);
sql_function!(kongtask_role_named, tasks::role_named);
sql_function!(kongtask_tasks_changed, tasks::tasks_changed);
sql_function!(kongtask_pauses_changed, control::pauses_changed);
sql_function!(kongtask_pause, control::pause);
sql_function!(kongtask_resume, control::resume);
sql_function!(kongtask_redrive, control::redrive);
sql_function!(kongtask_set_limit, limits::set_limit);
sql_function!(kongtask_drop_limit, limits::drop_limit);
sql_function!(kongtask_throttle, limits::throttle);
sql_function!(kongtask_limit_key, limits::limit_key);
sql_function!(kongtask_live_limits, limits::live_limits);
sql_function!(kongtask_next_runs, schedules::next_runs);
sql_function!(kongtask_describe_cron, schedules::describe_cron);
sql_function!(kongtask_current_job, workers::current_job);
sql_function!(kongtask_snooze, in_handler::snooze);
sql_function!(kongtask_retry_in, in_handler::retry_in);
sql_function!(kongtask_give_up, in_handler::give_up);
sql_function!(kongtask_progress, in_handler::progress);
sql_function!(kongtask_cancel, cancel::cancel);
sql_function!(kongtask_wait_for, wait_for::wait_for);
sql_function!(kongtask_live_holds, holds::live_holds);
sql_function!(kongtask_release_holds, holds::release_holds);
sql_function!(kongtask_live_workers, workers::live_workers);

sql_function!(kongtask_job_state, sight::job_state);
sql_function!(kongtask_server_state, sight::server_state);
sql_function!(kongtask_handler_problem, sight::handler_problem);
sql_function!(kongtask_live_overview, sight::live_overview);
sql_function!(kongtask_live_stats, stats::live_stats);
sql_function!(kongtask_stat_reset, stats::stat_reset);
sql_function!(kongtask_stat_histogram, stats::stat_histogram);

sql_function!(kongtask_sql, schedule_admin::sql);
sql_function!(kongtask_schedule, schedule_admin::schedule);
sql_function!(kongtask_alter_schedule, schedule_admin::alter_schedule);
sql_function!(kongtask_unschedule, schedule_admin::unschedule);
sql_function!(kongtask_run_schedule, schedule_admin::run_schedule);
sql_function!(kongtask_import_pg_cron, schedule_admin::import_pg_cron);
sql_function!(kongtask_import_crontab, schedule_admin::import_crontab);
sql_function!(kongtask_schedule_status, schedule_admin::schedule_status);
sql_function!(kongtask_crontab_changed, schedule_admin::crontab_changed);
