//! How long jobs wait while others keep coming: at half the rate that a queue can bear, as the mean of a day should be.

use crate::Outcome;
use crate::latency::{NUMBER, PEER_SETTINGS};
use crate::peer_process::Worker;
use crate::peers::{Peer, WORKER_0_17, WORKER_0_18};
use crate::pgbench::{Commits, Load, Until, pgbench, rate_of};
use crate::queue::{PATIENCE, Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, median, rounds, run, scale, scaled, told};
use kongtask_tests::{text, wait_until};
use postgres::Client;
use std::time::Instant;

const HOW: &str = "Jobs are added by pgbench from 8 connections, one transaction each; a handler inserts a row that says when it began. \
    The greatest rate is that of jobs added as fast as possible while they run, from the first that is added to the last that has \
    begun. Then jobs are added at half of that rate, at random times; a job's latency is from the call of add_job to its handler's \
    start, both by the machine's clock.";

const WORKERS: usize = 16;
const CONNECTIONS: usize = 8;
/// Jobs for the greatest rate, and seconds at half of it.
const JOBS: usize = 6_000;
const SECONDS: f64 = 6.0;

/// One queue: where its jobs are added, and its workers, which run while this is there.
struct Side<'a> {
    name: String,
    server: &'a Server,
    database: &'a str,
    identifier: String,
    start: Box<dyn Fn() -> Outcome<Option<Worker>> + 'a>,
}

struct Waits {
    greatest: f64,
    /// Median and p99 of each round.
    quantiles: Vec<[f64; 2]>,
}

impl Waits {
    fn quantile(&self, which: usize) -> f64 {
        median(self.quantiles.iter().map(|both| both[which]).collect())
    }
}

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    server.synchronous_commit("on");
    section.heading("synchronous_commit = on for all");
    let task = Task::new("start", 1);
    let queue = Queue::create(server, "kong_load");
    let registered = queue.register(&task);
    let ours = Side {
        name: format!("kongtask, kongtask.workers {WORKERS}"),
        server,
        database: &queue.database,
        identifier: task.identifier(),
        start: Box::new(|| {
            registered.clone()?;
            server.serve(&[&queue.database], WORKERS);
            Ok(None)
        }),
    };
    let peers: [&Peer; 2] = [&WORKER_0_17, &WORKER_0_18];
    let installed = peers.map(|peer| peer.install(server));
    let mut sides = vec![ours];
    for (peer, installed) in peers.iter().zip(&installed) {
        for settings in &PEER_SETTINGS {
            sides.push(Side {
                name: format!("{}, {}", peer.name, settings.told()),
                server,
                database: peer.database,
                identifier: "start".into(),
                start: Box::new(|| {
                    server.serve_nobody();
                    let mut worker = installed.as_ref().map_err(Clone::clone)?.work("start", settings.options)?;
                    worker.wait_until_ready()?;
                    Ok(Some(worker))
                }),
            });
        }
    }
    let mut all: Vec<Outcome<Waits>> = sides.iter().map(|side| side.greatest_rate()).collect();
    for _ in 0..rounds() {
        for (side, waits) in sides.iter().zip(&mut all) {
            if let Ok(known) = waits {
                match side.at_half_of(known.greatest) {
                    Ok(both) => known.quantiles.push(both),
                    Err(error) => *waits = Err(error),
                }
            }
        }
    }
    tell(section, &sides, &all);
    for (n, peer) in peers.iter().enumerate() {
        let theirs = &all[1 + n * PEER_SETTINGS.len()..][..PEER_SETTINGS.len()];
        for (which, what, target) in [(0, "median", Target::None), (1, "p99", Target::AtMost(0.25))] {
            let fastest = theirs.iter().flatten().map(|waits| waits.quantile(which)).reduce(f64::min);
            let ratio = || {
                let ours = all[0].as_ref().map_err(Clone::clone)?.quantile(which);
                Ok(ours / fastest.ok_or("no latencies of the peer")?)
            };
            let what = format!("{what} latency at half the greatest rate, to {}", peer.name);
            let target = if peer.name == WORKER_0_17.name { target } else { Target::None };
            section.require(&what, "synchronous_commit on; each at half of its own rate", ratio(), target);
        }
    }
    drop(sides);
    server.serve_nobody();
    peers.iter().for_each(|peer| server.drop(peer.database));
    server.drop(&queue.database);
}

