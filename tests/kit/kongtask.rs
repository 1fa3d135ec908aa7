//! KongTask, as the server sees it: its schema, and the calls that its pool makes.

use crate::{Cluster, describe, reference};
use postgres::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Its migrations do what those of this version of graphile-worker do, but for what [`install`] adds.
const VERSION: &str = "0.12.2";
const SCHEMA: &str = "graphile_worker";

/// Installs its schema as it is after one of its migrations.
pub fn install(db: &mut Client, migration: usize) {
    reference::install(db, VERSION, migration, SCHEMA);
    if migration >= 8 {
        run(
            db,
            "alter table graphile_worker.known_crontabs alter column known_since set default now();
             create index idx_known_crontabs_last_execution on graphile_worker.known_crontabs (last_execution);
             comment on table graphile_worker.known_crontabs is 'as KongTask says';
             comment on column graphile_worker.known_crontabs.identifier is 'as KongTask says';
             comment on column graphile_worker.known_crontabs.known_since is 'as KongTask says';
             comment on column graphile_worker.known_crontabs.last_execution is 'as KongTask says'",
        );
    }
    if migration >= 9 {
        run(db, "comment on function graphile_worker.get_job is 'as KongTask says'");
    }
}

/// Installs its schema as an early version's migration 5 left it, which counted revisions and knew no flags.
pub fn install_without_flags(db: &mut Client) {
    reference::install(db, VERSION, 4, SCHEMA);
    run(
        db,
        "alter table graphile_worker.jobs add column revision int default 0 not null;
         insert into graphile_worker.migrations (id) values (5)",
    );
}

fn run(db: &mut Client, statements: &str) {
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{}\n{statements}", describe(&e)));
}

/// A pool of its workers: each has a connection, asks for any job every 10 ms while there is none, and leaves a job locked
/// whose task it doesn't know.
///
/// A job it knows is noted in `public.done (job, task, by)`. One whose payload has a member `fail` fails at its first attempt.
pub struct Pool {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<String>>>,
}

impl Pool {
    pub fn start(cluster: &Cluster, role: &str, database: &str, size: usize, known: &'static [&'static str]) -> Pool {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..size).map(|number| {
            let mut client = cluster.connect_as(role, database);
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let id = format!("worker-{number:010}");
                let mut went_wrong = Vec::new();
                while !stop.load(SeqCst) {
                    match one_job(&mut client, &id, known) {
                        Ok(true) => {}
                        Ok(false) => thread::sleep(Duration::from_millis(10)),
                        Err(e) => went_wrong.push(describe(&e)),
                    }
                }
                went_wrong
            })
        });
        Pool { stop: Arc::clone(&stop), workers: workers.collect() }
    }

    /// Stops it, and tells which calls failed.
    pub fn stop(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    }
}

/// Asks for a job and does it; false if there was none.
fn one_job(client: &mut Client, worker: &str, known: &[&str]) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "select id, task_identifier, attempts = 1 and payload ->> 'fail' is not null
         from graphile_worker.get_job($1, null, '4 hours'::interval, $2)",
        &[&worker, &None::<Vec<String>>],
    )?;
    let Some(id) = row.get::<_, Option<i64>>(0) else { return Ok(false) };
    let (task, fails): (String, bool) = (row.get(1), row.get(2));
    if !known.contains(&task.as_str()) {
        return Ok(true);
    }
    if fails {
        client.execute("select graphile_worker.fail_job($1, $2, $3)", &[&worker, &id, &"it failed"])?;
    } else {
        client.execute("insert into public.done (job, task, by) values ($1, $2, $3)", &[&id, &task, &worker])?;
        client.execute("select graphile_worker.complete_job($1, $2)", &[&worker, &id])?;
    }
    Ok(true)
}
