//! What fell due while no scheduler of the database ran.

use crate::{PREPARE, cluster, schedule};
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::shifted_clock::ShiftedClock;
use kongtask_tests::{Cluster, SOON, error, rows, text, wait_until};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn what_is_missed_is_skipped_made_up_for_once_or_all() {
    let cluster = cluster(&[]);
    schedule(&cluster, "skip", "* * * * * *", "");
    schedule(&cluster, "once", "* * * * * *", ", missed := 'once'");
    schedule(&cluster, "all", "* * * * * *", ", missed := 'all'");
    schedule(&cluster, "recent", "* * * * * *", ", missed := 'all', missed_within := '2 s'");
    cluster.wait_for("select count(*) from done where name = 'recent' having count(*) > 1", "2");
    cluster.stop("fast");
    sleep(Duration::from_secs(5));
    cluster.start();
    cluster.wait_for("select count(distinct name) from done where not backfilled and ts > pg_postmaster_start_time() + interval '2 s'", "4");
    let mut db = cluster.connect();
    let backfilled = "select name, count(*) from done where backfilled group by name order by name";
    let found = rows(&mut db, backfilled);
    let number = |name: &str| -> i64 {
        let of = |row: &String| row.strip_prefix(&format!("{name}|")).map(|n| n.parse().expect("a number"));
        found.iter().find_map(of).unwrap_or(0)
    };
    assert_eq!((number("skip"), number("once")), (0, 1), "{found:?}");
    assert!((4..=8).contains(&number("all")) && (1..=3).contains(&number("recent")), "{found:?}");
    let missed = rows(&mut db, "select missed_count from kongtask.schedules order by name");
    let of_all = number("all");
    assert_eq!(missed[0], "0", "{missed:?}");
    // The scheduler hears of them one after the other, and begins once.
    assert_eq!((missed[1].parse::<i64>().expect("a number") - (of_all - 1)).abs(), 0, "{missed:?} {found:?}");
    assert_eq!(text(&mut db, "select count(*) - count(distinct (name, ts)) from done"), "0");
    let gaps = "select count(*) = extract(epoch from max(ts) - min(ts)) + 1 from done where name = 'all'";
    assert_eq!(text(&mut db, gaps), "t");
}

#[test]
fn a_new_schedule_never_fires_for_the_past() {
    let cluster = cluster(&[]);
    // Committed long after it was made.
    cluster.sql(
        "begin; select kongtask.schedule('new', '* * * * * *', 'note', '{\"name\": \"new\"}', missed := 'all');
         select pg_sleep(3); commit; create table committed as select clock_timestamp() as at",
    );
    cluster.wait_for("select count(*) > 1 from done", "t");
    assert_eq!(cluster.text("select min(ts) > max(committed.at) - interval '0.1 s' from done, committed"), "t");
    // And one that was not active misses nothing.
    cluster.sql("select kongtask.alter_schedule('new', active := false); truncate done");
    sleep(Duration::from_secs(2));
    cluster.sql("truncate committed; insert into committed values (clock_timestamp()); select kongtask.alter_schedule('new', active := true)");
    cluster.wait_for("select count(*) > 1 from done", "t");
    assert_eq!(cluster.text("select min(ts) > max(committed.at) from done, committed"), "t");
}

#[test]
fn a_dump_holds_schedules_and_a_restore_goes_on_from_what_ran_last() {
    let cluster = cluster(&["kongtask.databases = 'postgres, restored'"]);
    schedule(&cluster, "all", "* * * * * *", ", missed := 'all'");
    cluster.wait_for("select count(*) > 1 from done", "t");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    let mut before = cluster.connect();
    let before_schema = snapshot(&mut before, "graphile_worker");
    // Time passes that nothing runs in.
    sleep(Duration::from_millis(2500));
    cluster.sql("create database restored");
    cluster.restore(&dump, "restored", &[]);
    let mut db = cluster.connect_as("postgres", "restored");
    assert_same("a dump", &snapshot(&mut db, "graphile_worker"), &before_schema);
    let whole = "select count(*) = count(distinct ts) and count(*) = extract(epoch from max(ts) - min(ts)) + 1 and max(ts) > now() - interval '2 s'
      and bool_or(backfilled) from done";
    assert!(wait_until(SOON, || text(&mut db, whole) == "t"), "{:?}", rows(&mut db, "select * from done"));
}

#[test]
fn a_clock_that_jumps_fires_nothing_twice_and_is_caught_up_with() {
    const HOUR: i64 = 3600;
    let cluster = Cluster::stopped(&["kongtask.workers = 2", "kongtask.poll_interval = '500ms'"]);
    let mut clock = ShiftedClock::of(&cluster);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    cluster.sql(PREPARE);
    schedule(&cluster, "some", "* * * * *", "");
    schedule(&cluster, "all", "* * * * *", ", missed := 'all'");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "1");
    let count = |name: &str| format!("select count(*) from done where name = '{name}'");
    let at_least = |name: &str, least: i64| cluster.wait_for(&format!("select ({}) >= {least}", count(name)), "t");
    clock.shift(HOUR);
    at_least("some", 60);
    at_least("all", 60);
    clock.shift(0);
    sleep(Duration::from_secs(2));
    assert!(count_of(&cluster, &count("some")) <= 61);
    clock.shift(6 * HOUR);
    at_least("all", 360);
    cluster.wait_for("select missed_count between 238 and 241 from kongtask.schedules where name = 'some'", "t");
    at_least("some", 120);
    clock.shift(HOUR);
    sleep(Duration::from_secs(2));
    assert_eq!(
        cluster.text("select count(*) - count(distinct (name, ts)) + count(*) filter (where backfilled) from done"),
        "0"
    );
    assert!(count_of(&cluster, &count("some")) <= 122 && count_of(&cluster, &count("all")) <= 362);
}

