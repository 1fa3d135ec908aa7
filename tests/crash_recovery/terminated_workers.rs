//! Workers that are terminated: they are replaced, and their jobs run at once.

use kongtask_tests::every_kind::{ONCE, drains_once};
use kongtask_tests::fixtures::{with_every_kind, with_note_and_nap};
use kongtask_tests::{IDLE, JOBS, RUNNING, SOON, describe, rows, text, wait_until};
use std::time::{Duration, Instant};

#[test]
fn a_release_that_has_to_wait_stops_nothing_else() {
    let cluster = with_note_and_nap(&["kongtask.poll_interval = '200ms'", "kongtask.workers = 2"]);
    cluster.sql("select graphile_worker.add_job('nap', '60', job_key := 'k')");
    cluster.wait_for("select count(*) from graphile_worker.jobs where locked_by is not null", "1");
    let mut db = cluster.connect();
    db.batch_execute("begin; select from graphile_worker.jobs for update").expect("lock");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'");
    // Its worker is gone, its row cannot be touched; everything else goes on.
    cluster.wait_for(IDLE, "2");
    cluster.sql("select graphile_worker.add_job('note', '\"due\"', run_at := now() + interval '1 second')");
    cluster.wait_for("select count(*) from done where what = 'due'", "1");
    assert_eq!(cluster.text("select locked_by is null from graphile_worker.jobs"), "f");
    db.batch_execute("commit").expect("commit");
    cluster.wait_for("select attempts || ' ' || (locked_by is null) from graphile_worker.jobs", "1 false");
    cluster.wait_for(RUNNING, "1");
    assert_eq!(cluster.log_lines(&["WARNING"]), Vec::<String>::new());
}

#[test]
fn a_terminated_worker_is_replaced_within_a_second_and_what_it_ran_runs_at_once() {
    for (task, arguments, count) in
        [("rest", "", 1), ("rest", ", job_key := 'k'", 1), ("rest_batch", "", 20), ("rest_set", "", 20)]
    {
        // One that ends again and again is given time between its starts. Beside one job, another worker is idle.
        let workers = if count == 1 { "2" } else { "1" };
        let cluster = with_every_kind(&[&format!("kongtask.workers = {workers}"), "kongtask.poll_interval = '1h'"]);
        cluster.wait_for(IDLE, workers);
        cluster.sql("update naps set seconds = 60");
        cluster.sql(&format!(
            "select count(graphile_worker.add_job('{task}', to_json(n), max_attempts := 1{arguments})) from generate_series(1, {count}) n"
        ));
        cluster.wait_for(RUNNING, "1");
        let mut db = cluster.connect();
        db.batch_execute("update naps set seconds = 0").expect("update");
        let begun = Instant::now();
        db.batch_execute("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'")
            .expect("terminate");
        assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{task}\n{}", cluster.log());
        assert!(begun.elapsed() < Duration::from_secs(1), "{task}: {:?}", begun.elapsed());
        assert_eq!(text(&mut db, ONCE), format!("{count} {count}"), "{task}");
        cluster.wait_for(IDLE, workers);
        assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new(), "{task}");
    }
}

