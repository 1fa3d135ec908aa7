//! Rows of kongtask.runs in upgrades, dumps, standbys and subscribers.

use crate::{WAYS, run, with_ways};
use kongtask_tests::{Cluster, SOON, error, rows, text, wait_until};

const KEPT: &str = "select job_id, task, state, attempt, ended_at, result, error, payload, role from kongtask.runs order by job_id, ended_at";

#[test]
fn a_dump_has_the_rows_and_they_are_kept_no_longer_where_it_is_restored() {
    let cluster = with_ways(&["kongtask.workers = 1", "kongtask.databases = 'postgres, copy'"]);
    cluster.sql("select kongtask.alter_task('alone', keep_payload := true)");
    run(
        &cluster,
        "select graphile_worker.add_job('alone', '1'), graphile_worker.add_job('alone', '-1', max_attempts := 1)",
    );
    // As after turns: the table that is open is another, and one has rows of before.
    cluster.sql("select kongtask.alter_task(identifier, keep_for := '200 ms') from kongtask.tasks");
    cluster.wait_for("select count(*) from kongtask.run_tables where number = 1 and closed_at is null", "1");
    cluster.sql("select kongtask.alter_task(identifier, keep_for := '1 day') from kongtask.tasks");
    run(&cluster, "select graphile_worker.add_job('alone', '2')");
    let expected = rows(&mut cluster.connect(), KEPT);
    assert!(!expected.is_empty());
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    let without =
        cluster.client_program("pg_dump", &["-Fc", "--exclude-table-data=kongtask.runs_*", "postgres"]).stdout;
    for (database, dump, expected) in [("copy", &dump, &expected), ("empty", &without, &Vec::new())] {
        cluster.sql(&format!("create database {database}"));
        cluster.restore(dump, database, &[]);
        let mut copy = cluster.connect_as("postgres", database);
        assert_eq!(&rows(&mut copy, KEPT), expected, "{database}");
    }
    let mut copy = cluster.connect_as("postgres", "copy");
    let job = text(&mut copy, "select id from graphile_worker.add_job('alone', '3')");
    assert_eq!(text(&mut copy, &format!("select result from kongtask.wait_for({job}, '20 s')")), "6");
    copy.batch_execute("select kongtask.alter_task(identifier, keep_for := '200 ms') from kongtask.tasks")
        .expect("less");
    assert!(wait_until(SOON, || text(&mut copy, "select count(*) from kongtask.runs") == "0"), "{}", cluster.log());
}

#[test]
fn before_the_upgrade_nothing_is_kept_and_after_it_what_is_asked_for() {
    let cluster = Cluster::with(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    db.batch_execute(
        "create extension kongtask version '0.2.0'; create table did ();
         create function does() returns int language sql as 'insert into public.did default values returning 7';
         select kongtask.register_task('does', 'does()'), graphile_worker.add_job('does')",
    )
    .expect("the former version");
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from did") == "1"), "{}", cluster.log());
    db.batch_execute("alter extension kongtask update").expect("an upgrade");
    assert_eq!(rows(&mut db, "select keep, keep_for, keep_payload from kongtask.tasks"), ["none|7 days|f"]);
    db.batch_execute("select kongtask.alter_task('does', keep := 'all')").expect("an option");
    let job = text(&mut db, "select id from graphile_worker.add_job('does')");
    assert_eq!(text(&mut db, &format!("select result from kongtask.wait_for({job}, '20 s')")), "7");
    assert_eq!(text(&mut db, "select count(*) from kongtask.runs"), "1");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_standby_shows_the_rows_and_goes_on_with_them_once_it_is_promoted() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    run(&cluster, "select graphile_worker.add_job('alone', '4')");
    let ended = cluster.text("select job_id from kongtask.runs");
    let later = cluster.text("select id from graphile_worker.add_job('alone', '5', run_at := 'infinity')");
    let standby = cluster.standby();
    standby.wait_for("select count(*) from graphile_worker.jobs", "1");
    let mut db = standby.connect();
    assert_eq!(rows(&mut db, KEPT), rows(&mut cluster.connect(), KEPT));
    assert_eq!(text(&mut db, &format!("select result from kongtask.wait_for({ended})")), "8");
    let refused = error(&mut db, &format!("select kongtask.wait_for({later})"));
    assert_eq!(refused, ("55000".into(), "a standby cannot wait for jobs".into()));
    cluster.stop("fast");
    standby.promote();
    standby.wait_for("select pg_is_in_recovery()", "f");
    standby.sql(&format!("select graphile_worker.reschedule_jobs(array[{later}], now())"));
    assert_eq!(text(&mut db, &format!("select result from kongtask.wait_for({later}, '20 s')")), "10");
}

#[test]
fn a_subscriber_gets_the_rows_and_loses_them_with_its_publisher() {
    let cluster = with_ways(&["kongtask.workers = 1", "wal_level = logical"]);
    let copy = Cluster::with_extension(&["kongtask.workers = 1", "wal_level = logical"]);
    cluster.sql("create publication everything for tables in schema kongtask");
    copy.sql(&format!(
        "create subscription all_of_it connection 'host={} user=postgres dbname=postgres' publication everything",
        cluster.host()
    ));
    run(&cluster, "select graphile_worker.add_job('alone', '4')");
    copy.wait_for("select string_agg(result::text, ' ') from kongtask.runs", "8");
    cluster.sql("select kongtask.alter_task(identifier, keep_for := '200 ms') from kongtask.tasks");
    cluster.wait_for("select count(*) from kongtask.runs", "0");
    copy.wait_for("select count(*) from kongtask.runs", "0");
    copy.sql("drop subscription all_of_it");
}

#[test]
fn dropping_and_creating_the_extension_begins_anew() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    run(&cluster, "select graphile_worker.add_job('alone', '4')");
    cluster.sql("drop extension kongtask cascade; drop schema if exists graphile_worker cascade; drop table did; drop function does, does_all; drop procedure does_in_steps");
    cluster.sql("create extension kongtask");
    cluster.sql(WAYS);
    let job = cluster.text("select id from graphile_worker.add_job('alone', '6')");
    assert_eq!(cluster.text(&format!("select result from kongtask.wait_for({job}, '20 s')")), "12");
    assert_eq!(cluster.text("select count(*) from kongtask.runs"), "1");
}