impl Side<'_> {
    fn greatest_rate(&self) -> Outcome<Waits> {
        let jobs = scaled(JOBS).max(2000) / CONNECTIONS * CONNECTIONS;
        let greatest = self.working(|db| {
            let begun = Instant::now();
            self.add(Until::Statements(jobs))?;
            self.wait_for(db, jobs)?;
            Ok(jobs as f64 / begun.elapsed().as_secs_f64())
        })?;
        Ok(Waits { greatest, quantiles: Vec::new() })
    }

    /// Median and p99. The first second does not count.
    fn at_half_of(&self, greatest: f64) -> Outcome<[f64; 2]> {
        let seconds = (SECONDS * scale()).max(3.0);
        self.working(|db| {
            self.add(Until::Seconds(seconds, Some(greatest / 2.0)))?;
            if !wait_until(PATIENCE, || text(db, "select count(*) from graphile_worker.jobs") == "0") {
                return Err(format!("jobs are left after {PATIENCE:?}"));
            }
            let quantiles = "select percentile_cont(array[0.5, 0.99]) within group (order by ms) from (
                select extract(epoch from at)::float8 * 1e3 - n / 1e3 as ms, n, min(n) over () as first from started
              ) s where n > first + 1000000";
            let both: Vec<f64> = db.query_one(quantiles, &[]).map_err(told)?.try_get(0).map_err(told)?;
            both.try_into().map_err(|_| "no two quantiles".into())
        })
    }

    /// With its workers, and nothing in the way.
    fn working<T>(&self, measure: impl FnOnce(&mut Client) -> Outcome<T>) -> Outcome<T> {
        let mut db = self.server.connect(self.database);
        run(&mut db, "truncate started")?;
        run(&mut db, "vacuum analyze")?;
        let worker = (self.start)()?;
        let measured = measure(&mut db);
        let errors = worker.map(Worker::stop).unwrap_or_default();
        measured.map_err(|error| format!("{error} {errors}"))
    }

    fn add(&self, until: Until) -> Outcome<f64> {
        let statement = format!("select graphile_worker.add_job('{}', {NUMBER})", self.identifier);
        let load = Load { statement: &statement, connections: CONNECTIONS, commits: Commits::Each };
        rate_of(pgbench(self.server, self.database, &load, until)?, &load)
    }

    fn wait_for(&self, db: &mut Client, jobs: usize) -> Outcome<()> {
        let count = "select count(*) from started";
        let all = wait_until(PATIENCE, || text(db, count) == jobs.to_string());
        if all { Ok(()) } else { Err(format!("{} of {jobs} jobs have begun", text(db, count))) }
    }
}

fn tell(section: &mut Section, sides: &[Side], all: &[Outcome<Waits>]) {
    let rows = sides.iter().zip(all).map(|(side, waits)| {
        let cells = waits.as_ref().map_or_else(
            |_| vec!["failed".into(); 4],
            |waits| {
                let rate = waits.greatest;
                [rate, rate / 2.0, waits.quantile(0), waits.quantile(1)].map(number).to_vec()
            },
        );
        [vec![side.name.clone()], cells].concat()
    });
    section.table(&["", "greatest, jobs/s", "load, jobs/s", "median, ms", "p99, ms"], rows.collect());
    for (side, waits) in sides.iter().zip(all) {
        if let Err(error) = waits {
            section.failed(&side.name, error);
        }
    }
    let bars = sides.iter().zip(all).filter_map(|(side, waits)| {
        let name = side.name.split(", ").next().unwrap_or_default();
        let settings = if side.name.contains("localQueue") { ", local queue" } else { "" };
        Some((format!("{name}{settings}"), waits.as_ref().ok()?.quantile(1)))
    });
    section.chart("p99 at half the greatest rate, ms", &bars.collect::<Vec<_>>());
}
