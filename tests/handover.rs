//! One process takes over from another, or ends, while others tell it something.

use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use postgres::Client;
use std::fs;

const IDLE: &str = "select count(*) from kongtask.workers where state = 'idle'";

/// Waits until one of the server's processes stands still; its id.
fn stopped(cluster: &Cluster, db: &mut Client) -> i32 {
    let mut found = None;
    let stands_still = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    };
    let came = wait_until(SOON, || {
        found = rows(db, "select pid from pg_stat_activity").into_iter().find(stands_still);
        found.is_some()
    });
    assert!(came, "{}", cluster.log());
    found.and_then(|pid| pid.parse().ok()).expect("a pid")
}

fn go_on(pid: i32) {
    // SAFETY: a process of a cluster of this test's.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}

#[test]
fn an_extension_that_is_created_as_a_scheduler_that_found_none_ends_is_served() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.wait_for_log("kongtask scheduler (postgres) started");
    cluster.arm("absent", "stop");
    db.batch_execute("drop extension kongtask").expect("drop extension");
    let pid = stopped(&cluster, &mut db);
    db.batch_execute("create extension kongtask").expect("create extension");
    go_on(pid);
    cluster.wait_for_log_times("kongtask scheduler (postgres) started", 2);
    cluster.sql(
        "create table done (n int); create function note() returns void language sql as 'insert into done values (1)';
         select kongtask.register_task('note', 'note()'), graphile_worker.add_job('note')",
    );
    cluster.wait_for("select count(*) from done", "1");
    cluster.wait_for(IDLE, "1");
    assert_eq!(text(&mut db, "select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'"), "1");
}
