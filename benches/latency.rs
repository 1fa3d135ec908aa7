//! How long it takes from the call that adds a job to the first statement of its handler, while nothing else is to do.

use crate::Outcome;
use crate::peer_process::Installed;
use crate::peers::{LOCAL_QUEUE, PLAIN, Settings, WORKER_0_17};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target, number};
use crate::server::{Server, median, rounds, run, scaled, told};
use kongtask_tests::{SOON, text, wait_until};
use postgres::Client;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOW: &str = "One job after another, each added by a statement of its own when all workers are idle again. A handler's \
    start is clock_timestamp() in its first statement, or the Node process's clock when it is entered: both are the machine's.";

const JOBS: usize = 500;
const WORKERS: usize = 4;

/// Theirs with batching at its fastest, and without.
const PEER_SETTINGS: [Settings; 2] =
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
    let task = Task::new("start", 1);
    let queue = Queue::create(server, "kong_latency");
    let peer = WORKER_0_17.install(server);
    for mode in ["on", "off"] {
        section.heading(&format!("synchronous_commit = {mode} for both"));
        server.synchronous_commit(mode);
        let mut ours = Latencies::new("kongtask".into());
        let mut theirs =
            PEER_SETTINGS.map(|settings| Latencies::new(format!("{}, {}", WORKER_0_17.name, settings.told())));
        for _ in 0..rounds() {
            ours.add(queue.register(&task).and_then(|()| {
                server.serve(&[&queue.database], WORKERS);
                one_after_another(&mut queue.connect(), &task.identifier())
            }));
            server.serve_nobody();
            for (settings, theirs) in PEER_SETTINGS.iter().zip(&mut theirs) {
                theirs.add(peer.as_ref().map_err(Clone::clone).and_then(|peer| of_peer(peer, settings)));
            }
        }
        let all: Vec<&Latencies> = [&ours].into_iter().chain(&theirs).collect();
        tell(section, &all);
        for (what, quantile) in [("median", 0.5), ("p99", 0.99)] {
            let fastest = theirs.iter().filter_map(|theirs| theirs.quantile(quantile).ok()).reduce(f64::min);
            let ratio = || Ok(ours.quantile(quantile)? / fastest.ok_or("no latencies of the peer")?);
            let what = format!("{what} latency, enqueue call to handler start, to graphile-worker 0.17.3");
            let settings = format!("synchronous_commit {mode}; kongtask.workers {WORKERS}");
            section.require(&what, &settings, ratio(), Target::AtMost(0.25));
        }
    }
    server.serve_nobody();
}

fn of_peer(peer: &Installed, settings: &Settings) -> Outcome<Vec<f64>> {
    let mut worker = peer.work("start", settings.options)?;
    let measured = worker.wait_until_ready().and_then(|()| one_after_another(&mut peer.connect(), "start"));
    let errors = worker.stop();
    measured.map_err(|error| format!("{error} {errors}"))
}

fn one_after_another(db: &mut Client, identifier: &str) -> Outcome<Vec<f64>> {
    let jobs = scaled(JOBS);
    let add = format!("select graphile_worker.add_job('{identifier}', json_build_object('n', $1::int))");
    let add = db.prepare(&add).map_err(told)?;
    run(db, "truncate started")?;
    // The first ones find the workers as they were started: they do not count.
    for n in -20..0 {
        db.query(&add, &[&n]).map_err(told)?;
        sleep(Duration::from_millis(20));
    }
    let mut called = Vec::new();
    for n in 0..jobs as i32 {
        sleep(Duration::from_millis(12));
        called.push(now());
        db.query(&add, &[&n]).map_err(told)?;
    }
    if !wait_until(SOON, || text(db, "select count(*) from started where n >= 0") == jobs.to_string()) {
        return Err(format!("not all of {jobs} jobs have started"));
    }
    let started =
        db.query("select extract(epoch from at)::float8 from started where n >= 0 order by n", &[]).map_err(told)?;
    let mut ms: Vec<f64> =
        started.iter().zip(&called).map(|(row, called)| (row.get::<_, f64>(0) - called) * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    Ok(ms)
}

fn tell(section: &mut Section, all: &[&Latencies]) {
    let row = |latencies: &&Latencies| {
        let cells = [0.5, 0.9, 0.99, 1.0].map(|quantile| latencies.quantile(quantile).map_or("failed".into(), number));
        [vec![latencies.name.clone()], cells.to_vec()].concat()
    };
    section.table(&["", "median ms", "p90 ms", "p99 ms", "greatest ms"], all.iter().map(row).collect());
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
