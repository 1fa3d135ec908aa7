//! Enqueuers: each promises jobs in transactions of its own, whatever becomes of its connection.

use crate::random::Random;
use kongtask_tests::{Cluster, describe, wait_until};
use postgres::{Client, error::SqlState};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// No more are promised while as many jobs wait.
const ENOUGH: i64 = 4000;

/// The longest time between two transactions of an enqueuer.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a server may take to be back.
const BACK: Duration = Duration::from_secs(60);

/// Of what a server's end leaves in doubt, what became of it; of all else, what the server said.
#[derive(Default)]
pub struct Account {
    pub committed: Vec<i64>,
    pub undone: Vec<i64>,
    /// Transactions of which it had to be looked up whether they were committed.
    pub in_doubt: usize,
}

pub struct Enqueuer<'a> {
    cluster: &'a Cluster,
    number: u64,
    random: Random,
    /// The last promise made.
    last: i64,
    account: Account,
}

/// The promises of a transaction that has begun.
#[derive(Default)]
struct Open {
    kept: Vec<i64>,
    undone: Vec<i64>,
}

/// Promises jobs until told to stop; what it has promised.
pub fn promise_until(stop: &AtomicBool, cluster: &Cluster, seed: u64, number: u64) -> Account {
    let mut this = Enqueuer {
        cluster,
        number,
        random: Random::new(seed, number),
        last: number as i64 * 1_000_000_000,
        account: Account::default(),
    };
    let mut db = connect(cluster, "web");
    while !stop.load(SeqCst) {
        std::thread::sleep(this.random.time(PAUSE));
        if this.transaction(&mut db).is_err() {
            db = connect(cluster, "web");
        }
    }
    this.account
}

/// Connects as soon as the server lets us.
pub fn connect(cluster: &Cluster, role: &str) -> Client {
    let mut db = None;
    let came = wait_until(BACK, || {
        db = cluster.try_connect_as(role, "postgres").ok();
        db.is_some()
    });
    assert!(came, "no server\n{}", cluster.log());
    db.expect("a connection")
}

