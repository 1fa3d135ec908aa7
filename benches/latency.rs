//! How long it takes from the call that adds a job to the first statement of its handler, while nothing else is to do.

use crate::Outcome;
use crate::peer_process::Installed;
use crate::peers::{LOCAL_QUEUE, PLAIN, Peer, Settings, WORKER_0_17, WORKER_0_18};
use crate::pgbench::{Commits, Load, run_pgbench};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, median, rounds, run, scaled, told};
use kongtask_tests::{Cluster, SOON, text, wait_until};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOW: &str = "One job after another, each added by a statement of its own when all workers are idle again, by pgbench. The \
    call of add_job is clock_timestamp() in its arguments: the client's own time is not the queue's. A handler's start is \
    clock_timestamp() in its first statement, or the Node process's clock when it is entered: all are the machine's. \
    Before PostgreSQL 18, a function in SQL is parsed and planned in each transaction, before its first statement begins; \
    one in plpgsql keeps its plan.";

const JOBS: usize = 200;
const WORKERS: usize = 4;

/// The first ones find the workers as they were started: they do not count.
const FIRST: usize = 20;
/// Long enough for all workers to be idle again.
const PAUSE: Duration = Duration::from_millis(12);

/// The payload of a job whose number is the time of the call, in microseconds.
pub const NUMBER: &str = "json_build_object('n', (extract(epoch from clock_timestamp()) * 1000000)::bigint)";

const PEERS: [&Peer; 2] = [&WORKER_0_17, &WORKER_0_18];

/// Theirs with batching at its fastest, and without.
pub const PEER_SETTINGS: [Settings; 2] =
    [Settings { processes: 1, options: PLAIN }, Settings { processes: 1, options: LOCAL_QUEUE }];

/// Milliseconds of each job of all rounds, sorted.
struct Latencies {
    name: String,
    rounds: Outcome<Vec<Vec<f64>>>,
}

impl Latencies {
    fn new(name: String) -> Latencies {
        Latencies { name, rounds: Ok(Vec::new()) }
    }

    fn add(&mut self, round: Outcome<Vec<f64>>) {
        match (round, &mut self.rounds) {
            (Ok(round), Ok(rounds)) => rounds.push(round),
            (Err(error), rounds) => *rounds = Err(error),
            _ => {}
        }
    }

    /// The median of the rounds' quantiles.
    fn quantile(&self, quantile: f64) -> Outcome<f64> {
        let of = |round: &Vec<f64>| round[((round.len() - 1) as f64 * quantile).round() as usize];
        Ok(median(self.rounds.clone()?.iter().map(of).collect()))
    }

    fn curve(&self) -> (String, Vec<(f64, f64)>) {
        let points = (0..=99).filter_map(|percent| {
            let share = f64::from(percent) / 100.0;
            Some((f64::from(percent), self.quantile(share).ok()?))
        });
        (self.name.clone(), points.collect())
    }
}

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    let tasks = [Task::new("start", 1), Task::new("start_plpgsql", 1)];
    let queue = Queue::create(server, "kong_latency");
    let peers = PEERS.map(|peer| peer.install(server));
    for mode in ["on", "off"] {
        section.heading(&format!("synchronous_commit = {mode} for all"));
        server.synchronous_commit(mode);
        let mut ours = ["kongtask", "kongtask, a handler in plpgsql"].map(|name| Latencies::new(name.into()));
        let mut theirs = PEERS
            .map(|peer| PEER_SETTINGS.map(|settings| Latencies::new(format!("{}, {}", peer.name, settings.told()))));
        for _ in 0..rounds() {
            for (task, ours) in tasks.iter().zip(&mut ours) {
                ours.add(queue.register(task).and_then(|()| {
                    server.serve(&[&queue.database], WORKERS);
                    one_after_another(server, &queue.database, &task.identifier())
                }));
                server.serve_nobody();
            }
            for (peer, theirs) in peers.iter().zip(&mut theirs) {
                for (settings, theirs) in PEER_SETTINGS.iter().zip(theirs) {
                    theirs.add(peer.as_ref().map_err(Clone::clone).and_then(|peer| of_peer(peer, settings)));
                }
            }
        }
        let all: Vec<&Latencies> = ours.iter().chain(theirs.iter().flatten()).collect();
        tell(section, &all);
        for (peer, theirs) in PEERS.iter().zip(&theirs) {
            for (what, quantile) in [("median", 0.5), ("p99", 0.99)] {
                let fastest = theirs.iter().filter_map(|theirs| theirs.quantile(quantile).ok()).reduce(f64::min);
                let ratio =
                    |ours: &Latencies| Ok(ours.quantile(quantile)? / fastest.ok_or("no latencies of the peer")?);
                let what = format!("{what} latency, enqueue call to handler start, to {}", peer.name);
                let settings = format!("synchronous_commit {mode}; kongtask.workers {WORKERS}");
                let target = match (peer.name == WORKER_0_17.name, mode, what.starts_with("median")) {
                    (false, ..) => Target::None,
                    (_, "on", true) => Target::AtMost(0.3),
                    _ => Target::AtMost(0.25),
                };
                section.require(&what, &settings, ratio(&ours[0]), target);
                section.require(&format!("{what}, a handler in plpgsql"), &settings, ratio(&ours[1]), Target::None);
            }
        }
    }
    server.serve_nobody();
    PEERS.iter().for_each(|peer| server.drop(peer.database));
    server.drop(&queue.database);
}

