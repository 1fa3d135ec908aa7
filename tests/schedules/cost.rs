//! What schedules cost.

use crate::{PREPARE, cluster, schedule};
use kongtask_tests::fast_clock::FastClock;
use kongtask_tests::shifted_clock::ShiftedClock;
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn many_that_are_due_at_once_are_all_fired() {
    let cluster = Cluster::stopped(&["kongtask.workers = 2", "kongtask.poll_interval = '500ms'"]);
    let mut clock = ShiftedClock::of(&cluster);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    cluster.sql(PREPARE);
    // However long it takes to make them, they are made before.
    cluster.sql(
        "select count(kongtask.schedule('due ' || n, to_char(now() at time zone 'UTC' + interval '1 h', 'SS MI HH24 DD MM \"*\"'), 'note',
           json_build_object('name', n))) from generate_series(1, 1000) n",
    );
    let due = cluster.text("select min(next_run_at) from kongtask.schedules");
    assert_eq!(cluster.text(&format!("select count(*) from kongtask.schedules where next_run_at = '{due}'")), "1000");
    let left: f64 = cluster.text(&format!("select extract(epoch from '{due}' - now())")).parse().expect("a number");
    clock.shift(left as i64);
    cluster.wait_for("select count(*) || ' ' || count(distinct name) from done", "1000 1000");
    assert_eq!(cluster.text("select bool_and(ts = last_run_at and not backfilled) from done join kongtask.schedules on schedules.name = 'due ' || done.name"), "t");
}

#[test]
fn idle_ones_write_nothing() {
    let cluster = cluster(&[]);
    cluster.sql("select count(kongtask.schedule('idle ' || n, '0 0 1 1 *', 'note')) from generate_series(1, 1000) n; checkpoint");
    let idle = || cluster.text("select pg_current_wal_insert_lsn() || ' ' || txid_current_snapshot()");
    assert!(wait_until(SOON, || {
        let before = idle();
        sleep(Duration::from_secs(2));
        idle() == before
    }));
}

/// An hour, at a clock that is 200 times faster, as is autovacuum's.
#[test]
fn an_entry_that_fires_each_second_leaves_no_bloat() {
    const INSTANTS: i64 = 3600;
    let cluster = Cluster::stopped(&[
        "kongtask.workers = 2",
        "bgwriter_delay = '10s'",
        "wal_writer_delay = '10s'",
        "checkpoint_timeout = '1d'",
    ]);
    let clock = FastClock::of(&cluster, 200);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    cluster.sql(PREPARE);
    // Beside others, which fill the pages that it is on.
    cluster.sql("select count(kongtask.schedule('other ' || n, '0 0 1 1 *', 'note')) from generate_series(1, 500) n");
    schedule(&cluster, "all", "* * * * * *", ", overlap := 'skip'");
    let mut db = cluster.connect();
    let tables = "('graphile_worker.known_crontabs'::regclass), ('kongtask.crontab'), ('kongtask.schedule_state'), ('kongtask.schedule_runs')";
    let sizes = format!("select t, pg_relation_size(t), pg_indexes_size(t) from (values {tables}) as tables (t)");
    let sum = format!("select sum(pg_total_relation_size(t)) from (values {tables}) as tables (t)");
    let number = |db: &mut postgres::Client, query: &str| -> i64 { text(db, query).parse().expect("a number") };
    let before = number(&mut db, &sum);
    let handled =
        "select count(*) + (select coalesce(sum(skipped_count + missed_count), 0) from kongtask.schedules) from done";
    assert!(wait_until(2 * SOON, || number(&mut db, handled) >= INSTANTS), "{}", text(&mut db, handled));
    cluster.sql("select kongtask.alter_schedule('all', active := false)");
    assert_eq!(number(&mut db, "select count(*) - count(distinct ts) from done"), 0);
    let grown = number(&mut db, &sum) - before;
    // A page or two of each.
    assert!(grown <= 12 * 8192, "{grown} {:?}", rows(&mut db, &sizes));
    // Nearly every update leaves the indexes alone.
    let updates = "select relname, n_tup_upd, n_tup_hot_upd, n_dead_tup from pg_stat_user_tables
        where relname in ('known_crontabs', 'schedule_state', 'crontab', 'schedule_runs') order by relname";
    let hot = "select bool_and(n_tup_hot_upd >= n_tup_upd * 0.95 and n_tup_upd > 100) from pg_stat_user_tables where relname in ('known_crontabs', 'schedule_state')";
    assert!(wait_until(SOON, || text(&mut db, hot) == "t"), "{:?}", rows(&mut db, updates));
    kongtask_tests::say(&format!("{grown} {:?} {:?}", rows(&mut db, &sizes), rows(&mut db, updates)));
}