/// Nobody tells the scheduler when the lock is free. (With a longer deadlock_timeout than its patience, that timer would wake it.)
#[test]
fn what_a_terminated_worker_ran_runs_although_somebody_had_it_locked() {
    let cluster =
        with_every_kind(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'", "deadlock_timeout = '100ms'"]);
    cluster.sql("update naps set seconds = 60; select graphile_worker.add_job('rest', '1', job_key := 'k')");
    cluster.wait_for(RUNNING, "1");
    let mut db = cluster.connect();
    db.batch_execute("update naps set seconds = 0; begin; select from graphile_worker.jobs for update")
        .expect("a lock");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers");
    db.batch_execute("select pg_sleep(2.5); commit").expect("a lock");
    let begun = Instant::now();
    drains_once(&cluster, 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// The scheduler waits for locks half a second at a time, however many there are, and what nobody has locked it does meanwhile.
#[test]
fn jobs_that_somebody_has_locked_keep_the_scheduler_from_nothing_else() {
    let cluster =
        with_every_kind(&["kongtask.workers = 8", "kongtask.poll_interval = '1h'", "deadlock_timeout = '100ms'"]);
    cluster.sql(
        "update naps set seconds = 60;
         select count(graphile_worker.add_job('rest', to_json(n), job_key := 'k' || n)) from generate_series(1, 7) n",
    );
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "7");
    cluster.sql("update naps set seconds = 0");
    let mut locker = cluster.connect();
    locker.batch_execute("begin; select from graphile_worker.jobs where key <> 'k7' for update").expect("locks");
    let mut db = cluster.connect();
    db.batch_execute("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'")
        .expect("terminate");
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from done where n = 7") == "1"), "{}", cluster.log());
    let late = "create table late (n bigint, seconds float8); grant insert on late to alice;
        create function alice_note() returns trigger language plpgsql security definer as $$ begin
          insert into late select new.n, extract(epoch from clock_timestamp() - due) from dues where n = new.n; return new; end $$;
        create table dues (n bigint, due timestamptz);
        create trigger late after insert on done for each row execute function alice_note()";
    db.batch_execute(late).expect("a trigger");
    // Only the scheduler knows of what falls due.
    for n in 100..110 {
        db.batch_execute(&format!(
            "begin; insert into dues values ({n}, now() + interval '50 ms');
             select graphile_worker.add_job('note', '{n}', run_at := now() + interval '50 ms'); commit; select pg_sleep(0.3)"
        ))
        .expect("add_job");
    }
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from late") == "10"), "{}", cluster.log());
    let latest: f64 = text(&mut db, "select max(seconds) from late").parse().expect("a number");
    assert!(latest < 1.5, "{latest} s\n{}", cluster.log());
    locker.batch_execute("commit").expect("commit");
    drains_once(&cluster, 17);
}

/// Also by a scheduler that did not start it.
#[test]
fn what_a_terminated_worker_ran_runs_at_once_although_the_scheduler_is_new() {
    let cluster = with_every_kind(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.wait_for(IDLE, "1");
    cluster.sql("update naps set seconds = 60; select graphile_worker.add_job('rest', '1')");
    cluster.wait_for(RUNNING, "1");
    let mut db = cluster.connect();
    let scheduler = "select pid from pg_stat_activity where backend_type = 'kongtask scheduler'";
    let before = text(&mut db, scheduler);
    db.batch_execute(&format!("update naps set seconds = 0; select pg_terminate_backend({before})"))
        .expect("terminate");
    let is_new = wait_until(SOON, || !["", before.as_str()].contains(&text(&mut db, scheduler).as_str()));
    assert!(is_new);
    cluster.wait_for_log_times("kongtask scheduler (postgres) started", 2);
    db.batch_execute("select pg_terminate_backend(pid) from kongtask.workers").expect("terminate");
    let begun = Instant::now();
    assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{}", cluster.log());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(text(&mut db, ONCE), "1 1");
}

/// It would do so again in the next worker, and so for ever.
#[test]
fn a_handler_that_terminates_its_own_worker_has_failed() {
    let cluster = with_every_kind(&["kongtask.workers = 1"]);
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(
            "create function ends() returns void language sql as $$ select pg_terminate_backend(pg_backend_pid()) $$;
             create function ends_and_rests() returns void language plpgsql as $$ begin
               perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60); end $$;
             select kongtask.register_task('ends', 'ends()'), kongtask.register_task('ends_and_rests', 'ends_and_rests()'),
               kongtask.register_task('ends_in_batch', 'ends()', max_batch := 50)",
        )
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
    cluster.wait_for(IDLE, "1");
    let mut db = cluster.connect();
    let worker = text(&mut db, "select pid from kongtask.workers");
    for (task, arguments) in
        [("ends", ""), ("ends", ", job_key := 'k'"), ("ends_and_rests", ""), ("ends_in_batch", ""), ("note", "")]
    {
        db.batch_execute(&format!(
            "select graphile_worker.add_job('{task}', '1'{arguments}), graphile_worker.add_job('{task}', '2')"
        ))
        .expect("add_job");
    }
    cluster.wait_for("select string_agg(n::text, ' ' order by n) from done", "1 2");
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null", "8");
    let says = "select distinct split_part(last_error, E'\\n', 1) from graphile_worker.jobs";
    assert_eq!(rows(&mut db, says), ["the handler terminated its own worker process (SQLSTATE 57P01)"]);
    assert_eq!(text(&mut db, "select pid from kongtask.workers"), worker);
}
