//! What a job costs in WAL, from the commit that added it until it is gone.

use crate::Outcome;
use crate::queue::{Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, median, rounds, scaled};

const WORKERS: usize = 4;
const JOBS: usize = 20_000;

const TASKS: [Task; 4] = [
    Task { variant: "_claimed", options: ", in_place => false", ..Task::new("write", 1) },
    Task::new("write", 1),
    Task::new("write", 50),
    Task::new("write_set", 10_000),
];

pub fn measure(server: &Server, section: &mut Section) {
    let jobs = scaled(JOBS);
    let settings = format!("synchronous_commit off, kongtask.workers {WORKERS}");
    section.note(&format!("{jobs} jobs of a handler that writes a row, which counts too; {settings}"));
    server.synchronous_commit("off");
    let queue = Queue::create(server, "kong_wal");
    let registered: Vec<Outcome<()>> = TASKS.iter().map(|task| queue.register(task)).collect();
    if registered.iter().any(Result::is_ok) {
        server.serve(&[&queue.database], WORKERS);
    }
    let mut bytes: Vec<Outcome<Vec<f64>>> =
        registered.into_iter().map(|outcome| outcome.map(|()| Vec::new())).collect();
    for _ in 0..rounds() {
        for (task, bytes) in TASKS.iter().zip(&mut bytes) {
            let Ok(measured) = bytes else { continue };
            match queue.drain(task, jobs) {
                Ok(drain) => measured.push(drain.wal_bytes / jobs as f64),
                Err(error) => *bytes = Err(error),
            }
        }
    }
    let bytes: Vec<Outcome<f64>> = bytes.into_iter().map(|bytes| bytes.map(median)).collect();
    let row = |(task, bytes): (&Task, &Outcome<f64>)| {
        let how = if task.options.is_empty() { "in place" } else { "claimed" };
        let told = bytes.as_ref().map_or_else(Clone::clone, |bytes| number(*bytes));
        vec![format!("{}, max_batch {}", task.handler, task.max_batch), how.into(), told]
    };
    section.table(&["", "", "WAL bytes a job"], TASKS.iter().zip(&bytes).map(row).collect());
    let ratio = || Ok(bytes[1].clone()? / bytes[0].clone()?);
    let settings = format!("max_batch 1, {settings}");
    section.require("WAL bytes a job, in place to claimed", &settings, ratio(), Target::AtMost(0.5));
    server.serve_nobody();
    server.drop(&queue.database);
}
