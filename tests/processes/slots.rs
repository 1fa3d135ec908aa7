//! Background worker slots (max_worker_processes) that are fewer than all databases would have.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use postgres::Client;
use std::time::Instant;

#[test]
fn too_few_process_slots_are_said_and_lived_with() {
    let cluster = with_note_and_nap(&["max_worker_processes = 4", "kongtask.poll_interval = '200ms'"]);
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select what from done", "1");
    cluster.wait_for_log("kongtask workers could be started in database \"postgres\"");
    cluster.wait_for_log("Increase max_worker_processes");
    assert_eq!(rows(&mut cluster.connect(), "select count(*) > 0 from kongtask.workers"), ["t"]);
    cluster.stop("fast");
}

fn settings(slots: usize) -> Vec<String> {
    // Replication has a slot of its own.
    vec![format!("max_worker_processes = {slots}"), "max_logical_replication_workers = 0".into()]
}

/// A cluster with so many databases that are served, named d1 and so on.
fn cluster(slots: usize, databases: usize) -> Cluster {
    let settings = settings(slots);
    let cluster = Cluster::with(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 1..=databases {
        cluster.sql(&format!("create database d{n}"));
        let mut db = connect(&cluster, n);
        db.batch_execute(
            "create extension kongtask; create table done (at timestamptz default clock_timestamp());
             create function note() returns void language sql as 'insert into public.done default values';
             create function rest() returns void language sql as 'insert into public.done default values; select pg_sleep(0.3)';
             select kongtask.register_task('note', 'note()'), kongtask.register_task('rest', 'rest()')",
        )
        .expect("a database");
    }
    cluster
}

fn connect(cluster: &Cluster, n: usize) -> Client {
    cluster.connect_as("postgres", &format!("d{n}"))
}

fn runs(cluster: &Cluster, n: usize) {
    let mut db = connect(cluster, n);
    let before: i64 = text(&mut db, "select count(*) from done").parse().expect("a number");
    db.batch_execute("select graphile_worker.add_job('note')").expect("add_job");
    let after = (before + 1).to_string();
    let begun = Instant::now();
    let ran = wait_until(SOON, || text(&mut db, "select count(*) from done") == after);
    assert!(ran, "d{n}\n{}", cluster.log());
    println!("d{n}: {:?}", begun.elapsed());
}

#[test]
fn a_database_with_jobs_gets_a_worker_from_those_that_idle_elsewhere() {
    for (slots, databases) in [(8, 3), (24, 7)] {
        let cluster = cluster(slots, databases);
        for n in (1..=databases).rev().chain(1..=databases) {
            runs(&cluster, n);
        }
        // Also after a start, where whoever comes first takes all.
        cluster.stop("fast");
        cluster.start();
        for n in (1..=databases).rev() {
            runs(&cluster, n);
        }
        assert_eq!(cluster.log_lines(&["ERROR", "PANIC"]), Vec::<String>::new());
    }
}

#[test]
fn a_database_with_jobs_gets_a_worker_from_one_that_is_always_busy() {
    let cluster = cluster(7, 2);
    let mut busy = connect(&cluster, 1);
    busy.batch_execute("select graphile_worker.add_job('rest') from generate_series(1, 100)").expect("add_job");
    let idle = "select count(*) from kongtask.workers where database = 'd1' and state = 'running'";
    assert!(wait_until(SOON, || text(&mut busy, idle) != "0"));
    runs(&cluster, 2);
    assert_ne!(text(&mut busy, "select count(*) from graphile_worker.jobs"), "0");
}
