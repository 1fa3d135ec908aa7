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

#[test]
fn a_worker_ends_after_so_many_jobs_once_another_has_taken_its_place() {
    let cluster = with_note_and_nap(&[
        "kongtask.workers = 1",
        "kongtask.worker_max_jobs = 20",
        "kongtask.poll_interval = '1h'",
        "kongtask.worker_idle_timeout = '10s'",
    ]);
    cluster.sql(
        "create table by (n bigserial, pid int default pg_backend_pid());
         create function who() returns void language sql as 'insert into public.by default values; select pg_sleep(0.005)';
         select kongtask.register_task('who', 'who()'), kongtask.register_task('queued', 'who()');
         select graphile_worker.add_job('who') from generate_series(1, 300)",
    );
    let mut db = cluster.connect();
    let mut at_once = 0;
    let ran = wait_until(SOON, || {
        at_once = at_once.max(text(&mut db, WORKERS).parse::<usize>().expect("a count"));
        text(&mut db, "select count(*) from by") == "300"
    });
    assert!(ran, "{}", cluster.log());
    // One is started before the other ends, although there may be one.
    assert_eq!(at_once, 2);
    let of_each = rows(&mut db, "select count(*) from by group by pid order by min(n)");
    // Each goes on until the next is there, which takes a process's start.
    assert!(of_each.len() > 2, "{of_each:?}");
    let enough = |count: &String| count.parse::<i64>().expect("a count") >= 20;
    assert!(of_each.iter().rev().skip(1).all(enough), "{of_each:?}");
    // A worker that works a queue down, too.
    cluster
        .sql("truncate by; select graphile_worker.add_job('queued', queue_name := 'q') from generate_series(1, 200)");
    cluster.wait_for("select count(*) from by", "200");
    assert!(rows(&mut db, "select distinct pid from by").len() > 1);
    // Where there is room for no other, it ends first.
    cluster.reload(&["kongtask.max_workers = 1"]);
    cluster.wait_for("show kongtask.max_workers", "1");
    cluster.sql("truncate by; select graphile_worker.add_job('who') from generate_series(1, 100)");
    cluster.wait_for("select count(*) from by", "100");
    assert!(rows(&mut db, "select distinct pid from by").len() >= 4);
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR"]), [""; 0]);
}

/// The memory that is a process's own, in kB.
fn memory(pid: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let of = |line: &str| line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
    rollup.lines().filter(|line| line.starts_with("Private_")).filter_map(of).sum()
}

/// Handlers that use so many tables (4,000 with KONGTASK_TABLES=4000), which their processes remember.
#[test]
fn workers_that_end_after_so_many_jobs_do_not_grow_with_the_tables_that_handlers_use() {
    let tables: usize = std::env::var("KONGTASK_TABLES").map_or(600, |tables| tables.parse().expect("a number"));
    let cluster = with_note_and_nap(&["kongtask.workers = 1", "kongtask.worker_idle_timeout = '60s'"]);
    let mut db = cluster.connect();
    for from in (1..=tables).step_by(200) {
        let to = tables.min(from + 199);
        db.batch_execute(&format!(
            "do $$ begin for n in {from}..{to} loop
               execute format('create table t%s (id int primary key, a text, b timestamptz)', n); end loop; end $$"
        ))
        .expect("tables");
    }
    db.batch_execute(
        "create table by (pid int);
         create function touch(p json) returns void language plpgsql as $$ begin
           execute format('insert into public.t%s values (1) on conflict (id) do update set b = now()', p #>> '{}');
           execute format('select count(*) from public.t%s', p #>> '{}');
           insert into public.by values (pg_backend_pid()); end $$;
         select kongtask.register_task('touch', 'touch(json)')",
    )
    .expect("a task");
    let mut largest = |most: usize| {
        cluster.reload(&[&format!("kongtask.worker_max_jobs = {most}")]);
        cluster.wait_for("show kongtask.worker_max_jobs", &most.to_string());
        db.batch_execute(&format!(
            "truncate by; select graphile_worker.add_job('touch', to_json(n)) from generate_series(1, {tables}) n"
        ))
        .expect("jobs");
        let mut largest = 0;
        let ran = wait_until(SOON * 6, || {
            let workers = rows(&mut db, "select pid from kongtask.workers where pid is not null");
            largest = workers.iter().map(|pid| memory(pid)).max().unwrap_or(0).max(largest);
            text(&mut db, "select count(*) from by") == tables.to_string()
        });
        assert!(ran, "{}", cluster.log());
        let processes = text(&mut db, "select count(distinct pid) from by");
        println!("{tables} tables, worker_max_jobs {most}: {largest} kB at most, {processes} processes");
        largest
    };
    let bounded = largest(tables / 10);
    let unbounded = largest(0);
    assert!(bounded * 10 < unbounded * 7, "{bounded} kB, {unbounded} kB without a bound");
}
