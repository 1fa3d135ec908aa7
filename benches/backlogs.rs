//! What does not run should not slow what does: rows that a long transaction keeps from being cleaned up, and jobs that
//! wait in front of those that are due. Two databases of one server take turns, one with the burden and one without.

use crate::Outcome;
use crate::drains::best_workers;
use crate::queue::{Drain, PARTS, Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, median, rounds, run, scaled, told};

const TASK: Task = Task::new("write", 1);
const TARGET: Target = Target::AtLeast(0.85);

type Figure = fn(&Drain) -> f64;

/// Drains of a queue without the burden, and of one with it.
#[derive(Default)]
struct Pair {
    without: Vec<Drain>,
    with: Vec<Drain>,
}

impl Pair {
    fn ratio(&self, figure: Figure) -> f64 {
        median(self.with.iter().map(figure).collect()) / median(self.without.iter().map(figure).collect())
    }
}

fn rates(drains: &[Drain], figure: Figure) -> String {
    number(median(drains.iter().map(figure).collect()))
}

fn told_workers(workers: &Outcome<usize>) -> String {
    workers.as_ref().map_or_else(Clone::clone, |workers| format!("kongtask.workers {workers}, the best"))
}

pub fn held_xmin(server: &Server, section: &mut Section) {
    server.synchronous_commit("off");
    let (without, with) = (Queue::create(server, "kong_free"), Queue::create(server, "kong_held"));
    let jobs = scaled(100_000);
    let workers = best_workers(&without, &TASK, scaled(10_000)).and_then(|n| with.register(&TASK).map(|()| n));
    let settings = format!("writing handler, {jobs} jobs, synchronous_commit off, {}", told_workers(&workers));
    section.note(&format!("{settings}; a REPEATABLE READ transaction has a snapshot from before the jobs were added."));
    let measured = workers.and_then(|workers| {
        server.serve(&[&without.database, &with.database], workers);
        let mut pair = Pair::default();
        for _ in 0..rounds() {
            pair.without.push(without.drain(&TASK, jobs)?);
            let mut holder = with.connect();
            run(&mut holder, "begin isolation level repeatable read; select pg_current_snapshot()")?;
            pair.with.push(with.drain(&TASK, jobs)?);
            run(&mut holder, "rollback")?;
        }
        Ok(pair)
    });
    if let Ok(pair) = &measured {
        let figures: [(&str, Figure); 3] =
            [("all", Drain::rate), ("first fifth", |d| d.rate_of_fifth(0)), ("last fifth", |d| d.rate_of_fifth(4))];
        let row = |(what, figure): (&str, Figure)| {
            vec![what.into(), rates(&pair.without, figure), rates(&pair.with, figure), number(pair.ratio(figure))]
        };
        section.table(&["jobs/s", "none held", "xmin held", "ratio"], figures.map(row).to_vec());
        section.curves(
            "share of the jobs, %",
            "jobs/s",
            &[course("none held", &pair.without), course("xmin held", &pair.with)],
        );
    }
    let of = |figure: Figure| measured.as_ref().map(|pair| pair.ratio(figure)).map_err(Clone::clone);
    section.require("drain rate under held xmin, to none held", &settings, of(Drain::rate), TARGET);
    section.require("the same, first fifth of the run", &settings, of(|drain| drain.rate_of_fifth(0)), TARGET);
    section.require("the same, last fifth of the run", &settings, of(|drain| drain.rate_of_fifth(4)), TARGET);
    server.serve_nobody();
    server.drop(&with.database);
    server.drop(&without.database);
}

/// Jobs a second in each part of the run.
fn course(name: &str, drains: &[Drain]) -> (String, Vec<(f64, f64)>) {
    let rate_of = |part: usize| {
        let rate = |drain: &Drain| {
            let begun = if part == 0 { 0.0 } else { drain.parts[part - 1] };
            drain.jobs as f64 / PARTS as f64 / (drain.parts[part] - begun).max(1e-3)
        };
        median(drains.iter().map(rate).collect())
    };
    (name.into(), (0..PARTS).map(|part| ((part as f64 + 0.5) * 100.0 / PARTS as f64, rate_of(part))).collect())
}

struct Backlog {
    name: &'static str,
    jobs: usize,
    /// Statements that make it; JOBS stands for how many.
    made_by: &'static [&'static str],
    /// Workers that it keeps busy.
    busy: usize,
    /// The ratio of the drain rate with it to that without.
    target: Target,
}

