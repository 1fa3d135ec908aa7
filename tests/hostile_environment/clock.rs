//! A wall clock that is set back by an hour while the server runs.

use kongtask_tests::shifted_clock::ShiftedClock;
use kongtask_tests::{Cluster, SOON, text, wait_until};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[test]
fn a_clock_that_jumps_back_an_hour_stops_nothing() {
    let cluster = Cluster::stopped(&[
        "kongtask.workers = 2",
        "kongtask.poll_interval = '500ms'",
        "kongtask.shutdown_timeout = '1s'",
    ]);
    let mut clock = ShiftedClock::of(&cluster);
    cluster.start_with(&clock.environment());
    cluster.sql(
        "create extension kongtask;
         create table done (n int);
         create function note(p json) returns void language sql as $$ insert into done values ((p #>> '{}')::int) $$;
         create function nap() returns void language sql as $$ select pg_sleep(60) $$;
         select kongtask.register_task('note', 'note(json)'), kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('note', '1')",
    );
    cluster.wait_for("select count(*) from done", "1");
    clock.shift(-3600);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    // Workers tell since when they do what they do.
    cluster.sql("select graphile_worker.add_job('note', '0') from generate_series(1, 4)");
    let are_back = format!("select bool_and(since < to_timestamp({now}) - interval '3000 s') from kongtask.workers");
    let mut db = cluster.connect();
    assert!(wait_until(SOON, || text(&mut db, &are_back) == "t"), "the workers' clock did not go back");
    // Who is told runs it; what nobody was told of is found by the safety net; what is due later runs then.
    cluster.sql("select graphile_worker.add_job('note', '2'), graphile_worker.add_job('note', '3', run_at := now() + interval '1 s')");
    cluster.sql("set session_replication_role = replica; insert into graphile_worker.jobs (task_identifier, payload) values ('note', '4')");
    cluster.wait_for("select string_agg(n::text, '' order by n) from done where n > 0", "1234");
    // Who ends is replaced, and a stop waits for no longer than it says.
    cluster.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where backend_type in ('kongtask worker', 'kongtask scheduler')",
    );
    cluster.sql("select graphile_worker.add_job('note', '5'), graphile_worker.add_job('nap')");
    cluster.wait_for("select count(*) from done where n = 5", "1");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    let took = cluster.stop("fast");
    assert!(took < Duration::from_secs(8), "{took:?}");
}
