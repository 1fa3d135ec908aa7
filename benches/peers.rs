//! Other queues for Postgres, each as its own documentation has it at its fastest. `scripts/bench-peers` installs them,
//! and a small program of each in benches/peers is a worker of it.

use crate::Outcome;
use crate::peer_process::Installed;
use crate::server::Server;

/// How its workers run: how many processes, and with which options of the library.
pub struct Settings {
    pub processes: usize,
    pub options: &'static str,
}

pub struct Peer {
    pub name: &'static str,
    pub database: &'static str,
    /// Its folder in target/peers.
    pub folder: &'static str,
    /// Its program in benches/peers.
    pub program: &'static str,
    /// Whether jobs are added by its function add_job, or by its program.
    pub has_add_job: bool,
    /// How many jobs it takes to tell its settings apart.
    pub trial: usize,
    pub settings: &'static [Settings],
    /// What serves jobs in queues and with keys: those of a queue run one after another, so that fetching many at once
    /// does not help. Empty for those that are not compared in this.
    pub for_queues: &'static [Settings],
}

const fn one(options: &'static str) -> Settings {
    Settings { processes: 1, options }
}

const fn two(options: &'static str) -> Settings {
    Settings { processes: 2, options }
}

/// What its documentation took for its own figures, and a variant that waits longer for more to complete at once.
pub const LOCAL_QUEUE: &str = r#"{"concurrentJobs":24,"maxPoolSize":25,"localQueue":{"size":500},"completeJobBatchDelay":0,"failJobBatchDelay":0}"#;
const LONG_LOCAL_QUEUE: &str = r#"{"concurrentJobs":24,"maxPoolSize":25,"localQueue":{"size":2000},"completeJobBatchDelay":50,"failJobBatchDelay":50}"#;

/// A job is fetched by the worker that is to run it.
pub const PLAIN: &str = r#"{"concurrentJobs":24,"maxPoolSize":25}"#;

const BY_LOCAL_QUEUE: &[Settings] = &[one(LOCAL_QUEUE), one(LONG_LOCAL_QUEUE), two(LOCAL_QUEUE), two(LONG_LOCAL_QUEUE)];

const BY_LOCAL_QUEUE_OR_NOT: &[Settings] = &[one(LOCAL_QUEUE), one(PLAIN), two(PLAIN)];

pub const WORKER_0_17: Peer = Peer {
    name: "graphile-worker 0.17.3",
    database: "graphile_worker_0_17",
    folder: "0.17.3",
    program: "graphile_worker.js",
    has_add_job: true,
    trial: 6_000,
    settings: BY_LOCAL_QUEUE,
    for_queues: BY_LOCAL_QUEUE_OR_NOT,
};

pub const WORKER_0_18: Peer = Peer {
    name: "graphile-worker 0.18.0",
    database: "graphile_worker_0_18",
    folder: "0.18.0",
    program: "graphile_worker.js",
    has_add_job: true,
    trial: 6_000,
    settings: BY_LOCAL_QUEUE,
    for_queues: BY_LOCAL_QUEUE_OR_NOT,
};

pub const WORKER_0_9: Peer = Peer {
    name: "graphile-worker 0.9.0",
    database: "graphile_worker_0_9",
    folder: "0.9.0",
    program: "graphile_worker.js",
    has_add_job: true,
    trial: 4_000,
    settings: &[one(r#"{"concurrency":24,"maxPoolSize":25}"#), two(r#"{"concurrency":10,"maxPoolSize":11}"#)],
    for_queues: &[],
};

pub const PG_BOSS: Peer = Peer {
    name: "pg-boss",
    database: "pg_boss",
    folder: "pg-boss",
    program: "pg_boss.js",
    has_add_job: false,
    trial: 6_000,
    settings: &[
        one(
            r#"{"pool":10,"work":{"batchSize":100,"localConcurrency":4,"burstWhenBatchFull":true,"pollingIntervalSeconds":0.5}}"#,
        ),
        one(
            r#"{"pool":10,"work":{"batchSize":1000,"localConcurrency":2,"burstWhenBatchFull":true,"pollingIntervalSeconds":0.5}}"#,
        ),
    ],
    for_queues: &[],
};

pub const PGQUEUER: Peer = Peer {
    name: "pgqueuer",
    database: "pgqueuer",
    folder: "python",
    program: "pgqueuer_worker.py",
    has_add_job: false,
    trial: 6_000,
    settings: &[
        one(r#"{"pool":10,"batch_size":100}"#),
        one(r#"{"pool":10,"batch_size":1000}"#),
        two(r#"{"pool":10,"batch_size":100}"#),
    ],
    for_queues: &[],
};

pub const AWA: Peer = Peer {
    name: "awa-pg",
    database: "awa_pg",
    folder: "python",
    program: "awa_worker.py",
    has_add_job: false,
    trial: 6_000,
    settings: &[
        one(r#"{"connections":20,"pool":10,"max_workers":64}"#),
        one(r#"{"connections":20,"pool":10,"max_workers":256}"#),
        one(r#"{"connections":20,"pool":10,"max_workers":256,"claimers":2}"#),
    ],
    for_queues: &[],
};

/// Jobs are fetched one by one, so that more processes may help. What is done is deleted, as by ours, but where that costs
/// more than to keep it.
pub const PROCRASTINATE: Peer = Peer {
    name: "procrastinate",
    database: "procrastinate",
    folder: "python",
    program: "procrastinate_worker.py",
    has_add_job: false,
    trial: 600,
    settings: &[
        one(r#"{"pool":10,"concurrency":10,"delete_jobs":"always"}"#),
        one(r#"{"pool":10,"concurrency":10}"#),
        one(r#"{"pool":20,"concurrency":30,"delete_jobs":"always"}"#),
        two(r#"{"pool":10,"concurrency":10,"delete_jobs":"always"}"#),
    ],
    for_queues: &[
        one(r#"{"pool":4,"concurrency":1}"#),
        one(r#"{"pool":10,"concurrency":10,"fetch_job_polling_interval":0.05}"#),
        two(r#"{"pool":4,"concurrency":1}"#),
    ],
};

impl Settings {
    pub fn told(&self) -> String {
        let options = self.options.replace('"', "").replace(',', ", ");
        format!("{} {}, {options}", self.processes, if self.processes == 1 { "process" } else { "processes" })
    }
}

impl Peer {
    /// Makes its schema, in a database of its own.
    pub fn install<'a>(&'static self, server: &'a Server) -> Outcome<Installed<'a>> {
        server.create(self.database);
        Installed::new(self, server)
    }
}