impl Enqueuer<'_> {
    /// One transaction; an error if the connection is lost.
    fn transaction(&mut self, db: &mut Client) -> Result<(), postgres::Error> {
        let mut open = Open::default();
        let done = self.steps(db, &mut open);
        self.account.undone.append(&mut open.undone);
        match done {
            Ok(true) => {
                let answer = db.batch_execute("commit");
                // An answer that is not yes, or that is not heard, leaves open whether it was committed.
                let is_heard = answer.is_ok() && !self.random.once_in(50);
                self.account.in_doubt += usize::from(!is_heard);
                let is_committed = is_heard || self.is_committed(&open.kept);
                assert!(is_committed || answer.is_err(), "a commit is gone: {:?}", open.kept);
                let account = if is_committed { &mut self.account.committed } else { &mut self.account.undone };
                account.append(&mut open.kept);
                answer
            }
            Ok(false) => {
                self.account.undone.append(&mut open.kept);
                db.batch_execute("rollback")
            }
            Err(error) => {
                self.account.undone.append(&mut open.kept);
                assert!(is_expected(&error), "{}\n{}", describe(&error), self.cluster.log());
                db.batch_execute("rollback")
            }
        }
    }

    /// Begins, and promises; whether to commit.
    fn steps(&mut self, db: &mut Client, open: &mut Open) -> Result<bool, postgres::Error> {
        self.leave_time(db)?;
        db.batch_execute("begin")?;
        for _ in 0..=self.random.below(4) {
            if self.random.once_in(5) {
                let mut inner = Open::default();
                db.batch_execute("savepoint s")?;
                let done = self.promise(db, &mut inner);
                open.undone.append(&mut inner.kept);
                done?;
                db.batch_execute("rollback to s")?;
            }
            self.promise(db, open)?;
        }
        Ok(!self.random.once_in(10))
    }

    /// Promises some jobs of a kind.
    fn promise(&mut self, db: &mut Client, open: &mut Open) -> Result<(), postgres::Error> {
        let (task, most) = self.random.weighted(&[
            (20, ("quick", 40)),
            (10, ("batched", 100)),
            (10, ("set", 150)),
            (6, ("rows", 150)),
            (6, ("add_jobs", 50)),
            (5, ("slow", 1)),
            (10, ("failing", 3)),
            (10, ("chain", 10)),
            (15, ("keyed", 4)),
            (15, ("queued", 8)),
            (6, ("limited", 12)),
            (8, ("tenant", 12)),
            (4, ("tenant_claimed", 12)),
            (3, ("tenant_batch", 30)),
            (3, ("tenant_set", 30)),
            (2, ("paced", 30)),
        ]);
        let (first, count) = (self.last + 1, 1 + self.random.below(most) as i64);
        self.last += count;
        let ids = first..=self.last;
        open.kept.extend(ids.clone());
        let promises = format!("generate_series({first}, {}) n", self.last);
        let payload = "json_build_object('promise', n)";
        let jobs = match task {
            "add_jobs" => format!(
                "graphile_worker.add_jobs(array(select
                   ('quick', {payload}, null, null, 1000, null, null, null)::graphile_worker.job_spec from {promises})) job,
                 lateral (select (job.payload ->> 'promise')::bigint) promise (n)"
            ),
            // In the order of their keys, lest enqueuers wait for each other in a circle.
            "keyed" => {
                let mode = self.random.weighted(&[(6, "replace"), (3, "preserve_run_at"), (1, "unsafe_dedupe")]);
                let key = self.random.below(6);
                format!(
                    "{promises}, graphile_worker.add_job('keyed', {payload}, max_attempts := 1000,
                       job_key := 'key ' || {key} + n - {first}, job_key_mode := '{mode}',
                       run_at := now() + {} * interval '1 ms') job",
                    self.random.below(20)
                )
            }
            // Each queue has one enqueuer, so that the order of ids is that of the promises.
            "queued" => format!(
                "{promises}, graphile_worker.add_job(case when n % 3 = 0 then 'queued_beta' else 'queued_alpha' end, {payload},
                   queue_name := 'queue {}', run_at := '2020-01-01', max_attempts := 1000) job",
                self.number * 2 + self.random.below(2)
            ),
            "tenant" | "tenant_claimed" | "tenant_batch" | "tenant_set" => format!(
                "{promises}, graphile_worker.add_job('{task}', json_build_object('promise', n, 'tenant', n % 3),
                   queue_name := case when n % 10 = 0 then 'tenants {}' end, max_attempts := 1000) job",
                self.number
            ),
            _ => format!(
                "{promises}, graphile_worker.add_job('{task}', {payload}, max_attempts := 1000, priority := {}) job",
                self.random.below(3)
            ),
        };
        db.batch_execute(&format!(
            "insert into promise select n, job.task_identifier, job.queue_name, job.id, job.revision,
               job.payload ->> 'promise' = n::text from {jobs}"
        ))
    }

    /// Waits while there is more than enough to do.
    fn leave_time(&self, db: &mut Client) -> Result<(), postgres::Error> {
        loop {
            let row = db.query_one("select waiting($1)", &[&ENOUGH])?;
            if row.get::<_, i64>(0) < ENOUGH {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the transaction with these promises was committed: they are there, all or none.
    fn is_committed(&self, promises: &[i64]) -> bool {
        let mut found = None;
        let asked = wait_until(BACK, || {
            let answer = connect(self.cluster, "web")
                .query_one("select count(distinct id) from promise where id = any($1)", &[&promises]);
            found = answer.ok().map(|row| row.get::<_, i64>(0));
            found.is_some()
        });
        assert!(asked, "no answer\n{}", self.cluster.log());
        let all = promises.len() as i64;
        assert!(found == Some(0) || found == Some(all), "{found:?} of {all} promises of a transaction");
        found == Some(all)
    }
}

/// The server goes, or two enqueuers met each other in a circle.
fn is_expected(error: &postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P") || *code == SqlState::T_R_DEADLOCK_DETECTED)
}
