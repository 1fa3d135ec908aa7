//! The extension goes while processes of ours begin, or run: that is no error of anybody's.

use kongtask_tests::{Cluster, SOON, text, wait_until};
use std::fs;

/// A process of the server's that stands still.
fn stopped(cluster: &Cluster) -> i32 {
    let postmaster = cluster.postmaster().to_string();
    let mut found = None;
    let came = wait_until(SOON, || {
        let processes =
            fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        found = processes.filter_map(|name| name.parse().ok()).find(|pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            fields.next() == Some("T") && fields.next() == Some(&*postmaster)
        });
        found.is_some()
    });
    assert!(came, "{}", cluster.log());
    found.expect("a process")
}

fn go_on(pid: i32) {
    // SAFETY: a process of the cluster's.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}

/// Waits until a process has ended.
fn wait_for_the_end_of(pid: i32, cluster: &Cluster) {
    let is_gone = || !fs::exists(format!("/proc/{pid}")).expect("/proc");
    assert!(wait_until(SOON, is_gone), "{}", cluster.log());
}

/// A database where a scheduler comes to a point, and stands still there.
fn with_a_scheduler_that_stops(point: &str) -> (Cluster, i32) {
    let cluster = Cluster::with_faults(&["kongtask.shutdown_timeout = 0"]);
    cluster.wait_for_log("kongtask scheduler (postgres) started");
    cluster.sql("create database other");
    cluster.arm(point, "stop");
    cluster.connect_as("postgres", "other").batch_execute("create extension kongtask").expect("create");
    let pid = stopped(&cluster);
    (cluster, pid)
}

/// Nothing is said of it, and the database is served again when the extension is back.
fn assert_is_well(cluster: &Cluster) {
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
    cluster.connect_as("postgres", "other").batch_execute("create extension kongtask").expect("create");
    cluster.wait_for_log("kongtask scheduler (other) started");
}

#[test]
fn a_scheduler_that_starts_while_the_extension_is_dropped_leaves() {
    let (cluster, pid) = with_a_scheduler_that_stops("starting");
    let mut db = cluster.connect_as("postgres", "other");
    db.batch_execute("begin; drop extension kongtask; drop schema graphile_worker").expect("drop");
    go_on(pid);
    // Were it to stay, it would wait for the tables.
    let waits = format!("select count(*) from pg_locks where pid = {pid} and not granted");
    let decided = || text(&mut cluster.connect(), &waits) == "1" || !fs::exists(format!("/proc/{pid}")).expect("/proc");
    assert!(wait_until(SOON, decided), "{}", cluster.log());
    db.batch_execute("commit").expect("commit");
    wait_for_the_end_of(pid, &cluster);
    assert_is_well(&cluster);
}

#[test]
fn a_scheduler_whose_extension_is_gone_says_nothing() {
    let (cluster, pid) = with_a_scheduler_that_stops("introduced");
    // It is waited for, but not for ever.
    cluster
        .connect_as("postgres", "other")
        .batch_execute("drop extension kongtask; drop schema graphile_worker")
        .expect("drop");
    go_on(pid);
    wait_for_the_end_of(pid, &cluster);
    assert_is_well(&cluster);
}