const BACKLOGS: [Backlog; 6] = [
    Backlog {
        name: "scheduled for next week",
        jobs: 1_000_000,
        made_by: &["select count(graphile_worker.add_job('write_1', run_at := now() + interval '7 days'))
            from generate_series(1, JOBS)"],
        busy: 0,
        target: TARGET,
    },
    Backlog {
        name: "failed for good",
        jobs: 100_000,
        made_by: &[
            "select count(graphile_worker.add_job('write_1')) from generate_series(1, JOBS)",
            "select count(*) from graphile_worker.permanently_fail_jobs(array(select id from graphile_worker.jobs), 'no')",
        ],
        busy: 0,
        target: TARGET,
    },
    Backlog {
        name: "behind a forbidden flag",
        jobs: 100_000,
        made_by: &[
            "select count(graphile_worker.add_job('write_1', flags := array['held'])) from generate_series(1, JOBS)",
        ],
        busy: 0,
        target: TARGET,
    },
    Backlog {
        name: "paused",
        jobs: 100_000,
        made_by: &[
            "create function wait() returns void language sql as ''",
            "select kongtask.register_task('paused', 'wait()'), kongtask.pause('paused')",
            "select count(graphile_worker.add_job('paused')) from generate_series(1, JOBS)",
        ],
        busy: 0,
        target: Target::AtLeast(0.95),
    },
    Backlog {
        name: "of an identifier that no one handles",
        jobs: 100_000,
        made_by: &["select count(graphile_worker.add_job('nobody')) from generate_series(1, JOBS)"],
        busy: 0,
        target: TARGET,
    },
    Backlog {
        name: "in one queue, whose head runs",
        jobs: 100_000,
        made_by: &[
            "create function doze() returns void language sql as 'select pg_sleep(3600)'",
            "select kongtask.register_task('doze', 'doze()')",
            // In transactions of a thousand, as each job counts up one row of its queue.
            "do $$ begin
               for i in 1..JOBS / 1000 loop
                 perform count(graphile_worker.add_job('doze', queue_name := 'q')) from generate_series(1, 1000);
                 commit;
               end loop;
             end $$",
        ],
        busy: 1,
        target: TARGET,
    },
];

pub fn backlogs(server: &Server, section: &mut Section) {
    server.synchronous_commit("off");
    let jobs = scaled(40_000);
    let without = Queue::create(server, "kong_free");
    let workers = best_workers(&without, &TASK, scaled(10_000));
    let settings = format!("writing handler, synchronous_commit off, {}", told_workers(&workers));
    section.note(&format!("{settings}; {jobs} jobs are drained, of which each was added after the backlog."));
    server.cluster().reload(&["kongtask.forbidden_flags = 'held'"]);
    let mut rows = Vec::new();
    for backlog in &BACKLOGS {
        let name = format!("{} {}", number(scaled(backlog.jobs) as f64), backlog.name);
        let measured = workers.clone().and_then(|workers| {
            server.serve_nobody();
            let with = Queue::create(server, "kong_backlog");
            with.register(&TASK)?;
            make(&with, backlog)?;
            server.serve(&[&without.database, &with.database], workers + backlog.busy);
            wait_for_busy(&with, backlog.busy)?;
            let mut pair = Pair::default();
            for _ in 0..rounds() {
                pair.without.push(without.drain(&TASK, jobs)?);
                pair.with.push(with.drain(&TASK, jobs)?);
            }
            Ok(pair)
        });
        if let Ok(pair) = &measured {
            let cells =
                [rates(&pair.without, Drain::rate), rates(&pair.with, Drain::rate), number(pair.ratio(Drain::rate))];
            rows.push([vec![name.clone()], cells.to_vec()].concat());
        }
        let ratio = measured.map(|pair| pair.ratio(Drain::rate));
        section.require(&format!("drain rate with {name}, to none"), &settings, ratio, backlog.target);
    }
    section.table(&["backlog", "jobs/s without", "jobs/s with", "ratio"], rows);
    server.cluster().reload(&["kongtask.forbidden_flags = ''"]);
    server.serve_nobody();
    server.drop("kong_backlog");
    server.drop(&without.database);
}

fn make(queue: &Queue, backlog: &Backlog) -> Outcome<()> {
    let mut db = queue.connect();
    for statement in backlog.made_by {
        run(&mut db, &statement.replace("JOBS", &scaled(backlog.jobs).to_string()))?;
    }
    run(&mut db, "vacuum analyze")
}

fn wait_for_busy(queue: &Queue, busy: usize) -> Outcome<()> {
    let mut db = queue.connect();
    let count = "select count(*) from kongtask.workers where database = current_database() and job_id is not null";
    let mut last = Ok(0);
    kongtask_tests::wait_until(kongtask_tests::SOON, || {
        last = db.query_one(count, &[]).map(|row| row.get::<_, i64>(0)).map_err(told);
        last == Ok(busy as i64)
    });
    last.and_then(|n| if n == busy as i64 { Ok(()) } else { Err(format!("{n} workers are busy, not {busy}")) })
}
