//! Which databases are served, and what can be done to one meanwhile.

use kongtask_tests::fixtures::{NOTE_AND_NAP, with_note_and_nap};
use kongtask_tests::{Cluster, IDLE, JOBS, RUNNING, SOON, text, wait_until};
use std::time::Duration;

#[test]
fn reload_changes_the_number_of_workers_and_the_databases() {
    let cluster = with_note_and_nap(&["kongtask.workers = 2"]);
    cluster.wait_for(IDLE, "2");
    cluster.reload(&["kongtask.workers = 5"]);
    cluster.wait_for(IDLE, "5");
    cluster.reload(&["kongtask.workers = 1"]);
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    cluster.reload(&["kongtask.databases = 'other, another'"]);
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.reload(&["kongtask.databases = 'other, postgres'"]);
    cluster.wait_for("select what from done", "1");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn every_database_that_has_the_extension_is_served_and_no_bad_one_stops_that() {
    let cluster = Cluster::with(&[]);
    for database in ["one", "two", "empty", "closed", "crowded"] {
        cluster.sql(&format!("create database {database}"));
    }
    cluster.sql("alter database closed allow_connections false");
    cluster.sql("alter database crowded connection limit 0");
    for database in ["one", "two"] {
        let mut db = cluster.connect_as("postgres", database);
        db.batch_execute("create extension kongtask").expect("create extension");
        db.batch_execute(NOTE_AND_NAP).expect("handlers");
        db.batch_execute("select graphile_worker.add_job('note', '1')").expect("add_job");
        let done = wait_until(SOON, || text(&mut db, "select count(*) from done") == "1");
        assert!(done, "{database}\n{}", cluster.log());
        let workers = "select count(*) from kongtask.workers where database = current_database()";
        assert!(wait_until(SOON, || text(&mut db, workers) == "4"), "{database}\n{}", cluster.log());
    }
    assert_eq!(
        cluster.text(
            "select string_agg(distinct datname, ',') from pg_stat_activity where backend_type ~ 'kongtask [sw]'"
        ),
        "one,two"
    );
    // And all of it again after a restart.
    cluster.stop("fast");
    cluster.start();
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask worker'", "8");
    // A copy of a served database is served.
    cluster.sql("create database three template one");
    let mut db = cluster.connect_as("postgres", "three");
    db.batch_execute("select pg_reload_conf()").expect("reload");
    db.batch_execute("select graphile_worker.add_job('note', '2')").expect("add_job");
    let done =
        wait_until(Duration::from_secs(90), || text(&mut db, "select count(*) from done where what = '2'") == "1");
    assert!(done, "{}", cluster.log());
    let mut one = cluster.connect_as("postgres", "one");
    one.batch_execute("select graphile_worker.add_job('note', '3')").expect("add_job");
    let done = wait_until(SOON, || text(&mut one, "select count(*) from done where what = '3'") == "1");
    assert!(done, "{}", cluster.log());
}

#[test]
fn databases_can_be_dropped_renamed_and_copied_while_workers_are_busy() {
    let cluster = Cluster::with(&["kongtask.shutdown_timeout = '1s'"]);
    cluster.sql("create database app");
    {
        let mut db = cluster.connect_as("postgres", "app");
        db.batch_execute("create extension kongtask").expect("create extension");
        db.batch_execute(NOTE_AND_NAP).expect("handlers");
        db.batch_execute("select graphile_worker.add_job('nap', '60')").expect("add_job");
        assert!(wait_until(SOON, || text(&mut db, RUNNING) == "1"));
    }
    cluster.sql("create database copy template app");
    cluster.wait_for(RUNNING_IN_APP, "1");
    cluster.sql("alter database app rename to app2");
    cluster.sql("alter database app2 rename to app");
    cluster.wait_for(RUNNING_IN_APP, "1");
    cluster.sql("drop database app");
    cluster.sql("drop database copy with (force)");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

const RUNNING_IN_APP: &str = "select count(*) from pg_stat_activity where backend_type = 'kongtask worker' and datname = 'app'
                              and state = 'active' and query like 'select public.nap(json) /* job 1, task nap, attempt 1 */'";

#[test]
fn a_statement_that_will_be_refused_stops_no_worker() {
    let cluster = with_note_and_nap(&["kongtask.shutdown_timeout = '0'"]);
    cluster.sql("create role stranger login createdb");
    cluster.sql("select graphile_worker.add_job('nap', '1.5')");
    cluster.wait_for(RUNNING, "1");
    let mut stranger = cluster.connect_as("stranger", "template1");
    for (statement, code) in [
        ("drop database postgres", "42501"),
        ("alter database postgres rename to mine", "42501"),
        ("create database mine template postgres", "42501"),
    ] {
        assert_eq!(kongtask_tests::error(&mut stranger, statement).0, code, "{statement}");
    }
    let mut stranger = cluster.connect_as("stranger", "postgres");
    assert_eq!(kongtask_tests::error(&mut stranger, "drop extension kongtask").0, "42501");
    assert_eq!(cluster.text(RUNNING), "1");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    assert!(!cluster.log().contains("was released"), "{}", cluster.log());
}