fn count_of(cluster: &Cluster, query: &str) -> i64 {
    cluster.text(query).parse().expect("a number")
}

/// The same schedule in three ways of what is missed.
fn in_three_ways(cluster: &Cluster, cron: &str) {
    for missed in ["skip", "once", "all"] {
        schedule(cluster, missed, cron, &format!(", missed := '{missed}'"));
    }
}

#[test]
fn a_promoted_standby_goes_on_from_what_was_replicated() {
    let cluster = cluster(&["wal_level = replica", "max_wal_senders = 4"]);
    in_three_ways(&cluster, "* * * * * *");
    let standby = cluster.standby();
    cluster.wait_for("select count(distinct name) from done", "3");
    standby.wait_for("select count(*) >= 6 from done", "t");
    // It fires nothing, and it knows of no scheduler that lived.
    assert_eq!(standby.text("select count(*) from pg_stat_activity where backend_type like 'kongtask%'"), "0");
    assert_eq!(
        standby.text("select count(*) from kongtask.schedules where next_run_at > now() and problem is null"),
        "3"
    );
    assert_eq!(error(&mut standby.connect(), "select kongtask.schedule('new', '@daily', 'note')").0, "25006");
    cluster.kill_postmaster();
    let last = standby.text("select max(last_execution) from graphile_worker.known_crontabs");
    // Three instants fall due while there is no primary.
    standby.wait_for(&format!("select now() > '{last}'::timestamptz + interval '3.5 s'"), "t");
    let promoted = standby.text("select now()");
    standby.sql("select pg_promote()");
    let live = format!("select count(distinct name) from done where not backfilled and ts > '{promoted}'");
    standby.wait_for(&live, "3");
    standby.sql("select kongtask.alter_schedule(name, active := false) from kongtask.schedules");
    standby.wait_for("select count(*) from graphile_worker.jobs", "0");
    let mut db = standby.connect();
    let account = "select name, count(*) filter (where backfilled), count(*) - count(distinct ts), missed_count,
        extract(epoch from max(ts) - min(ts))::int + 1 - count(*) from done join kongtask.schedules using (name)
        group by name, missed_count order by name";
    let found = rows(&mut db, account);
    let [all, once, skip] = [0, 1, 2].map(|n| {
        found[n].split('|').skip(1).map(|number| number.parse::<i64>().expect("a number")).collect::<Vec<_>>()
    });
    // Backfilled, twice, missed, gaps.
    assert!(all[0] >= 3 && all[1..] == [0, 0, 0], "{found:?}");
    assert!(once[0] == 1 && once[1] == 0 && once[2] >= 2 && once[2] == once[3], "{found:?}");
    assert!(skip[0] == 0 && skip[1] == 0 && skip[2] >= 3 && skip[2] == skip[3], "{found:?}");
}

#[test]
fn a_restore_of_yesterdays_dump_makes_up_for_a_day_as_each_schedule_says() {
    let cluster = Cluster::stopped(&[
        "kongtask.workers = 2",
        "kongtask.poll_interval = '500ms'",
        "kongtask.databases = 'postgres, restored'",
    ]);
    let mut clock = ShiftedClock::of(&cluster);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    cluster.sql(PREPARE);
    in_three_ways(&cluster, "*/10 * * * *");
    schedule(&cluster, "recent", "*/10 * * * *", ", missed := 'all', missed_within := '1 h'");
    // They fire once, and are dumped: a minute after an instant, so that no other comes between.
    let left = cluster.text("select extract(epoch from date_bin('10 min', now(), 'epoch') - now())::int + 660");
    let left: i64 = left.parse().expect("a number");
    clock.shift(left);
    cluster.wait_for("select count(distinct name) from done", "4");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    cluster.reload(&["kongtask.databases = 'restored'"]);
    clock.shift(left + 24 * 3600);
    cluster.sql("create database restored");
    // A scheduler serves it before its schedules come: those have missed a day all the same.
    cluster.restore(&dump, "restored", &["--section=pre-data"]);
    cluster.wait_for(
        "select count(*) from pg_stat_activity where datname = 'restored' and backend_type = 'kongtask scheduler'
            and wait_event_type = 'Extension'",
        "1",
    );
    cluster.restore(&dump, "restored", &["--section=data", "--section=post-data"]);
    let mut db = cluster.connect_as("postgres", "restored");
    db.batch_execute("select kongtask.release_holds()").expect("the hold is released");
    let account = "select name, count(*) filter (where backfilled), missed_count from done join kongtask.schedules using (name) group by name, missed_count order by name";
    // A day has 144 of them.
    let expected = ["all|144|0", "once|1|143", "recent|6|138", "skip|0|144"];
    assert!(wait_until(SOON, || rows(&mut db, account) == expected), "{:?}", rows(&mut db, account));
    assert_eq!(text(&mut db, "select count(*) - count(distinct (name, ts)) from done"), "0");
    assert_eq!(
        text(
            &mut db,
            "select bool_and(last_run_at > now() - interval '11 min') from kongtask.schedules where name <> 'skip'"
        ),
        "t"
    );
    assert_eq!(
        text(
            &mut db,
            "select bool_and(next_run_at > now() and next_run_at <= now() + interval '10 min') from kongtask.schedules"
        ),
        "t"
    );
}
