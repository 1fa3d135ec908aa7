//! graphile-worker itself, as its packages from npm carry it: `scripts/peers` puts them there.

use crate::{Cluster, SOON};
use postgres::Client;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The package of a version.
pub fn package(version: &str) -> PathBuf {
    let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers");
    let package = PathBuf::from(peers).join(version).join("node_modules/graphile-worker");
    assert!(package.is_dir(), "{package:?} is not there: run scripts/peers");
    package
}

/// Installs its schema by its own SQL, up to a migration, as its own migrate does.
pub fn install(db: &mut Client, version: &str, migration: usize, schema: &str) {
    let has_uuid = db
        .query_opt(
            "select from pg_proc where proname = 'gen_random_uuid' and pronamespace = 'public'::regnamespace",
            &[],
        )
        .expect("a query")
        .is_some();
    if !has_uuid {
        // All that it wants of pgcrypto, which is not everywhere.
        run(
            db,
            "create function public.gen_random_uuid() returns uuid language sql as 'select pg_catalog.gen_random_uuid()'",
        );
    }
    run(
        db,
        &format!(
            "create schema {schema};
             create table {schema}.migrations (id int primary key, ts timestamptz default now() not null)"
        ),
    );
    migrate(db, version, 1..=migration, schema);
}

/// Applies some of its migrations.
pub fn migrate(db: &mut Client, version: &str, migrations: RangeInclusive<usize>, schema: &str) {
    for number in migrations {
        let file = package(version).join(format!("sql/{number:06}.sql"));
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        run(db, &text.replace(":GRAPHILE_WORKER_SCHEMA", schema));
        run(db, &format!("insert into {schema}.migrations (id) values ({number})"));
    }
}

fn run(db: &mut Client, statements: &str) {
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{}\n{statements}", crate::describe(&e)));
}

/// One of its worker processes.
pub struct Worker {
    child: Child,
    /// Its tasks, its crontab and what it says.
    folder: TempDir,
}

impl Worker {
    /// Starts it in a database, as a role, with tasks by name (each the body of an async function of payload and helpers),
    /// a crontab, and further options. It polls once an hour: whatever comes sooner was told by NOTIFY.
    pub fn start(
        cluster: &Cluster,
        (role, database): (&str, &str),
        version: &str,
        tasks: &[(&str, &str)],
        crontab: &str,
        options: &[&str],
    ) -> Worker {
        Worker::start_with(&[], cluster, (role, database), version, tasks, crontab, options)
    }

    /// The same, with variables in its environment.
    pub fn start_with(
        environment: &[(&str, &str)],
        cluster: &Cluster,
        (role, database): (&str, &str),
        version: &str,
        tasks: &[(&str, &str)],
        crontab: &str,
        options: &[&str],
    ) -> Worker {
        let folder = tempfile::Builder::new().prefix("kongtask-worker-").tempdir_in("/tmp").expect("a folder");
        let tasks_folder = folder.path().join("tasks");
        fs::create_dir(&tasks_folder).expect("a folder");
        for (name, body) in tasks {
            let text = format!("module.exports = async (payload, helpers) => {{ {body} }};\n");
            fs::write(tasks_folder.join(format!("{name}.js")), text).expect("a task");
        }
        fs::write(folder.path().join("crontab"), crontab).expect("a crontab");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let command = package(version).join("../.bin/graphile-worker").canonicalize().expect("its command");
        let child = Command::new("node")
            .arg(command)
            .args(["--poll-interval", "3600000"])
            .args(options)
            .current_dir(folder.path())
            .env("PGHOST", cluster.host())
            .env("PGUSER", role)
            .env("PGDATABASE", database)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("node is installed");
        Worker { child, folder }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it says something.
    pub fn wait_for(&self, text: &str) {
        assert!(crate::wait_until(SOON, || self.log().contains(text)), "no {text:?} in\n{}", self.log());
    }

    /// Waits until it is told of new jobs. It says that it looks for jobs just before it listens: one that is added in between, and
    /// after its first look, would wait for its poll.
    pub fn wait_until_it_listens(&self, cluster: &Cluster) {
        self.wait_for("looking for jobs");
        let listens =
            "select exists (select from pg_stat_activity where query = 'LISTEN \"jobs:insert\"' and state = 'idle')";
        cluster.wait_for(listens, "t");
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// True while it has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits until it has ended by itself; whether it was content.
    pub fn end(&mut self) -> bool {
        let mut status = None;
        let ended = crate::wait_until(SOON, || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        assert!(ended, "it goes on\n{}", self.log());
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the external worker\n{}", self.log());
        }
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
