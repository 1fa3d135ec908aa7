//! What it costs to keep what became of jobs, and the room that it takes.

use crate::Outcome;
use crate::contest::{compete, ratio};
use crate::drains::{WORKERS, ours};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, scaled, told};

const HOW: &str = "Plain jobs, and jobs of tasks with `keep := 'all'`, each of which writes a row of `kongtask.runs` in the \
    transaction that completes it.";

const BYTES: &str = "The tables of `kongtask.runs` with their indexes, for jobs without a result or a key.";

const WRITE: Task = Task::new("write", 1);
const BATCH: Task = Task::new("write", 50);

/// The task, what its jobs are called, what they are compared with, and what they are to reach.
const CASES: [(Task, &str, &str, Target); 3] = [
    (Task { variant: "_kept", options: ", keep => 'all'", ..WRITE }, "kept", "plain", Target::AtLeast(0.75)),
    (
        Task { variant: "_payload", options: ", keep => 'all', keep_payload => true", ..WRITE },
        "kept, with payload",
        "plain",
        Target::AtLeast(0.75),
    ),
    (
        Task { variant: "_kept", options: ", keep => 'all'", ..BATCH },
        "kept, max_batch 50",
        "plain, max_batch 50",
        Target::AtLeast(0.75),
    ),
];

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    let queue = Queue::create(server, "kong_history");
    for mode in ["on", "off"] {
        section.heading(&format!("A handler that writes a row, synchronous_commit = {mode}"));
        server.synchronous_commit(mode);
        let mut contenders = vec![
            ours(&queue, &WRITE, "plain".into(), WORKERS),
            ours(&queue, &BATCH, "plain, max_batch 50".into(), WORKERS),
        ];
        contenders.extend(CASES.iter().map(|(task, name, ..)| ours(&queue, task, (*name).into(), WORKERS)));
        let standings = compete(section, contenders);
        for (_, name, of, target) in CASES {
            let (measured, settings) = ratio(&standings, name, of);
            let settings = format!("synchronous_commit {mode}; {settings}");
            section.require(&format!("jobs {name}, to {of}"), &settings, measured, target);
        }
    }
    section.heading("Bytes a run");
    section.note(BYTES);
    let table = CASES[..2].iter().filter_map(|(task, name, ..)| {
        let bytes = bytes(&queue, task);
        bytes.map(|bytes| vec![(*name).into(), number(bytes)]).map_err(|error| section.failed(name, &error)).ok()
    });
    let table = table.collect();
    section.table(&["", "bytes"], table);
    server.serve_nobody();
    server.drop(&queue.database);
}

/// Returns how much the tables of runs grow by a run.
fn bytes(queue: &Queue, task: &Task) -> Outcome<f64> {
    const SIZE: &str = "
        select sum(pg_total_relation_size(oid))::float8, (select count(*) from kongtask.runs)::float8
        from pg_class where relnamespace = 'kongtask'::regnamespace and relname like 'runs\\__' and relkind = 'r'";
    queue.server.serve(&[&queue.database], 4);
    let mut db = queue.connect();
    let mut size = || -> Outcome<(f64, f64)> {
        let row = db.query_one(SIZE, &[]).map_err(told)?;
        Ok((row.get(0), row.get(1)))
    };
    let before = size()?;
    queue.drain(task, scaled(20_000))?;
    let after = size()?;
    Ok((after.0 - before.0) / (after.1 - before.1))
}
