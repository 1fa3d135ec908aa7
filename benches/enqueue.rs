//! Adding jobs: statement by statement on one connection, and on many at once.

use crate::Outcome;
use crate::contest::{Contender, Standing, compete};
use crate::peer_process::Worker;
use crate::peers::WORKER_0_9;
use crate::pgbench::{Commits, Load, run_pgbench};
use crate::queue::{PATIENCE, Queue, Task};
use crate::report::{Section, Target};
use crate::server::{Server, run};
use kongtask_tests::{text, wait_until};
use std::rc::Rc;

const CONNECTIONS: usize = 16;
const WORKERS: usize = 4;
const JOBS_TABLE: &str = "graphile_worker.jobs";

const ONE: &str = "One statement a job on one connection, prepared, by pgbench; the task is registered. A round trip to the \
    server takes most of the time of a statement, so that the server's own part shows where statements are pipelined. \
    Nobody listens, but where it says so: there, each has its workers, and the jobs are for next week.";
const MANY: &str = "One prepared statement a job by pgbench, a commit each, from 16 connections at once. The plain INSERT is of \
    the same row into a table like jobs, with the same indexes.";

const FIRST: &str = "A connection's first statement finds the caches of its process cold: add_job must find the queue, the tasks and \
    what the table is like. The time of the connection itself is in both rates.";

/// A table like jobs, with its indexes and without its triggers.
pub const PLAIN: &str = "create table plain (like graphile_worker.jobs including all)";

pub fn one_connection(server: &Server, section: &mut Section) {
    section.note(ONE);
    let task = Task::new("empty", 1);
    let queue = Queue::create(server, "kong_add_job");
    let registered = queue.register(&task).and_then(|()| run(&mut queue.connect(), PLAIN));
    let peer = WORKER_0_9.install(server);
    for (mode, commits, listens, what) in [
        ("off", Commits::Each, false, "synchronous_commit off"),
        ("on", Commits::Each, true, "synchronous_commit on, workers listening"),
        ("off", Commits::Pipelined, false, "50 in one transaction, pipelined"),
    ] {
        section.heading(what);
        server.synchronous_commit(mode);
        let (add, insert) = (if listens { add_later(&task) } else { add_job(&task) }, insert(&task, listens));
        let into = |database: &str, table: &str, statement: &str, jobs: usize| {
            run(&mut server.connect(database), &format!("truncate {table}"))?;
            run_pgbench(server, database, &Load { statement, connections: 1, commits }, jobs)
        };
        let ours = statements("kongtask, add_job", "one connection", |jobs| {
            registered.clone()?;
            if listens {
                server.serve(&[&queue.database], WORKERS);
            }
            let rate = into(&queue.database, JOBS_TABLE, &add, jobs);
            server.serve_nobody();
            rate
        });
        let theirs = statements(&format!("{}, add_job", WORKER_0_9.name), "one connection", |jobs| {
            let peer = peer.as_ref().map_err(Clone::clone)?;
            let worker = listens.then(|| peer.work("empty", WORKER_0_9.settings[0].options)).transpose()?;
            if worker.is_some() {
                let mut db = server.connect(WORKER_0_9.database);
                let listening = "select count(*) > 0 from pg_stat_activity where query ilike 'listen%' and datname = current_database()";
                if !wait_until(PATIENCE, || text(&mut db, listening) == "t") {
                    return Err("its worker does not listen".into());
                }
            }
            let rate = into(WORKER_0_9.database, JOBS_TABLE, &add, jobs);
            worker.map(Worker::stop);
            rate
        });
        let plain = statements("the server alone: an INSERT of the row", "one connection", |jobs| {
            into(&queue.database, "plain", &insert, jobs)
        });
        let standings = compete(section, vec![ours, theirs, plain]);
        let ratio = ratio(&standings[0], &standings[1]);
        section.require("add_job, to that of graphile-worker 0.9.0", what, ratio, Target::AtLeast(2.5));
        let to_insert = self::ratio(&standings[0], &standings[2]);
        section.require("add_job, to a plain INSERT of the row", what, to_insert, Target::AtLeast(0.95));
    }
    server.drop(&queue.database);
    server.drop(WORKER_0_9.database);
}

