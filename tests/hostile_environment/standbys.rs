//! Standbys, promotion, and primaries whose standby is gone.

use crate::{Stops, load};
use kongtask_tests::every_kind::{self, drains_once};
use kongtask_tests::fixtures::{with_every_kind, with_note_and_nap};
use kongtask_tests::{IDLE, JOBS, LOCKED, RUNNING, SOON, error, text, wait_until};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_standby_is_idle_and_works_once_promoted() {
    let cluster = with_note_and_nap(&["wal_level = replica", "max_wal_senders = 4", "kongtask.poll_interval = '1h'"]);
    cluster.reload(&["kongtask.databases = ''"]);
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "0");
    let standby = cluster.standby();
    standby.configure(&["kongtask.databases = '*'"]);
    standby.sql("select pg_reload_conf()");
    cluster.sql("select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 10) n");
    standby.wait_for(JOBS, "10");
    let mut db = standby.connect();
    assert_eq!(text(&mut db, "select count(*) from pg_stat_activity where backend_type like 'kongtask%'"), "0");
    assert_eq!(kongtask_tests::error(&mut db, "select graphile_worker.add_job('note')").0, "25006");
    assert_eq!(text(&mut db, "select count(*) from kongtask.workers"), "0");
    drop(db);
    cluster.stop("immediate");
    standby.promote();
    standby.wait_for("select count(*) from done", "10");
    standby.wait_for(JOBS, "0");
}

const REPLICATED: [&str; 3] = ["wal_level = replica", "max_wal_senders = 4", "kongtask.shutdown_timeout = '1s'"];

#[test]
fn everything_that_writes_refuses_on_a_standby() {
    let cluster = with_every_kind(&REPLICATED);
    cluster.sql("select graphile_worker.add_job('elsewhere', job_key := 'k')");
    let standby = cluster.standby();
    let mut db = standby.connect();
    for call in [
        "graphile_worker.add_job('note')",
        "graphile_worker.add_jobs(array[('note', null, null, null, null, null, null, null)]::graphile_worker.job_spec[])",
        "graphile_worker.get_job('an external worker')",
        "graphile_worker.complete_job('an external worker', 1)",
        "graphile_worker.fail_job('an external worker', 1, 'no')",
        "graphile_worker.complete_jobs('{1}')",
        "graphile_worker.permanently_fail_jobs('{1}')",
        "graphile_worker.reschedule_jobs('{1}', run_at := now())",
        "graphile_worker.remove_job('k')",
        "graphile_worker.force_unlock_workers('{me}')",
        "kongtask.register_task('note', 'note(json)')",
        "kongtask.unregister_task('note')",
    ] {
        assert_eq!(error(&mut db, &format!("select {call}")).0, "25006", "{call}");
    }
    assert_eq!(text(&mut db, "select count(*) from pg_stat_activity where backend_type like 'kongtask%'"), "0");
}

/// Of what was replicated: the primary may know of more.
#[test]
fn what_was_replicated_runs_once_after_the_primary_died_under_load() {
    let cluster = with_every_kind(&REPLICATED);
    let standby = cluster.standby();
    let (stop, added) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| load(&cluster, &stop, &added));
        let _stops = Stops(&stop);
        // Retries, queues and keys among them are under way.
        standby.wait_for("select count(*) >= 2000 from done", "t");
        cluster.kill_9(cluster.postmaster());
    });
    standby.promote();
    let mut db = standby.connect();
    let begun = Instant::now();
    standby.wait_for("select count(*) > 0 from kongtask.workers where state in ('idle', 'running')", "t");
    let came = wait_until(SOON, || text(&mut db, LOCKED) == "0" || text(&mut db, RUNNING) != "0");
    assert!(came && begun.elapsed() < SOON, "{:?}\n{}", begun.elapsed(), standby.log());
    // A transaction of 20 jobs came over as a whole or not at all.
    let total = "select (select count(*) from done) + (select count(*) from graphile_worker.jobs)";
    let count: usize = text(&mut db, total).parse().expect("a number");
    assert_eq!(count % 20, 0);
    drains_once(&standby, count);
    assert_eq!(standby.log_lines(&["ERROR", "WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn a_dead_synchronous_standby_holds_up_commits_and_no_shutdown() {
    let cluster = with_every_kind(&REPLICATED);
    cluster.wait_for(IDLE, "4");
    cluster.sql("alter role postgres set synchronous_commit = local");
    cluster.reload(&["synchronous_standby_names = 'nobody'"]);
    let mut db = cluster.connect();
    assert!(wait_until(SOON, || text(&mut db, "show synchronous_standby_names") == "nobody"));
    every_kind::add(&mut db, 1).expect("add_job");
    cluster.wait_for(
        "select count(*) > 0 from pg_stat_activity where backend_type = 'kongtask worker' and wait_event = 'SyncRep'",
        "t",
    );
    drop(db);
    let took = cluster.stop("fast");
    assert!(took < Duration::from_secs(1 + 4), "{took:?}\n{}", cluster.log());
    cluster.configure(&["synchronous_standby_names = ''"]);
    cluster.start();
    drains_once(&cluster, 20);
}
