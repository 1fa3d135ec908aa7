//! The extension comes and goes: its processes follow, and none complains.

use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::{NOTE_AND_NAP, with_note_and_nap};
use kongtask_tests::{Cluster, IDLE, RUNNING, SOON, error, text, wait_until};
use std::fs;
use std::time::Duration;

#[test]
fn drop_extension_stops_the_workers_and_create_starts_them_again() {
    let cluster = with_note_and_nap(&["kongtask.shutdown_timeout = '1s'"]);
    cluster.wait_for(IDLE, "4");
    cluster.sql("select graphile_worker.add_job('nap', '60')");
    cluster.wait_for(RUNNING, "1");
    let begun = std::time::Instant::now();
    cluster.sql("drop extension kongtask");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    assert_eq!(cluster.text("select count(*) from done"), "0");
    cluster.sql("drop table done; drop function note, nap");
    for _ in 0..3 {
        cluster.sql("create extension kongtask");
        cluster.sql(NOTE_AND_NAP);
        cluster.sql("select graphile_worker.add_job('note', '1')");
        cluster.wait_for("select count(*) from done", "1");
        // In one breath.
        cluster.sql("drop extension kongtask; drop table done; drop function note, nap; create extension kongtask");
        cluster.sql(NOTE_AND_NAP);
        cluster.sql("select graphile_worker.add_job('note', '1')");
        cluster.wait_for("select count(*) from done", "1");
        cluster.sql("drop extension kongtask; drop table done; drop function note, nap");
    }
    // One that is taken back leaves everything as it was.
    cluster.sql("create extension kongtask");
    cluster.sql(NOTE_AND_NAP);
    cluster.wait_for(IDLE, "4");
    cluster.sql("begin; drop extension kongtask cascade; rollback");
    cluster.sql("select graphile_worker.add_job('note', '2')");
    cluster.wait_for("select count(*) from done", "1");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// By a statement that does not name it. Workers leave first, and nobody complains.
#[test]
fn drop_owned_takes_the_extension_and_its_processes() {
    let cluster = with_note_and_nap(&[]);
    cluster.wait_for(IDLE, "4");
    cluster.sql("create role other superuser; create role stranger login");
    cluster.sql("create database other");
    let mut db = cluster.connect_as("postgres", "other");
    db.batch_execute("set role other; create extension kongtask; reset role").expect("create");
    let schedulers = "select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'";
    cluster.wait_for(schedulers, "2");
    db.batch_execute(
        "create function busy() returns void language sql as 'select pg_sleep(0.3)';
         select kongtask.register_task('busy', 'busy()');
         select graphile_worker.add_job('busy') from generate_series(1, 8)",
    )
    .expect("jobs");
    // Whoever has no right to it disturbs nobody.
    let mut stranger = cluster.connect_as("stranger", "other");
    let pids = "select string_agg(pid::text, ',' order by pid) from pg_stat_activity where backend_type ~ 'kongtask (sch|wor)'";
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask worker'", "8");
    let before = text(&mut db, pids);
    assert_eq!(error(&mut stranger, "drop owned by other").0, "42501");
    assert_eq!(error(&mut stranger, "drop owned by stranger, other").0, "42501");
    stranger.batch_execute("drop owned by stranger").expect("nothing of the queue's");
    assert_eq!(text(&mut db, pids), before);
    db.batch_execute("drop owned by other").expect("drop owned");
    cluster.wait_for(schedulers, "1");
    assert_eq!(cluster.log_lines(&["WARNING"]), Vec::<String>::new());
    let errors = cluster.log_lines(&["ERROR", "FATAL"]);
    assert!(errors.iter().all(|line| line.contains("permission denied to drop objects")), "{errors:?}");
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

/// A process of the server's that stands still.
fn stopped_child(cluster: &Cluster) -> i32 {
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
    let pid = stopped_child(&cluster);
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
