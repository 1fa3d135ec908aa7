//! What is done to the server.

use crate::load::connect;
use crate::random::Random;
use kongtask_tests::{Cluster, wait_until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    KillWorker,
    KillScheduler,
    KillLauncher,
    KillClient,
    KillPostmaster,
    TerminateWorker,
    TerminateScheduler,
    CancelWorker,
    /// Not a process: jobs that run or wait.
    CancelJobs,
    ImmediateShutdown,
    FastRestart,
}

use Fault::*;

/// What can happen to a server, and how often.
pub const ALL: &[(u64, Fault)] = &[
    (8, KillWorker),
    (2, KillScheduler),
    (1, KillLauncher),
    (2, KillClient),
    (2, KillPostmaster),
    (3, TerminateWorker),
    (1, TerminateScheduler),
    (3, CancelWorker),
    (8, CancelJobs),
    (1, ImmediateShutdown),
    (1, FastRestart),
];

/// What no process crashes of, so that the counters last.
pub const ORDERLY: &[(u64, Fault)] =
    &[(6, TerminateWorker), (2, TerminateScheduler), (6, CancelWorker), (12, CancelJobs), (1, FastRestart)];

impl Fault {
    /// Whether it is a kill -9.
    pub fn is_kill(self) -> bool {
        matches!(self, KillWorker | KillScheduler | KillLauncher | KillClient | KillPostmaster)
    }

    /// Whether the server starts anew after it.
    pub fn is_restart(self) -> bool {
        self.is_kill() || matches!(self, ImmediateShutdown | FastRestart)
    }

    /// Of which processes it takes one; those first that are wanted most.
    fn victims(self) -> &'static str {
        match self {
            KillWorker | TerminateWorker | CancelWorker => {
                "select pid from kongtask.workers where pid is not null order by state = 'running' desc, random()"
            }
            KillScheduler | TerminateScheduler => {
                "select pid from pg_stat_activity where backend_type = 'kongtask scheduler'"
            }
            KillLauncher => "select pid from pg_stat_activity where backend_type = 'kongtask launcher'",
            _ => "select pid from pg_stat_activity where usename = 'web' order by state = 'active' desc, random()",
        }
    }

    /// Does it; whether there was anything to do it to.
    fn strike(self, cluster: &Cluster) -> bool {
        match self {
            KillPostmaster => {
                cluster.kill_postmaster();
                cluster.start();
            }
            ImmediateShutdown => {
                cluster.stop("immediate");
                cluster.start();
            }
            FastRestart => {
                cluster.stop("fast");
                cluster.start();
            }
            CancelJobs => return cancel_jobs(cluster).is_some_and(|count| count > 0),
            _ => return self.strike_one(cluster).is_some(),
        }
        true
    }

    fn strike_one(self, cluster: &Cluster) -> Option<()> {
        // The server may still be on its way up, or down.
        let mut db = connect(cluster, "postgres");
        let pid: i32 = db.query(self.victims(), &[]).ok()?.first()?.get(0);
        match self {
            CancelJobs => unreachable!("it has no victim among processes"),
            CancelWorker => drop(db.execute("select pg_cancel_backend($1)", &[&pid]).ok()?),
            TerminateWorker | TerminateScheduler => drop(db.execute("select pg_terminate_backend($1)", &[&pid]).ok()?),
            _ => {
                cluster.kill_9(pid);
                // Until it is noticed: else the next would meet the server of before. If it is not, the process has ended by
                // itself a moment ago.
                let is_noticed = wait_until(Duration::from_secs(2), || db.simple_query("").is_err());
                return is_noticed.then_some(());
            }
        }
        Some(())
    }
}

/// Cancels jobs that run, and as many that wait; of a few, the cancel is rolled back. Returns how many there were.
fn cancel_jobs(cluster: &Cluster) -> Option<usize> {
    let mut db = connect(cluster, "postgres");
    let jobs = "select job_id from (select job_id from kongtask.workers where job_id is not null
        union (select id from graphile_worker.jobs where attempts < max_attempts order by random() limit 4)) jobs";
    db.batch_execute(&format!(
        "begin; savepoint s; select kongtask.cancel(job_id, 'rolled back') from ({jobs} limit 3) undone; rollback to s"
    ))
    .ok()?;
    let count = db
        .execute(
            &format!(
                "insert into cancelled select task_identifier, kongtask.cancel(job_id, 'torture')
                 from ({jobs}) cancelled left join graphile_worker.jobs on id = job_id"
            ),
            &[],
        )
        .ok()?;
    db.batch_execute("commit").ok()?;
    Some(count as usize)
}

/// Strikes until told to stop; how often what was done.
pub fn strike_until(stop: &AtomicBool, cluster: &Cluster, seed: u64, often: &[(u64, Fault)]) -> BTreeMap<Fault, usize> {
    let mut random = Random::new(seed, u64::MAX);
    let mut struck = BTreeMap::new();
    while !stop.load(SeqCst) {
        sleep(random.time(Duration::from_secs(3)));
        let fault = random.weighted(often);
        if fault.strike(cluster) {
            *struck.entry(fault).or_default() += 1;
        }
    }
    struck
}
