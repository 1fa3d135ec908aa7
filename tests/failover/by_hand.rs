//! Failovers without a manager: a standby is promoted, and pg_rewind makes a standby of the old primary, as the page on failovers
//! says.

use crate::account::settle;
use crate::load::{Load, done, prepare};
use kongtask_tests::docs::blocks;
use kongtask_tests::family::Family;
use kongtask_tests::{Cluster, say, wait_until};
use std::thread;
use std::time::{Duration, Instant};

/// How many jobs each primary runs before it is lost.
const SPELL: usize = 500;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn pg_rewind_brings_the_old_primary_back_and_it_runs_nothing() {
    let conf = blocks("conf").remove(0);
    let (synchronous, settings): (Vec<&str>, Vec<&str>) =
        conf.lines().partition(|line| line.starts_with("synchronous"));
    let first = Cluster::with(&settings);
    prepare(&mut first.connect());
    let second = first.standby();
    // Both wait for whichever standby there is.
    first.reload(&synchronous);
    second.reload(&synchronous);
    let url = format!(
        "host={},{} user=postgres dbname=postgres target_session_attrs=read-write",
        first.host(),
        second.host()
    );
    let [promoted, rejoined] = [blocks("sql promoted"), blocks("sql rejoined")].map(|mut blocks| blocks.remove(0));
    let load = Load::default();
    let mut first_jobs = Vec::new();
    let looks = thread::scope(|scope| {
        let _stops = load.stops();
        for _ in 0..3 {
            scope.spawn(|| load.add(&url));
        }
        let watchers = [&first, &second].map(|cluster| {
            let url = format!("host={} user=postgres dbname=postgres", cluster.host());
            let load = &load;
            scope.spawn(move || load.watch(&url))
        });
        for (old, new) in [(&first, &second), (&second, &first)] {
            old.wait_for("select count(*) from pg_stat_replication where sync_state = 'sync'", "1");
            let before = done(&url).unwrap_or(0);
            let came = wait_until(LONG, || done(&url).is_some_and(|done| done >= before + SPELL));
            assert!(came, "no jobs run\n{}", old.log());

            assert!(Family::of(old.postmaster()).lose_all(), "a process outlives its killing");
            new.promote();
            let begun = Instant::now();
            new.run_file(&promoted, "postgres");
            new.wait_for(
                "select exists (select from done where timeline = left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))",
                "t",
            );
            first_jobs.push(begun.elapsed());

            old.rewind(new);
            old.start();
            new.wait_for("select count(*) from pg_stat_replication where state = 'streaming'", "1");
            new.run_file(&rejoined, "postgres");
        }
        first.wait_for("select count(*) from pg_stat_replication where sync_state = 'sync'", "1");
        load.stop();
        watchers.map(|watcher| watcher.join().expect("a watcher"))
    });
    let account = settle(&mut first.connect(), &load);
    say(&format!("2 failovers by hand, first jobs committed after {first_jobs:?}: {account}"));
    assert!(looks.iter().all(|looks| *looks > 0), "each was a standby, and looked at: {looks:?}");
}
