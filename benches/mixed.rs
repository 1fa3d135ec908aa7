//! Adding and running at the same time, for as long as is asked: whether the rate stays what it is, as far as the machine does.

use crate::Outcome;
use crate::enqueue::{PLAIN, add_job, insert};
use crate::pgbench::{Commits, Load, Until, pgbench, rate_of};
use crate::queue::{PATIENCE, Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, run, scale, setting, told};
use kongtask_tests::{text, wait_until};
use postgres::Client;
use std::thread::sleep;
use std::time::{Duration, Instant};

const WORKERS: usize = 16;
const CONNECTIONS: usize = 4;
const PARTS: usize = 10;

/// What one part of the time came to, each a second.
struct Part {
    added: f64,
    run: f64,
    /// Plain INSERTs before and after it, while nothing else is done: what the machine gives at the time.
    plain: f64,
}

pub fn measure(server: &Server, section: &mut Section) {
    let seconds = setting("MIXED_SECONDS", (30.0 * scale()).max(10.0));
    let settings = format!(
        "synchronous_commit on, kongtask.workers {WORKERS}, {CONNECTIONS} connections that add jobs, {seconds:.0} s"
    );
    section.note(&format!(
        "Connections add a job each as fast as they can, by pgbench, and workers run them: a handler that writes a row; \
         {settings}. The first tenth begins when that has gone on for a sixth of the time. Between the tenths, the same \
         connections insert rows into a table like jobs, with nobody to run them: where others use the machine too, that \
         tells what it gives at the time."
    ));
    server.synchronous_commit("on");
    let queue = Queue::create(server, "kong_mixed");
    let measured = parts(&queue, seconds);
    if let Ok(parts) = &measured {
        let row = |(at, part): (usize, &Part)| {
            [vec![(at + 1).to_string()], [part.added, part.run, part.plain].map(number).to_vec()].concat()
        };
        section.table(&["tenth", "added/s", "run/s", "plain INSERT/s"], parts.iter().enumerate().map(row).collect());
        let curve = |name: &str, of: fn(&Part) -> f64| {
            let at = |part: usize| (part as f64 + 0.5) * seconds / PARTS as f64;
            (name.to_string(), parts.iter().enumerate().map(|(part, rates)| (at(part), of(rates))).collect())
        };
        let curves = [
            curve("added", |part| part.added),
            curve("run", |part| part.run),
            curve("plain INSERT alone", |part| part.plain),
        ];
        section.curves("seconds", "jobs/s", &curves);
    }
    let ratio = |of: fn(&Part) -> f64| {
        measured.as_ref().map(|parts| of(&parts[PARTS - 1]) / of(&parts[0])).map_err(Clone::clone)
    };
    let what = "jobs run in the last tenth, to the first, each to the plain INSERTs around it";
    section.require(what, &settings, ratio(|part| part.run / part.plain), Target::AtLeast(0.97));
    section.require("jobs run in the last tenth, to the first", &settings, ratio(|part| part.run), Target::None);
    server.serve_nobody();
    server.drop(&queue.database);
}

fn parts(queue: &Queue, seconds: f64) -> Outcome<Vec<Part>> {
    /// Of a part, until all of its connections are at work, and from when some may have ended.
    const EDGE: Duration = Duration::from_millis(300);
    let server = queue.server;
    let task = Task::new("write", 1);
    queue.register(&task)?;
    let mut db = queue.connect();
    run(&mut db, PLAIN)?;
    run(&mut db, "alter table plain set (autovacuum_enabled = false)")?;
    server.serve(&[&queue.database], WORKERS);
    let (add, insert) = (add_job(&task), insert(&task, false));
    let load = |statement| Load { statement, connections: CONNECTIONS, commits: Commits::Each };
    let length = (seconds / PARTS as f64).round().max(1.0);
    let plain = |db: &mut Client| {
        // What was added last is run first.
        if !wait_until(PATIENCE, || text(db, "select count(*) from graphile_worker.jobs") == "0") {
            return Err(format!("jobs are left after {PATIENCE:?}"));
        }
        let load = load(&insert);
        rate_of(pgbench(server, &queue.database, &load, Until::Seconds((length / 15.0).round().max(1.0), None))?, &load)
    };
    let lead = pgbench(server, &queue.database, &load(&add), Until::Seconds((seconds / 6.0).round().max(1.0), None))?;
    rate_of(lead, &load(&add))?;
    let mut before = plain(&mut db)?;
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let adding = pgbench(server, &queue.database, &load(&add), Until::Seconds(length, None))?;
        sleep(EDGE);
        let (begun, at_begin) = (Instant::now(), counters(&mut db)?);
        sleep(Duration::from_secs_f64(length).saturating_sub(EDGE * 2));
        let (elapsed, at_end) = (begun.elapsed().as_secs_f64(), counters(&mut db)?);
        rate_of(adding, &load(&add))?;
        let after = plain(&mut db)?;
        let rate = |before: i64, after: i64| (after - before) as f64 / elapsed;
        parts.push(Part {
            added: rate(at_begin.0, at_end.0),
            run: rate(at_begin.1, at_end.1),
            plain: (before + after) / 2.0,
        });
        before = after;
    }
    Ok(parts)
}

/// How many jobs have been added, and how many have run.
fn counters(db: &mut Client) -> Outcome<(i64, i64)> {
    let counters =
        "select coalesce(sum(added), 0)::bigint, coalesce(sum(succeeded), 0)::bigint from kongtask.stat_tasks";
    let row = db.query_one(counters, &[]).map_err(told)?;
    Ok((row.get(0), row.get(1)))
}
