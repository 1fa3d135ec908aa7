//! The one server that everything runs on, and how much is run on it.

use crate::Outcome;
use kongtask_tests::{Cluster, describe};
use postgres::Client;
use std::str::FromStr;

/// Durable as in production, but with no checkpoint in the middle of a measurement.
pub const SETTINGS: &[&str] = &[
    "fsync = on",
    "shared_buffers = 1GB",
    "max_wal_size = 16GB",
    "checkpoint_timeout = 1h",
    "max_connections = 200",
    "max_worker_processes = 64",
    "kongtask.workers = 0",
    // They are there before the first job; `first` and `databases` measure how they come.
    "kongtask.worker_idle_timeout = -1",
    "kongtask.shutdown_timeout = 1s",
    "log_min_messages = warning",
];

pub struct Server {
    cluster: Cluster,
}

impl Server {
    pub fn start() -> Server {
        Server { cluster: Cluster::with(SETTINGS) }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A new database, with the tables that handlers write.
    pub fn create(&self, database: &str) {
        self.drop(database);
        self.cluster.sql(&format!("create database {database}"));
        let tables = "create table effect (n int); create table started (n bigint, at timestamptz)";
        self.connect(database).batch_execute(tables).expect("tables of effects");
    }

    pub fn drop(&self, database: &str) {
        self.cluster.sql(&format!("drop database if exists {database} with (force)"));
    }

    pub fn connect(&self, database: &str) -> Client {
        self.cluster.connect_as("postgres", database)
    }

    /// Sets it for everybody, ours and theirs.
    pub fn synchronous_commit(&self, mode: &str) {
        self.cluster.reload(&[&format!("synchronous_commit = {mode}")]);
        self.cluster.wait_for("show synchronous_commit", mode);
    }

    /// Has this many workers serve each of these databases, and no other; they are there when this returns.
    pub fn serve(&self, databases: &[&str], workers: usize) {
        self.cluster.reload(&[
            &format!("kongtask.databases = '{}'", databases.join(",")),
            &format!("kongtask.workers = {workers}"),
        ]);
        for database in databases {
            let mut db = self.connect(database);
            let count = "select count(*) from kongtask.workers where database = current_database()";
            let come = kongtask_tests::wait_until(kongtask_tests::SOON, || {
                kongtask_tests::text(&mut db, count) == workers.to_string()
            });
            assert!(come, "{database} has no {workers} workers\n{}", self.cluster.log());
        }
    }

    pub fn serve_nobody(&self) {
        self.cluster.reload(&["kongtask.databases = ''", "kongtask.workers = 0"]);
        let count = "select count(*) from pg_stat_activity where backend_type = 'kongtask worker'";
        self.cluster.wait_for(count, "0");
    }
}

/// How many rounds each measure takes.
pub fn rounds() -> usize {
    setting("ROUNDS", 3)
}

/// A number of jobs, made smaller or greater by SCALE.
pub fn scaled(jobs: usize) -> usize {
    ((jobs as f64 * scale()) as usize).max(200)
}

pub fn scale() -> f64 {
    setting("SCALE", 1.0)
}

pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

/// Runs statements, and tells what the server said if it refused.
pub fn run(db: &mut Client, statements: &str) -> Outcome<()> {
    db.batch_execute(statements).map_err(told)
}

pub fn told(error: postgres::Error) -> String {
    describe(&error)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
