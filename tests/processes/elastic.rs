//! Workers that are started as jobs need them, and that end when they have been idle.

use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::{NOTE_AND_NAP, with_note_and_nap};
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use std::thread::sleep;
use std::time::Duration;

const WORKERS: &str = "select count(*) from kongtask.workers";

#[test]
fn workers_come_for_jobs_and_go_when_they_are_idle() {
    let cluster = with_note_and_nap(&["kongtask.worker_idle_timeout = '300ms'", "kongtask.poll_interval = '1h'"]);
    cluster.wait_for_log("kongtask scheduler (postgres) started");
    assert_eq!(cluster.text(WORKERS), "0");
    for job in 1..=3 {
        cluster.sql(&format!("select graphile_worker.add_job('note', '{job}')"));
        cluster.wait_for(&format!("select count(*) from done where what = '{job}'"), "1");
        assert_eq!(cluster.text(WORKERS), "1");
        cluster.wait_for(WORKERS, "0");
    }
    // A job that falls due.
    cluster.sql("select graphile_worker.add_job('note', '4', run_at := now() + interval '400 ms')");
    assert_eq!(cluster.text(WORKERS), "0");
    cluster.wait_for("select count(*) from done where what = '4'", "1");
    // One for each job that takes its time, as far as kongtask.workers goes.
    cluster.sql("select graphile_worker.add_job('nap', '1') from generate_series(1, 2)");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "2");
    assert_eq!(cluster.text(WORKERS), "2");
    cluster.sql("select graphile_worker.add_job('nap', '0.5') from generate_series(1, 10)");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "4");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    cluster.wait_for(WORKERS, "0");
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR"]), [""; 0]);
}

#[test]
fn a_steady_trickle_keeps_one_worker() {
    let cluster = with_note_and_nap(&["kongtask.worker_idle_timeout = '2s'"]);
    cluster.sql(
        "create table by (pid int);
         create function who() returns void language sql as 'insert into public.by values (pg_backend_pid())';
         select kongtask.register_task('who', 'who()');
         select graphile_worker.add_job('nap', '0.2') from generate_series(1, 4)",
    );
    cluster.wait_for(WORKERS, "4");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let mut db = cluster.connect();
    let only_one_is_left = wait_until(SOON, || {
        db.batch_execute("select graphile_worker.add_job('who')").expect("add");
        sleep(Duration::from_millis(20));
        text(&mut db, WORKERS) == "1"
    });
    assert!(only_one_is_left, "{:?}", rows(&mut db, "select pid, state, since from kongtask.workers"));
    db.batch_execute("truncate by").expect("truncate");
    for _ in 0..20 {
        db.batch_execute("select graphile_worker.add_job('who')").expect("add");
        sleep(Duration::from_millis(20));
    }
    cluster.wait_for("select count(*) from by", "20");
    assert_eq!(cluster.text("select count(distinct pid) from by"), "1");
}

#[test]
fn only_roles_with_jobs_have_workers() {
    let cluster = with_note_and_nap(&["kongtask.worker_idle_timeout = '1s'", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function app_user() returns void language sql as 'insert into public.done values (0, current_user)';
         grant insert on done to public",
    );
    for n in 1..=9 {
        cluster.sql(&format!(
            "create role r{n} login; grant usage on schema kongtask to r{n};
             grant execute on all functions in schema kongtask to r{n};
             set session authorization r{n};
             select kongtask.register_task('of_r{n}', 'app_user()')"
        ));
    }
    cluster.sql("select graphile_worker.add_job('of_r7'), graphile_worker.add_job('of_r3')");
    cluster.wait_for("select string_agg(what, ' ' order by what) from done", "r3 r7");
    assert_eq!(rows(&mut cluster.connect(), "select role from kongtask.workers order by 1"), ["r3", "r7"]);
    cluster.wait_for(WORKERS, "0");
    cluster.sql("select graphile_worker.add_job('of_r' || n) from generate_series(1, 9) n");
    cluster.wait_for("select count(*) from done", "11");
}

#[test]
fn the_whole_server_has_no_more_workers_than_it_may_have() {
    let cluster = with_note_and_nap(&[
        "kongtask.worker_idle_timeout = '5s'",
        "kongtask.poll_interval = '1h'",
        "kongtask.max_workers = 3",
    ]);
    cluster.sql("create database other");
    let mut other = cluster.connect_as("postgres", "other");
    other.batch_execute("create extension kongtask").expect("create");
    other.batch_execute(NOTE_AND_NAP).expect("tasks");
    cluster.sql("select graphile_worker.add_job('nap', '0.3') from generate_series(1, 6)");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "3");
    // Another database gets one of them, long before they have been idle for so long.
    other.batch_execute("select graphile_worker.add_job('nap', '0')").expect("add");
    let mut most = 0;
    let ran = wait_until(SOON, || {
        most = most.max(cluster.text(WORKERS).parse().expect("a count"));
        text(&mut other, "select count(*) from done") == "1"
    });
    assert!(ran, "{}", cluster.log());
    assert_eq!(most, 3);
    cluster.wait_for("select count(*) from done", "6");
    assert_eq!(cluster.log_lines(&["WARNING"]), [""; 0]);
}

#[test]
fn a_job_that_comes_while_the_last_worker_ends_is_not_lost() {
    let cluster = Cluster::with_faults(&["kongtask.worker_idle_timeout = '100ms'", "kongtask.poll_interval = '1h'"]);
    cluster.sql(NOTE_AND_NAP);
    let mut db = cluster.connect();
    for workers in ["1", "4"] {
        cluster.reload(&[&format!("kongtask.workers = {workers}")]);
        cluster.arm("leaving", "stop");
        db.batch_execute("select graphile_worker.add_job('note', '0')").expect("add");
        // It has decided to end, and runs no job any more.
        let leaving = stopped(&cluster, &mut db);
        db.batch_execute("truncate done; select graphile_worker.add_job('note', '1')").expect("add");
        go_on(leaving);
        cluster.wait_for("select string_agg(what, '') from done", "1");
    }
}

#[test]
fn without_a_timeout_workers_wait_for_jobs() {
    let cluster = with_note_and_nap(&["kongtask.worker_idle_timeout = '100ms'", "kongtask.poll_interval = '1h'"]);
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done", "1");
    cluster.wait_for(WORKERS, "0");
    cluster.reload(&["kongtask.worker_idle_timeout = -1"]);
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    // Those that wait learn of a timeout.
    cluster.reload(&["kongtask.worker_idle_timeout = '100ms'"]);
    cluster.wait_for(WORKERS, "0");
}