/// How long the first job takes after a time without any, when processes have to be started for it.
pub fn after_idleness(_: &Server, section: &mut Section) {
    section.note(
        "From the call that adds a job to the first statement of its handler; a server of its own. Each job is added once \
         the processes have left that nothing is to be done for.",
    );
    const CASES: [(&str, &str, &str); 3] = [
        ("a worker waits for it", "-1", "kongtask worker"),
        ("its worker is to be started", "-1", "kongtask scheduler"),
        ("its scheduler is to be started, and then its worker", "20ms", "kongtask launcher"),
    ];
    let mut table = Vec::new();
    let mut goals = Vec::new();
    for (what, scheduler_timeout, stays) in CASES {
        let worker_timeout = if stays == "kongtask worker" { "-1" } else { "20ms" };
        let settings = [
            "fsync = on",
            "kongtask.workers = 1",
            "kongtask.poll_interval = '1h'",
            &format!("kongtask.worker_idle_timeout = '{worker_timeout}'"),
            &format!("kongtask.scheduler_idle_timeout = '{scheduler_timeout}'"),
        ];
        let cluster = Cluster::with_extension(&settings);
        cluster.sql(
            "create table started (n int, at timestamptz);
             create function start(p json) returns void language sql as
               $$ insert into started values ((p ->> 'n')::int, clock_timestamp()) $$;
             select kongtask.register_task('start', 'start(json)')",
        );
        // Those that stay are named; all that come after them have left.
        let others = format!(
            "select coalesce(max(backend_type), '') from pg_stat_activity where backend_type like 'kongtask %' \
             and backend_type > '{stays}'"
        );
        let mut db = cluster.connect();
        let mut ms = Vec::new();
        for n in 0..scaled(100).min(100) as i32 {
            cluster.wait_for(&others, "");
            let called = now();
            let add = "select graphile_worker.add_job('start', json_build_object('n', $1::int))";
            db.query(add, &[&n]).unwrap_or_else(|error| panic!("{}", told(error)));
            let started = format!("select extract(epoch from at) from started where n = {n}");
            assert!(wait_until(SOON, || !text(&mut db, &started).is_empty()), "{}", cluster.log());
            ms.push((text(&mut db, &started).parse::<f64>().expect("seconds") - called) * 1e3);
        }
        ms.sort_by(f64::total_cmp);
        let quantile = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
        table.push([vec![what.to_string()], [0.5, 0.9, 1.0].map(|share| number(quantile(share))).to_vec()].concat());
        goals.push(quantile(0.5));
    }
    section.table(&["", "median, ms", "p90, ms", "greatest, ms"], table);
    for (what, median, most) in [("a worker", goals[1], 15.0), ("a scheduler and a worker", goals[2], 50.0)] {
        let what = format!("median ms until the first job begins, with {what} to be started");
        section.require(&what, "one database, nothing else to do", Ok(median), Target::AtMost(most));
    }
}

fn of_peer(peer: &Installed, settings: &Settings) -> Outcome<Vec<f64>> {
    let mut worker = peer.work("start", settings.options)?;
    let measured =
        worker.wait_until_ready().and_then(|()| one_after_another(peer.server(), peer.peer.database, "start"));
    let errors = worker.stop();
    measured.map_err(|error| format!("{error} {errors}"))
}

fn one_after_another(server: &Server, database: &str, identifier: &str) -> Outcome<Vec<f64>> {
    let jobs = FIRST + scaled(JOBS);
    let mut db = server.connect(database);
    run(&mut db, "truncate started")?;
    let statement = format!("select graphile_worker.add_job('{identifier}', {NUMBER})");
    let load = Load { statement: &statement, connections: 1, commits: Commits::Pausing(PAUSE) };
    run_pgbench(server, database, &load, jobs)?;
    if !wait_until(SOON, || text(&mut db, "select count(*) from started") == jobs.to_string()) {
        return Err(format!("not all of {jobs} jobs have started"));
    }
    let latencies = "select extract(epoch from at)::float8 * 1e3 - n / 1e3 from started order by n offset $1";
    let rows = db.query(latencies, &[&(FIRST as i64)]).map_err(told)?;
    let mut ms: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    ms.sort_by(f64::total_cmp);
    Ok(ms)
}

fn tell(section: &mut Section, all: &[&Latencies]) {
    let row = |latencies: &&Latencies| {
        let cells = [0.5, 0.9, 0.99, 1.0].map(|quantile| latencies.quantile(quantile).map_or("failed".into(), number));
        [vec![latencies.name.clone()], cells.to_vec()].concat()
    };
    section.table(&["", "median, ms", "p90, ms", "p99, ms", "greatest, ms"], all.iter().map(row).collect());
    for latencies in all {
        if let Err(error) = &latencies.rounds {
            section.failed(&latencies.name, error);
        }
    }
    section.curves("percent of the jobs", "started within ms", &all.iter().map(|l| l.curve()).collect::<Vec<_>>());
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