pub fn many_connections(server: &Server, section: &mut Section) {
    section.note(MANY);
    let task = Task::new("empty", 1);
    let queue = Queue::create(server, "kong_connections");
    let registered = queue.register(&task).and_then(|()| run(&mut queue.connect(), PLAIN));
    for (mode, cases) in [("on", 0..3), ("off", 1..2)] {
        server.synchronous_commit(mode);
        for (workers, is_later, who) in &[
            (0, false, "kongtask.workers 0"),
            (WORKERS, true, "kongtask.workers 4, idle: the jobs are for next week"),
            (WORKERS, false, "kongtask.workers 4, which run the jobs meanwhile"),
        ][cases]
        {
            let (workers, is_later) = (*workers, *is_later);
            let settings = format!("synchronous_commit {mode}; {who}");
            section.heading(&settings);
            server.serve(&[&queue.database], workers);
            let add = if is_later { add_later(&task) } else { add_job(&task) };
            let insert = insert(&task, is_later);
            let into = |table: &str, statement: &str, jobs: usize| {
                registered.clone()?;
                run(&mut queue.connect(), &format!("truncate {table}"))?;
                run_pgbench(
                    server,
                    &queue.database,
                    &Load { statement, connections: CONNECTIONS, commits: Commits::Each },
                    jobs,
                )
            };
            let ours = statements("kongtask, add_job", "16 connections", |jobs| into(JOBS_TABLE, &add, jobs));
            let plain = statements("the server alone: an INSERT of the row", "16 connections", |jobs| {
                // What the others left is done first.
                run(&mut queue.connect(), &format!("truncate {JOBS_TABLE}"))?;
                into("plain", &insert, jobs)
            });
            let standings = compete(section, vec![ours, plain]);
            let ratio = ratio(&standings[0], &standings[1]);
            let what = "16 connections, add_job to plain INSERT";
            if workers == 0 || is_later {
                section.require(what, &settings, ratio, Target::AtLeast(0.95));
            } else {
                // Running them takes from the machine what the INSERTs beside it have for themselves: there is no target.
                section.note(&format!("{what}: {}", ratio.map_or_else(|e| e, |ratio| format!("{ratio:.3}"))));
            }
        }
    }
    server.serve_nobody();
    first_statements(server, section, &queue, &task);
    server.drop(&queue.database);
}

/// The first statement of each connection.
fn first_statements(server: &Server, section: &mut Section, queue: &Queue, task: &Task) {
    const SETTINGS: &str = "synchronous_commit off; a connection for each statement";
    server.synchronous_commit("off");
    section.heading(SETTINGS);
    section.note(FIRST);
    let contender = |name: &str, table: &'static str, statement: String| {
        let run = move |jobs| {
            run(&mut queue.connect(), &format!("truncate {table}"))?;
            let load = Load { statement: &statement, connections: WORKERS, commits: Commits::Connecting };
            run_pgbench(server, &queue.database, &load, jobs)
        };
        Contender { trial: 1_000, ..statements(name, "4 connections at a time", run) }
    };
    let ours = contender("kongtask, add_job", JOBS_TABLE, add_job(task));
    let plain = contender("the server alone: an INSERT of the row", "plain", insert(task, false));
    let standings = compete(section, vec![ours, plain]);
    let ratio = ratio(&standings[0], &standings[1]);
    section.require("first statement of a connection, add_job to plain INSERT", SETTINGS, ratio, Target::None);
}

pub fn add_job(task: &Task) -> String {
    format!("select graphile_worker.add_job('{}', '{{\"n\": 1}}')", task.identifier())
}

fn add_later(task: &Task) -> String {
    let identifier = task.identifier();
    format!("select graphile_worker.add_job('{identifier}', '{{\"n\": 1}}', run_at := now() + interval '7 days')")
}

pub fn insert(task: &Task, is_later: bool) -> String {
    let (column, value) = if is_later { (", run_at", ", now() + interval '7 days'") } else { ("", "") };
    let identifier = task.identifier();
    format!("insert into plain (task_identifier, payload{column}) values ('{identifier}', '{{\"n\": 1}}'{value})")
}

/// A contender with nothing to choose from.
pub fn statements<'a>(name: &str, settings: &str, mut run: impl FnMut(usize) -> Outcome<f64> + 'a) -> Contender<'a> {
    let run = Box::new(move |_, jobs| run(jobs));
    let settings = vec![settings.into()];
    Contender { name: name.into(), settings, trial: 5_000, settled: Rc::default(), run }
}

fn ratio(one: &Standing, other: &Standing) -> Outcome<f64> {
    Ok(one.rate()? / other.rate()?)
}
