//! How long rows are kept: the tables take turns, and are truncated.

use crate::{WAYS, with_ways};
use kongtask_tests::fixtures::without_polling;
use kongtask_tests::shifted_clock::ShiftedClock;
use kongtask_tests::{Cluster, rows, text};

/// How many rows each of the four tables has.
const ROWS: &str =
    "select format('%s %s %s %s', (select count(*) from kongtask.runs_0), (select count(*) from kongtask.runs_1),
                    (select count(*) from kongtask.runs_2), (select count(*) from kongtask.runs_3))";

fn run_one(cluster: &Cluster) {
    let job = cluster.text("select id from graphile_worker.add_job('alone', '1')");
    assert_eq!(cluster.text(&format!("select state from kongtask.wait_for({job}, '20 s')")), "succeeded");
}

#[test]
fn tables_take_turns_and_are_emptied_when_all_their_rows_are_old_enough() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    let mut clock = ShiftedClock::of(&cluster);
    let shift = |clock: &mut ShiftedClock, hours: i64| {
        cluster.stop("fast");
        clock.shift(hours * 3600);
        cluster.start_with(&clock.environment());
    };
    shift(&mut clock, 0);
    cluster.sql(WAYS);
    cluster.sql("select kongtask.alter_task(identifier, keep_for := '20 hours') from kongtask.tasks");
    run_one(&cluster);
    cluster.wait_for("select string_agg(number || coalesce(closed_at::text, ''), ' ') from kongtask.run_tables", "0");
    assert_eq!(cluster.text(ROWS), "1 0 0 0");
    // Half of the time later, the next is written to.
    shift(&mut clock, 11);
    cluster.wait_for("select string_agg(number::text, ' ') from kongtask.run_tables where closed_at is null", "1");
    run_one(&cluster);
    assert_eq!(cluster.text(ROWS), "1 1 0 0");
    shift(&mut clock, 22);
    cluster.wait_for("select string_agg(number::text, ' ') from kongtask.run_tables where closed_at is null", "2");
    run_one(&cluster);
    assert_eq!(cluster.text(ROWS), "1 1 1 0");
    assert_eq!(cluster.text("select count(*) from kongtask.runs"), "3");
    // The first was closed more than 20 hours ago.
    shift(&mut clock, 33);
    cluster.wait_for(ROWS, "0 1 1 0");
    cluster.wait_for("select string_agg(number::text, ' ') from kongtask.run_tables where closed_at is null", "3");
    run_one(&cluster);
    assert_eq!(cluster.text(ROWS), "0 1 1 1");
    shift(&mut clock, 81);
    cluster.wait_for("select count(*) from kongtask.runs", "1");
    run_one(&cluster);
    assert_eq!(cluster.text("select count(*) from kongtask.runs"), "2");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_reader_that_stays_delays_the_emptying_and_nothing_else() {
    let cluster = with_ways(&["kongtask.workers = 2"]);
    cluster.sql("select kongtask.alter_task(identifier, keep_for := '400 ms') from kongtask.tasks");
    let mut reader = cluster.connect();
    run_one(&cluster);
    reader.batch_execute("begin; select count(*) from kongtask.runs").expect("a reader");
    let first = text(&mut reader, "select count(*) from kongtask.runs_0");
    assert_eq!(first, "1");
    // The tables are all in use, and jobs run and are kept all the same.
    cluster.wait_for("select string_agg(number::text, ' ') from kongtask.run_tables where closed_at is null", "1");
    for _ in 0..20 {
        run_one(&cluster);
        // So is whoever reads: no lock request of the scheduler's is in the way.
        assert_ne!(text(&mut cluster.connect(), "select count(*) from kongtask.runs"), "0");
    }
    assert_eq!(text(&mut reader, "select count(*) from kongtask.runs_0"), first);
    reader.batch_execute("commit").expect("the end");
    cluster.wait_for("select count(*) from kongtask.runs", "0");
    // Nothing is written any more while nothing runs.
    let wal = "select pg_current_wal_insert_lsn()";
    let before = cluster.text(wal);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(cluster.text(wal), before);
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// Under load, each row stays for as long as was promised, and not for ever.
#[test]
fn no_row_is_lost_before_its_time_under_load() {
    let cluster = with_ways(&["kongtask.workers = 4"]);
    cluster.sql(
        "select kongtask.alter_task(identifier, keep_for := '1 s') from kongtask.tasks; create table lost (n bigint);
         create table did_at (job bigint primary key, at timestamptz);
         create function does_at() returns void language sql as
           'insert into public.did_at values ((kongtask.current_job()).id, clock_timestamp())';
         select kongtask.register_task('does_at', 'does_at()', max_batch := 20, keep := 'all', keep_for := '1 s')",
    );
    let mut db = cluster.connect();
    let begun = std::time::Instant::now();
    let mut turns = std::collections::BTreeSet::new();
    while begun.elapsed() < std::time::Duration::from_secs(6) {
        db.batch_execute("select count(graphile_worker.add_job('does_at')) from generate_series(1, 100)")
            .expect("jobs");
        // By one snapshot: what was done within the last 0.9 seconds is there.
        let lost = "select count(*) from did_at where at > clock_timestamp() - interval '0.9 s'
                    and not exists (select from kongtask.runs where job_id = job)";
        assert_eq!(text(&mut db, lost), "0");
        turns.extend(rows(&mut db, "select number from kongtask.run_tables where closed_at is null"));
    }
    assert_eq!(turns.len(), 4, "{turns:?}");
    cluster.wait_for("select count(*) from kongtask.runs", "0");
    let done = text(&mut db, "select count(*) from did_at").parse::<usize>().expect("a number");
    assert!(done > 1000, "{done}");
}
