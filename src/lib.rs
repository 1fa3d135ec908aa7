//! kongtask: a job queue that lives inside Postgres. README.md is for its users; each module says what it is for.

pgrx::pg_module_magic!(name = c"kongtask", version = c"0.3.0");

mod api;
mod error;
mod flags;
mod guc;
mod handler;
mod holds;
mod launcher;
mod marks;
mod pause;
mod pg;
mod pool;
mod queue;
mod ready;
mod registry;
mod restore;
mod run;
mod scheduler;
mod schedules;
mod schema;
mod shmem;
mod subscription;
mod utility;
mod wake;
mod worker;

pgrx::extension_sql_file!("../sql/install/00_schemas.sql", name = "schemas", bootstrap);
pgrx::extension_sql_file!("../sql/install/05_adopt.sql", name = "adopt", requires = ["schemas"]);
pgrx::extension_sql_file!("../sql/install/10_tables.sql", name = "tables", requires = ["adopt"]);
pgrx::extension_sql_file!("../sql/install/20_functions.sql", name = "functions", requires = ["tables"]);
pgrx::extension_sql_file!("../sql/install/30_triggers.sql", name = "triggers", requires = ["functions"]);
pgrx::extension_sql_file!("../sql/install/40_tasks.sql", name = "tasks", requires = ["triggers"]);
pgrx::extension_sql_file!("../sql/install/45_schedules.sql", name = "schedules", requires = ["tasks"]);
pgrx::extension_sql_file!("../sql/install/50_rights.sql", name = "rights", requires = ["schedules"]);
pgrx::extension_sql_file!("../sql/install/60_adopted.sql", name = "adopted", requires = ["rights"], finalize);

#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::define();
    if pg::background::is_preloading() {
        shmem::request();
        marks::prepare(shmem::capacity());
        utility::watch();
        launcher::register();
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
