//! Databases whose schedules come and go: made, renamed, dropped, several in one server.

use crate::{PREPARE, cluster, schedule};
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};

#[test]
fn two_databases_of_a_server_fire_their_own() {
    let cluster = cluster(&[]);
    cluster.sql("create database second");
    let mut second = cluster.connect_as("postgres", "second");
    second.batch_execute("create schema jobs_q; create extension kongtask schema jobs_q").expect("the extension");
    second.batch_execute(PREPARE).expect("a task");
    second
        .batch_execute("select kongtask.schedule('s', '*/2 * * * * *', 'note', '{\"name\": \"second\"}')")
        .expect("a schedule");
    schedule(&cluster, "s", "* * * * * *", "");
    cluster.wait_for("select count(*) >= 4 from done", "t");
    assert!(wait_until(SOON, || text(&mut second, "select count(*) >= 2 from done") == "t"));
    for (db, seconds, name) in [(&mut cluster.connect(), 1, "s"), (&mut second, 2, "second")] {
        let account = format!(
            "select distinct name, count(*) over () - count(*) filter (where mod(extract(epoch from ts)::int, {seconds}) = 0) over (),
               (select extract(epoch from max(ts) - min(ts))::int / {seconds} + 1 - count(*) from done) from done"
        );
        assert_eq!(rows(db, &account), [format!("{name}|0|0")]);
    }
    // One that goes is not missed by the other.
    second.batch_execute("drop extension kongtask").expect("drop");
    let fired = text(&mut second, "select count(*) from done");
    cluster.wait_for("select count(*) >= 7 from done", "t");
    assert_eq!(text(&mut second, "select count(*) from done"), fired);
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn a_schema_that_is_renamed_while_they_fire_costs_no_instant() {
    let cluster = cluster(&[]);
    schedule(&cluster, "s", "* * * * * *", "");
    for (old, new) in [("graphile_worker", "jobs_q"), ("jobs_q", "graphile_worker")] {
        cluster.wait_for("select count(*) >= 2 from done", "t");
        cluster.sql(&format!("alter schema {old} rename to {new}"));
        let later = format!("select count(*) >= 2 from done where ts > '{}'", cluster.text("select now()"));
        cluster.wait_for(&later, "t");
        // The view, and what is called by hand, go on.
        assert_eq!(
            cluster.text(
                "select count(*) from kongtask.schedules where last_run_at > now() - interval '5 s' and problem is null"
            ),
            "1"
        );
        cluster.sql("select kongtask.run_schedule('s')");
    }
    cluster.sql("select kongtask.alter_schedule('s', active := false)");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    // But for those by hand.
    let on_the_second = "select count(*), count(distinct ts), extract(epoch from max(ts) - min(ts))::int + 1 from done where ts = date_trunc('second', ts)";
    let found = rows(&mut cluster.connect(), on_the_second);
    let numbers: Vec<&str> = found[0].split('|').collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{found:?}");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn jobs_of_a_task_that_is_unregistered_wait_until_it_is_registered_again() {
    let cluster = cluster(&[]);
    schedule(&cluster, "s", "* * * * * *", "");
    cluster.wait_for("select count(*) >= 1 from done", "t");
    cluster.sql("select kongtask.unregister_task('note')");
    cluster.wait_for("select count(*) >= 2 from graphile_worker.jobs", "t");
    assert_eq!(
        cluster.text("select problem from kongtask.schedules"),
        "task \"note\" is not registered in this database: only external workers run its jobs"
    );
    cluster.sql("select kongtask.register_task('note', 'note(json)')");
    cluster.wait_for("select problem is null from kongtask.schedules", "t");
    cluster.sql("select kongtask.alter_schedule('s', active := false)");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.text(crate::CONSECUTIVE), "t");
}

#[test]
fn an_upgrade_makes_schedules_and_a_drop_while_they_fire_ends_them() {
    let cluster = Cluster::with(&["kongtask.workers = 2"]);
    cluster.sql("create extension kongtask version '0.2.0'");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "1");
    cluster.sql("alter extension kongtask update");
    cluster.sql(PREPARE);
    for n in 0..50 {
        schedule(&cluster, &format!("s{n}"), "* * * * * *", "");
    }
    cluster.wait_for("select count(distinct name) from done", "50");
    cluster.sql("drop extension kongtask cascade");
    assert_eq!(cluster.text("select count(*) - count(distinct (name, ts)) from done"), "0");
    cluster.sql("create extension kongtask; drop table done; drop function note; drop function nap");
    cluster.sql(PREPARE);
    schedule(&cluster, "again", "* * * * * *", "");
    cluster.wait_for("select count(*) > 1 from done", "t");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "PANIC"]), Vec::<String>::new());
}
