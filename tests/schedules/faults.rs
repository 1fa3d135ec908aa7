//! Processes that end, or stop, at each step of a fire.

use crate::{PREPARE, schedule};
use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};

fn with_two_schedules() -> Cluster {
    let cluster = Cluster::with_faults(&["kongtask.workers = 2", "restart_after_crash = on"]);
    cluster.sql(PREPARE);
    schedule(&cluster, "all", "*/2 * * * * *", ", missed := 'all'");
    schedule(&cluster, "skip", "*/2 * * * * *", "");
    cluster
}

/// Asks a server that may go down meanwhile.
fn ask(cluster: &Cluster, query: &str) -> Option<String> {
    let mut db = cluster.try_connect_as("postgres", "postgres").ok()?;
    db.query_one(query, &[]).ok()?.get(0)
}

/// Waits for the middle between two instants, so that the next fire is the first to come by; when that is.
fn next_instant(cluster: &Cluster) -> String {
    let between = "select (date_bin('2 s', now(), 'epoch') + interval '2 s')::text where extract(epoch from now())::numeric % 2 between 0.2 and 1";
    let mut instant = None;
    wait_until(SOON, || {
        instant = ask(cluster, between);
        instant.is_some()
    });
    instant.unwrap_or_else(|| panic!("the server does not answer\n{}", cluster.log()))
}

#[test]
fn a_kill_at_any_step_of_a_fire_leaves_each_instant_fired_once() {
    let cluster = with_two_schedules();
    let mut struck = Vec::new();
    for point in ["fire_locked", "fire_marked", "fire_added", "firing", "fired"] {
        for action in ["kill", "exit", "error"] {
            if (point, action) == ("fired", "error") {
                continue;
            }
            let instant = next_instant(&cluster);
            cluster.arm(point, action);
            assert!(wait_until(SOON, || !cluster.is_armed(point)), "{point} {action}\n{}", cluster.log());
            let done = format!("select 'yes' from done where ts >= '{instant}' having count(distinct name) = 2");
            let is_done = || ask(&cluster, &done).is_some();
            assert!(wait_until(SOON, is_done), "{point} {action}\n{}", cluster.log());
            struck.push((instant, point, action));
        }
    }
    cluster.sql("select kongtask.alter_schedule(name, active := false) from kongtask.schedules");
    cluster.wait_for("select count(*) from graphile_worker.jobs where task_identifier = 'note'", "0");
    let mut db = cluster.connect();
    // What the scheduler was about to fire as it ended is late, not missed: also where missed runs are skipped.
    for (instant, point, action) in &struck {
        let found = rows(&mut db, &format!("select name, backfilled from done where ts = '{instant}' order by name"));
        assert_eq!(found, ["all|f", "skip|f"], "{point} {action} at {instant}\n{}", cluster.log());
    }
    // Nothing is there twice, and what fell due while no scheduler ran is made up for, or counted.
    let account = "select name, count(*) - count(distinct ts), extract(epoch from max(ts) - min(ts))::int / 2 + 1 - missed_count - count(*)
        from done join kongtask.schedules using (name) group by name, missed_count order by name";
    assert_eq!(rows(&mut db, account), ["all|0|0", "skip|0|0"], "{}", cluster.log());
    assert_eq!(text(&mut db, "select missed_count from kongtask.schedules where name = 'all'"), "0");
}

/// graphile-worker's statement, for one entry of a crontab.
const THEIRS: &str = "with locks as (
        insert into graphile_worker.known_crontabs (identifier, known_since, last_execution) values ('all', $1::text::timestamptz, $1::text::timestamptz)
        on conflict (identifier) do update set last_execution = excluded.last_execution
        where (known_crontabs.last_execution is null or known_crontabs.last_execution < excluded.last_execution)
        returning known_crontabs.identifier
      )
      select graphile_worker.add_job('note', json_build_object('name', 'all', '_cron', json_build_object('ts', $1::text, 'backfilled', false)), run_at := $1::text::timestamptz)
      from locks";

