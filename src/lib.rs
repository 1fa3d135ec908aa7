//! kongtask: a job queue that lives inside Postgres. ARCHITECTURE.md has the processes, the life of a job and a
//! glossary.
//!
//! The modules are layers, lowest first. A module imports from those above it in this list and never from those below:
//! `scripts/layers`, a part of `make lint`, reads the list and fails on an import that runs the other way.

/// As Cargo.toml says, for PostgreSQL 18's pg_get_loaded_modules().
const VERSION: &std::ffi::CStr =
    match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => unreachable!(),
    };

pgrx::pg_module_magic!(name = c"kongtask", version = VERSION);

/// Safe wrappers of Postgres's functions and types: with `shared` the only place for `unsafe`.
mod pg;
/// Every error that the extension raises, with its SQLSTATE, detail and hint.
mod error;
/// The settings `kongtask.*`.
mod settings;
/// Memory that all processes share, and who may write what in it: databases, workers, ready lists, crash records.
mod shared;
/// Where the tables are, and how statements run as their owner; a job's row.
mod schema;
/// Tasks: what `kongtask.tasks` says, the handlers that run them, the flags that forbid their jobs.
mod tasks;
/// Why no job may run in a database for a while: a dump is being restored, or a subscription feeds the queue.
mod holds;
/// How a session tells the processes that there is work for them: notes handed over at commit, and hooks for
/// statements.
mod signals;
/// The tables `jobs` and `job_queues`: one operation a file.
mod jobs;
/// Schedules: the instants that a cron expression stands for, what SQL can do with them, and firing them.
mod schedules;
/// What can be seen of jobs: their states, why they do not run, and how many there are.
mod sight;
/// Running the jobs that a worker has taken.
mod run;
/// The background workers: launcher, scheduler, worker.
mod processes;
/// What SQL can call.
mod sql_api;

pgrx::extension_sql_file!("../sql/install/00_schemas.sql", name = "schemas", bootstrap);
pgrx::extension_sql_file!("../sql/install/05_adopt.sql", name = "adopt", requires = ["schemas"]);
pgrx::extension_sql_file!("../sql/install/10_tables.sql", name = "tables", requires = ["adopt"]);
pgrx::extension_sql_file!("../sql/install/20_functions.sql", name = "functions", requires = ["tables"]);
pgrx::extension_sql_file!("../sql/install/30_triggers.sql", name = "triggers", requires = ["functions"]);
pgrx::extension_sql_file!("../sql/install/40_tasks.sql", name = "tasks", requires = ["triggers"]);
pgrx::extension_sql_file!("../sql/install/41_runs.sql", name = "runs", requires = ["tasks"]);
pgrx::extension_sql_file!("../sql/install/42_handlers.sql", name = "handlers", requires = ["runs"]);
pgrx::extension_sql_file!("../sql/install/43_cancel.sql", name = "cancel", requires = ["handlers"]);
pgrx::extension_sql_file!("../sql/install/44_schedules.sql", name = "schedules", requires = ["cancel"]);
pgrx::extension_sql_file!("../sql/install/45_commands.sql", name = "commands", requires = ["schedules"]);
pgrx::extension_sql_file!("../sql/install/46_control.sql", name = "control", requires = ["commands"]);
pgrx::extension_sql_file!("../sql/install/47_sight.sql", name = "sight", requires = ["control"]);
pgrx::extension_sql_file!("../sql/install/48_doctor.sql", name = "doctor", requires = ["sight"]);
pgrx::extension_sql_file!("../sql/install/49_limits.sql", name = "limits", requires = ["doctor"]);
pgrx::extension_sql_file!("../sql/install/50_rights.sql", name = "rights", requires = ["limits"]);
pgrx::extension_sql_file!("../sql/install/55_comments.sql", name = "comments", requires = ["rights"]);
pgrx::extension_sql_file!("../sql/install/60_adopted.sql", name = "adopted", requires = ["comments"], finalize);

#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    if pg::background::is_preloading() {
        shared::request();
        shared::crash_records::prepare(shared::capacity());
        shared::uptime::prepare(settings::max_databases());
        signals::ddl_hooks::watch();
        processes::launcher::register();
    }
}

/// What pgrx's test framework asks of a crate.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'kongtask'", "kongtask.databases = ''"]
    }
}
