//! Adding and running at the same time, for as long as is asked: whether the rate stays what it is.

use crate::Outcome;
use crate::enqueue::add_job;
use crate::pgbench::{Commits, Load, Until, pgbench, rate_of};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, scale, setting, told};
use postgres::Client;
use std::thread::sleep;
use std::time::{Duration, Instant};

const WORKERS: usize = 16;
const CONNECTIONS: usize = 4;
const PARTS: usize = 10;

/// Jobs added and jobs run, a second.
type Rates = (f64, f64);

pub fn measure(server: &Server, section: &mut Section) {
    let seconds = setting("MIXED_SECONDS", (30.0 * scale()).max(10.0));
    let settings = format!(
        "synchronous_commit on, kongtask.workers {WORKERS}, {CONNECTIONS} connections that add jobs, {seconds:.0} s"
    );
    section.note(&format!(
        "Connections add a job each as fast as they can, by pgbench, and workers run them: a handler that writes a row; \
         {settings}. The first tenth begins when that has gone on for a sixth of the time."
    ));
    server.synchronous_commit("on");
    let queue = Queue::create(server, "kong_mixed");
    let measured = rates(&queue, seconds);
    if let Ok(rates) = &measured {
        let row = |(part, (added, ran)): (usize, &Rates)| vec![(part + 1).to_string(), number(*added), number(*ran)];
        section.table(&["tenth", "added/s", "run/s"], rates.iter().enumerate().map(row).collect());
        let curve = |name: &str, of: fn(&Rates) -> f64| {
            let at = |part: usize| (part as f64 + 0.5) * seconds / PARTS as f64;
            (name.to_string(), rates.iter().enumerate().map(|(part, rates)| (at(part), of(rates))).collect())
        };
        section.curves("seconds", "jobs/s", &[curve("added", |rates| rates.0), curve("run", |rates| rates.1)]);
    }
    for (what, of) in [("run", (|rates| rates.1) as fn(&Rates) -> f64), ("added", |rates| rates.0)] {
        let ratio = measured.as_ref().map(|rates| of(&rates[PARTS - 1]) / of(&rates[0])).map_err(Clone::clone);
        let what = format!("jobs {what} in the last tenth, to the first, while both go on");
        section.require(&what, &settings, ratio, Target::AtLeast(0.97));
    }
    server.serve_nobody();
    server.drop(&queue.database);
}

fn rates(queue: &Queue, seconds: f64) -> Outcome<Vec<Rates>> {
    let task = Task::new("write", 1);
    queue.register(&task)?;
    queue.server.serve(&[&queue.database], WORKERS);
    let lead = seconds / 6.0;
    let add = add_job(&task);
    let load = Load { statement: &add, connections: CONNECTIONS, commits: Commits::Each };
    let adding = pgbench(queue.server, &queue.database, &load, Until::Seconds(lead + seconds + 1.0, None))?;
    let mut db = queue.connect();
    sleep(Duration::from_secs_f64(lead));
    let begun = Instant::now();
    let mut marks = vec![(0.0, counters(&mut db)?)];
    for part in 1..=PARTS {
        let due = Duration::from_secs_f64(seconds * part as f64 / PARTS as f64);
        sleep(due.saturating_sub(begun.elapsed()));
        marks.push((begun.elapsed().as_secs_f64(), counters(&mut db)?));
    }
    rate_of(adding, &load)?;
    let rate = |pair: &[(f64, (i64, i64))]| {
        let [(from, before), (until, after)] = pair else { unreachable!("windows of two") };
        let of = |before: i64, after: i64| (after - before) as f64 / (until - from);
        (of(before.0, after.0), of(before.1, after.1))
    };
    Ok(marks.windows(2).map(rate).collect())
}

/// How many jobs have been added, and how many have run.
fn counters(db: &mut Client) -> Outcome<(i64, i64)> {
    let counters =
        "select coalesce(sum(added), 0)::bigint, coalesce(sum(succeeded), 0)::bigint from kongtask.stat_tasks";
    let row = db.query_one(counters, &[]).map_err(told)?;
    Ok((row.get(0), row.get(1)))
}