/// Where there is no row yet, there is none to lock.
#[test]
fn a_process_that_makes_the_row_of_known_crontabs_meanwhile_has_fired_that_instant() {
    let cluster = with_two_schedules();
    cluster.wait_for("select count(distinct name) from done", "2");
    let instant = next_instant(&cluster);
    cluster.sql("delete from graphile_worker.known_crontabs where identifier = 'all'");
    cluster.arm("fire_locked", "stop");
    let mut db = cluster.connect();
    let scheduler = stopped(&cluster, &mut db);
    assert_eq!(db.query(THEIRS, &[&instant]).expect("their statement").len(), 1);
    go_on(scheduler);
    let later = format!("select count(distinct name) from done where ts > '{instant}'");
    assert!(wait_until(SOON, || text(&mut db, &later) == "2"));
    let at_that = format!("select name, count(*) from done where ts = '{instant}' group by name order by name");
    assert_eq!(rows(&mut db, &at_that), ["all|1", "skip|1"]);
    // It was not an overlap, either.
    assert_eq!(text(&mut db, "select sum(skipped_count) from kongtask.schedules"), "0");
}

/// It fires as graphile-worker does, for the same seconds, as early as it can.
#[test]
fn a_process_that_races_for_each_instant_fires_none_twice() {
    let cluster = with_two_schedules();
    schedule(&cluster, "all", "* * * * * *", ", missed := 'all'");
    let mut db = cluster.connect();
    let mut won = 0;
    let mut race = |db: &mut postgres::Client| {
        let instant =
            "select t from (select date_trunc('second', now()) + interval '1 s') as next (t), pg_sleep_until(t)";
        let instant = text(db, instant);
        won += db.query(THEIRS, &[&instant]).expect("their statement").len();
    };
    for _ in 0..4 {
        race(&mut db);
    }
    // And while the scheduler is frozen, so that it comes second.
    for _ in 0..2 {
        cluster.wait_for("select extract(epoch from now())::numeric % 1 between 0.3 and 0.6", "t");
        let scheduler = "select pid from pg_stat_activity where backend_type = 'kongtask scheduler'";
        let pid: i32 = text(&mut db, scheduler).parse().expect("a pid");
        // SAFETY: a process of this cluster's.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
        race(&mut db);
        go_on(pid);
    }
    assert!(won >= 2, "{won}");
    let last = text(&mut db, "select max(last_execution) from graphile_worker.known_crontabs");
    // The scheduler, which may have come second, has by then fired another.
    cluster.wait_for(&format!("select count(*) > 0 from done where name = 'all' and ts > '{last}'"), "t");
    cluster.sql("select kongtask.alter_schedule(name, active := false) from kongtask.schedules");
    cluster.wait_for("select count(*) from graphile_worker.jobs where task_identifier = 'note'", "0");
    assert_eq!(text(&mut db, "select count(*) - count(distinct (name, ts)) from done"), "0");
}

#[test]
fn a_change_that_a_session_tells_of_late_makes_no_later_one_fire_for_the_past() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1"]);
    cluster.sql(PREPARE);
    schedule(&cluster, "far", "0 0 1 1 *", "");
    let mut db = cluster.connect();
    std::thread::scope(|scope| {
        cluster.arm("committed", "stop");
        let changing = scope.spawn(|| cluster.sql("select kongtask.unschedule('far')"));
        let changed = stopped(&cluster, &mut db);
        // The scheduler reads that change together with this one, of which it is told.
        schedule(&cluster, "ticks", "* * * * * *", "");
        cluster.wait_for("select count(*) > 0 from done", "t");
        go_on(changed);
        changing.join().expect("a change");
    });
    cluster.sql("truncate done");
    cluster.wait_for("select count(*) > 0 from done", "t");
    db.batch_execute(
        "begin; select kongtask.schedule('new', '* * * * * *', 'note', '{\"name\": \"new\"}', missed := 'all');
         select pg_sleep(2.5); create table committing as select clock_timestamp() as at; commit",
    )
    .expect("a schedule");
    cluster.wait_for("select count(*) > 1 from done where name = 'new'", "t");
    let early = "select ts from done, committing where name = 'new' and ts <= committing.at";
    assert_eq!(rows(&mut db, early), [""; 0]);
}
