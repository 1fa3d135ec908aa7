//! Exactly once, whatever dies: enqueuers promise jobs, and everything that can be killed is killed, at random, for
//! TORTURE_SECONDS. Then it is left in peace, and every promise that was committed must have been kept once.
//!
//! A crash resets the counters of what became of jobs. So the same is done without crashes, and what the counters say
//! must agree with what was promised and done, and with the log.
//!
//! Some tasks are limited: no more of their jobs may run at once, and begin in a time, than their limits say.
//!
//! A key's promises are kept by the job that they gave their payloads to: of those of one job, the last.

mod account;
mod counters;
mod faults;
mod limits;
mod load;
mod pauses;
mod random;

use faults::Fault;
use kongtask_tests::{Cluster, say};
use random::Random;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const ENQUEUERS: u64 = 4;

fn duration() -> Duration {
    let given = std::env::var("TORTURE_SECONDS").ok();
    Duration::from_secs(given.map_or(45, |seconds| seconds.parse().expect("TORTURE_SECONDS is a number")))
}

#[test]
fn every_committed_promise_is_kept_once_whatever_is_killed() {
    torture(faults::ALL);
}

#[test]
fn the_counters_agree_with_what_was_done_where_nothing_crashes() {
    let (seed, cluster) = torture(faults::ORDERLY);
    let (says, wrong) = counters::compare(&cluster);
    say(&format!("torture: {says}"));
    assert_eq!(wrong, Vec::<String>::new(), "SEED={seed}");
}

/// Does it; with what seed, and to what server.
fn torture(often: &[(u64, Fault)]) -> (u64, Cluster) {
    let (seed, duration) = (Random::seed(), duration());
    say(&format!("torture: {} s, SEED={seed}", duration.as_secs()));
    let cluster =
        Cluster::with_extension(&["kongtask.shutdown_timeout = '1s'", "kongtask.worker_idle_timeout = '20ms'"]);
    cluster.sql(include_str!("schema.sql"));
    let stop = AtomicBool::new(false);
    let (accounts, struck, paused) = thread::scope(|scope| {
        let (stop, cluster) = (&stop, &cluster);
        let enqueuers: Vec<_> = (1..=ENQUEUERS)
            .map(|number| scope.spawn(move || load::promise_until(stop, cluster, seed, number)))
            .collect();
        let strikes = scope.spawn(move || faults::strike_until(stop, cluster, seed, often));
        let pauses = scope.spawn(move || pauses::pause_until(stop, cluster, seed));
        let begun = Instant::now();
        // One that fails has the others end as well.
        while begun.elapsed() < duration
            && !strikes.is_finished()
            && !pauses.is_finished()
            && !enqueuers.iter().any(|e| e.is_finished())
        {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, SeqCst);
        let struck = strikes.join().expect("faults");
        let accounts: Vec<_> = enqueuers.into_iter().map(|enqueuer| enqueuer.join().expect("an enqueuer")).collect();
        (accounts, struck, pauses.join().expect("pauses"))
    });
    let begun = Instant::now();
    let (revived, left) = account::drain(&cluster);
    let drained = begun.elapsed();
    let (promises, mut wrong) = account::tally(&cluster, &accounts);

    let count = |is: fn(Fault) -> bool| struck.iter().filter(|(fault, _)| is(**fault)).map(|(_, n)| n).sum::<usize>();
    say(&format!("torture: {promises}; {left} stuck; {paused} pauses"));
    say(&format!("torture: {} kills, {} restarts: {struck:?}", count(Fault::is_kill), count(Fault::is_restart)));
    let undone: usize = accounts.iter().map(|account| account.undone.len()).sum();
    let in_doubt: usize = accounts.iter().map(|account| account.in_doubt).sum();
    say(&format!(
        "torture: {undone} jobs rolled back, {in_doubt} commits in doubt, {revived:?}, drained in {:.1} s",
        drained.as_secs_f64()
    ));

    let (limited, exceeded) = limits::tally(&cluster);
    say(&format!("torture: {limited}"));
    wrong.extend(exceeded);
    wrong.extend(crashes_of_its_own(&cluster));
    assert_eq!(wrong, Vec::<String>::new(), "SEED={seed}");
    cluster.check_indexes();
    (seed, cluster)
}

/// Of processes that ended by themselves, what the log says.
fn crashes_of_its_own(cluster: &Cluster) -> Vec<String> {
    let is_one = |line: &str| {
        line.contains(" PANIC:  ")
            || line.contains("was terminated by signal") && !line.contains("was terminated by signal 9")
    };
    cluster.log().lines().filter(|line| is_one(line)).map(str::to_string).collect()
}
