//! What goes wrong around a queue: hostile settings, lost rights, lost disks, standbys, statements that rewrite its
//! tables, and handlers that leave things behind.

use kongtask_tests::every_kind::{self, ONCE, drains_once};
use kongtask_tests::{Cluster, LOCKED, SOON, describe, error, rows, say, text, wait_until};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const JOBS: &str = "select count(*) from graphile_worker.jobs";
const IDLE: &str = "select count(*) from kongtask.workers where state = 'idle'";
const RUNNING: &str = "select count(*) from kongtask.workers where state = 'running'";

/// A cluster with a role that owns a task for each way in which jobs are run.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    every_kind::prepare(&cluster);
    cluster
}

#[test]
fn a_terminated_worker_is_replaced_within_a_second_and_what_it_ran_runs_at_once() {
    for (task, arguments, count) in
        [("rest", "", 1), ("rest", ", job_key := 'k'", 1), ("rest_batch", "", 20), ("rest_set", "", 20)]
    {
        // One that ends again and again is given time between its starts. Beside one job, another worker is idle.
        let workers = if count == 1 { "2" } else { "1" };
        let cluster = cluster(&[&format!("kongtask.workers = {workers}"), "kongtask.poll_interval = '1h'"]);
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
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'", "deadlock_timeout = '100ms'"]);
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
    let cluster = cluster(&["kongtask.workers = 8", "kongtask.poll_interval = '1h'", "deadlock_timeout = '100ms'"]);
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
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
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
    let cluster = cluster(&["kongtask.workers = 1"]);
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

#[test]
fn a_cancelled_batch_or_set_fails_what_ran_and_does_each_job_once() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    // One call is one job of a batch, and all jobs of a set.
    for (task, failed) in [("rest_batch", "1"), ("rest_set", "20")] {
        for keys in ["null", "'k' || n"] {
            cluster.sql("truncate done; update naps set seconds = 60");
            cluster.sql(&format!(
                "select count(graphile_worker.add_job('{task}', to_json(n), job_key := {keys})) from generate_series(1, 20) n"
            ));
            // Not before the handler has begun.
            cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
            let worker = cluster.text("select pid from kongtask.workers");
            cluster.sql("update naps set seconds = 0");
            cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
            let said = "canceling statement due to user request (SQLSTATE 57014)%";
            let count =
                "select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null and last_error";
            cluster.wait_for(&format!("{count} like '{said}'"), failed);
            drains_once(&cluster, 20);
            assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
        }
    }
    cluster.wait_for_log_times("failed on attempt 1 of 25: canceling statement due to user request", 42);
}

/// By what users have fired as it commits: it is of all jobs that share the transaction, as with a set.
#[test]
fn a_batch_that_is_cancelled_as_it_commits_has_failed() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function rest() returns trigger language plpgsql security definer as $$ begin
           perform pg_sleep(seconds) from public.naps; return new; end $$;
         create constraint trigger rest after insert on done deferrable initially deferred for each row execute function rest()",
    );
    for keys in ["null", "'k' || n"] {
        let add = format!(
            "select count(graphile_worker.add_job('batch', to_json(n), job_key := {keys})) from generate_series(1, 3) n"
        );
        // Plans are made at first, which takes a batch's time.
        cluster.sql(&add);
        cluster.wait_for(JOBS, "0");
        cluster.sql("truncate done; update naps set seconds = 60");
        cluster.sql(&add);
        cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
        let worker = cluster.text("select pid from kongtask.workers");
        cluster.sql("update naps set seconds = 0");
        cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
        let said = "canceling statement due to user request (SQLSTATE 57014)%";
        let count = "select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null and last_error";
        cluster.wait_for(&format!("{count} like '{said}'"), "3");
        drains_once(&cluster, 3);
        assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
        cluster.sql("truncate done");
    }
}

/// An error that is caught has Postgres let cancels in again, in the midst of a statement of the queue's own.
#[test]
fn a_trigger_on_jobs_that_catches_an_error_lets_no_cancel_end_a_worker() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function catches() returns trigger language plpgsql security definer as $$ begin
           begin perform 1 / 0; exception when others then null; end;
           perform pg_sleep(seconds) from public.naps; return new; end $$;
         create trigger catches before update on graphile_worker.jobs for each row
           when (new.last_error is not null and old.last_error is null) execute function catches();
         update naps set seconds = 1",
    );
    cluster.wait_for(IDLE, "1");
    let worker = cluster.text("select pid from kongtask.workers");
    cluster.sql("select graphile_worker.add_job('again', '1')");
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
    cluster.wait_for("select last_error like 'the first attempt%' from graphile_worker.jobs", "t");
    cluster.wait_for(IDLE, "1");
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker, "{}", cluster.log());
}

/// What a server, a database or a role may have set that would break statements that do not expect it.
const HOSTILE: &[&str] = &[
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "idle_session_timeout = '1ms'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "search_path = 'pg_temp'",
    "row_security = off",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "array_nulls = off",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "work_mem = '64kB'",
    "enable_indexscan = off",
    "enable_bitmapscan = off",
    // Such plans are dear enough to be compiled, which takes longer than all else.
    "jit = off",
    "plan_cache_mode = force_generic_plan",
    "check_function_bodies = off",
    "synchronous_commit = off",
];

fn hostile(cluster: &Cluster) -> Vec<&'static str> {
    // One that is shorter lets nobody log in.
    let newer = (cluster.version() >= 17).then_some("transaction_timeout = '300ms'");
    HOSTILE.iter().copied().chain(newer).collect()
}

/// Tests go on as this superuser, whatever is set for others.
const EXCEPT_FOR_US: &str = "alter role postgres set statement_timeout = 0; alter role postgres set lock_timeout = 0;
    alter role postgres set idle_in_transaction_session_timeout = 0; alter role postgres set idle_session_timeout = 0;
    alter role postgres set search_path = public;
    alter role postgres set default_transaction_isolation = 'read committed'; alter role postgres set row_security = on;
    alter role postgres set datestyle = 'ISO'";

#[test]
fn no_setting_of_the_server_the_database_or_the_role_breaks_workers_or_the_scheduler() {
    let cluster = cluster(&[]);
    cluster.sql(EXCEPT_FOR_US);
    if cluster.version() >= 17 {
        cluster.sql("alter role postgres set transaction_timeout = 0");
    }
    cluster.sql("update naps set seconds = 0.6");
    let hostile = hostile(&cluster);
    let mut count = 0;
    for place in ["server", "database", "role"] {
        match place {
            "server" => cluster.configure(&hostile),
            "database" => {
                hostile.iter().for_each(|setting| cluster.sql(&format!("alter database postgres set {setting}")));
            }
            _ => hostile.iter().for_each(|setting| cluster.sql(&format!("alter role alice set {setting}"))),
        }
        cluster.stop("fast");
        cluster.start();
        cluster.wait_for("select count(*) from kongtask.workers where role = 'alice' and state = 'idle'", "4");
        let mut db = cluster.connect();
        let workers = rows(&mut db, "select pid from kongtask.workers order by 1");
        let complaints = || cluster.log_lines(&["ERROR", "WARNING", "FATAL", "PANIC"]);
        // A worker that was being started when the server stopped says so.
        let before = complaints().len();
        for _ in 0..5 {
            count += every_kind::add(&mut db, count + 1).expect("add_job");
        }
        count += 1;
        db.batch_execute(&format!("select graphile_worker.add_job('rest', '{count}')")).expect("add_job");
        drains_once(&cluster, count);
        assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers, "{place}\n{}", cluster.log());
        let ours = complaints().split_off(before);
        assert!(!ours.iter().any(|line| line.contains(" kongtask ")), "{place}: {ours:?}");
    }
}

/// The handler is not to blame for what the queue's own statements wait for.
#[test]
fn lock_timeout_does_not_fail_a_job_whose_queue_somebody_adds_to() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql("alter role alice set lock_timeout = '1ms'; update naps set seconds = 0.5");
    cluster.wait_for(IDLE, "1");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers");
    cluster.sql("select graphile_worker.add_job('rest', '1', queue_name := 'q')");
    cluster.wait_for(RUNNING, "1");
    let mut db = cluster.connect();
    db.batch_execute(
        "begin; select graphile_worker.add_job('note', '2', queue_name := 'q'); select pg_sleep(1); commit",
    )
    .expect("add_job");
    cluster.wait_for("select string_agg(n::text, ',' order by at) from done", "1,2");
    // Nor is the worker.
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
    assert!(!cluster.log().contains("failed on attempt"), "{}", cluster.log());
}

/// Adds jobs of every kind until told to stop, or the server is gone; how many it was told are there.
fn load(cluster: &Cluster, stop: &AtomicBool, added: &AtomicUsize) {
    let Ok(mut db) = cluster.try_connect_as("postgres", "postgres") else { return };
    while !stop.load(SeqCst) {
        let Ok(count) = every_kind::add(&mut db, added.load(SeqCst) + 1) else { return };
        added.fetch_add(count, SeqCst);
    }
}

/// Tells others to stop when its owner is done, or fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Does something to a cluster under load, a few times; that each job ran once.
fn under_load(cluster: &Cluster, mut disturb: impl FnMut(&mut Client)) {
    let (stop, added) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| load(cluster, &stop, &added));
        let _stops = Stops(&stop);
        let mut db = cluster.connect();
        for round in 1..=5 {
            // Something has been added since, and runs.
            let some = added.load(SeqCst) + 200;
            assert!(wait_until(SOON, || added.load(SeqCst) > some), "round {round}\n{}", cluster.log());
            disturb(&mut db);
        }
    });
    drains_once(cluster, added.load(SeqCst));
    // A deadlock with one of those is an error, and nothing else comes of it.
    assert_eq!(cluster.log_lines(&["WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn statements_that_rewrite_the_tables_lose_and_repeat_nothing() {
    let cluster = cluster(&[]);
    let mut statements = [
        "vacuum full graphile_worker.jobs",
        "vacuum full graphile_worker.job_queues",
        "reindex table graphile_worker.jobs",
        "reindex table concurrently graphile_worker.jobs",
        "cluster graphile_worker.jobs using jobs_pkey",
        "alter table graphile_worker.jobs set (fillfactor = 70)",
        "alter table graphile_worker.jobs add column more int; alter table graphile_worker.jobs drop column more",
        "alter table graphile_worker.jobs alter priority set statistics 10",
        "vacuum (full, freeze)",
        "analyze",
    ]
    .iter()
    .cycle();
    under_load(&cluster, |db| {
        for _ in 0..2 {
            let statement = statements.next().expect("a cycle");
            db.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
        }
    });
}

#[test]
fn handlers_can_be_replaced_and_rights_taken_while_they_run() {
    let cluster = cluster(&[]);
    cluster.sql("update naps set seconds = 0.7");
    cluster.wait_for(IDLE, "4");
    let mut db = cluster.connect();
    let workers = rows(&mut db, "select pid from kongtask.workers order by 1");
    for (n, (take, sqlstate, give)) in [
        (
            "create or replace function rest(p json) returns void language plpgsql as $$ begin raise 'new'; end $$",
            "P0001",
            "create or replace function rest(p json) returns void language plpgsql as $$ begin
               insert into public.done (n) values ((p #>> '{}')::bigint); perform pg_sleep(seconds) from public.naps; end $$",
        ),
        (
            "revoke execute on function rest(json) from alice, public",
            "42501",
            "grant execute on function rest(json) to public",
        ),
        ("revoke insert on done from alice", "42501", "grant insert on done to alice"),
        ("revoke usage on schema public from public, alice", "42501", "grant usage on schema public to public, alice"),
        (
            "alter function rest(json) rename to rested",
            "42883",
            "alter function rested(json) rename to rest",
        ),
    ]
    .iter()
    .enumerate()
    {
        let (during, after) = (n * 2 + 1, n * 2 + 2);
        db.batch_execute(&format!("select graphile_worker.add_job('rest', '{during}')")).expect("add_job");
        // The handler itself, not only its worker.
        cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
        db.batch_execute(take).expect(take);
        // The one that runs ends as it began; the next meets what is there now.
        db.batch_execute(&format!("select graphile_worker.add_job('rest', '{after}')")).expect("add_job");
        cluster.wait_for("select count(*) from graphile_worker.jobs where last_error is not null", "1");
        let says = text(&mut db, "select last_error from graphile_worker.jobs where last_error is not null");
        assert!(says.contains(&format!("(SQLSTATE {sqlstate})")), "{take}: {says}");
        db.batch_execute(give).expect(give);
        drains_once(&cluster, after);
    }
    assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers);
}

#[test]
fn the_extension_can_be_dropped_and_created_again_under_load() {
    let cluster = Cluster::with_extension(&["kongtask.shutdown_timeout = '1s'"]);
    let tasks = "create or replace function note(p json) returns void language sql as
          $$ insert into public.done (n) values ((p #>> '{}')::bigint) $$;
        select kongtask.register_task('note', 'note(json)')";
    cluster.sql(&format!("create table done (n bigint); {tasks}"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut db = cluster.connect();
            while !stop.load(SeqCst) {
                // While it is away that fails.
                let _ = db.batch_execute("select graphile_worker.add_job('note', '0') from generate_series(1, 20)");
            }
        });
        let _stops = Stops(&stop);
        let mut db = cluster.connect();
        for round in 1..=6 {
            let (drop, create) = ("drop extension kongtask", "create extension kongtask");
            if round % 2 == 0 {
                db.batch_execute(&format!("begin; {drop}; {create}; commit")).expect("in one transaction");
            } else {
                db.batch_execute(drop).expect(drop);
                db.batch_execute(create).expect(create);
            }
            db.batch_execute(tasks).expect("register");
            db.batch_execute(&format!("select graphile_worker.add_job('note', '{round}')")).expect("add_job");
            let count = format!("select count(*) from done where n = {round}");
            assert!(wait_until(SOON, || text(&mut db, &count) == "1"), "round {round}\n{}", cluster.log());
        }
    });
    cluster.wait_for(JOBS, "0");
    cluster.wait_for(IDLE, "4");
    assert_eq!(cluster.text(LOCKED), "0");
    assert_eq!(cluster.log_lines(&["PANIC"]), Vec::<String>::new());
}

/// DROP EXTENSION would lock the sequence first, and the table then; who adds a job, the other way round.
#[test]
fn drop_extension_and_add_job_do_not_wait_for_each_other() {
    let cluster = cluster(&[]);
    let mut db = cluster.connect();
    db.batch_execute("begin; lock table graphile_worker.jobs in row exclusive mode").expect("lock");
    thread::scope(|scope| {
        let dropping = scope.spawn(|| cluster.connect().batch_execute("drop extension kongtask cascade"));
        cluster.wait_for(
            "select count(*) from pg_stat_activity where query = 'drop extension kongtask cascade' and wait_event_type = 'Lock'",
            "1",
        );
        db.batch_execute("select graphile_worker.add_job('note', '1'); commit")
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
        dropping.join().expect("a thread").unwrap_or_else(|e| panic!("{}", describe(&e)));
    });
}

/// What the role may no longer do while its jobs wait, and what gives it back.
#[test]
fn jobs_of_a_role_that_may_not_log_in_wait_until_it_may() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql("select kongtask.register_task('ours', 'note(json)')");
    let mut db = cluster.connect();
    for (n, (take, give)) in [
        ("alter role alice nologin", "alter role alice login"),
        ("revoke connect on database postgres from public", "grant connect on database postgres to public"),
        ("alter role alice valid until '2000-01-01' nologin", "alter role alice login"),
    ]
    .iter()
    // Since 17, a worker needs no LOGIN.
    .filter(|(take, _)| cluster.version() < 17 || !take.contains("nologin"))
    .enumerate()
    {
        let (n, theirs) = (n + 1, format!("select count(*) from done where n = {}", n + 1));
        db.batch_execute(take).expect(take);
        // Those that are there may stay; new ones are what is refused.
        db.batch_execute("select pg_terminate_backend(pid) from kongtask.workers where role = 'alice'")
            .expect("terminate");
        cluster.wait_for(
            "select count(*) from kongtask.workers where role = 'alice' and state in ('idle', 'running')",
            "0",
        );
        db.batch_execute(&format!(
            "select graphile_worker.add_job('note', '{n}'), graphile_worker.add_job('ours', '{}')",
            n + 100
        ))
        .expect("add_job");
        cluster.wait_for(&format!("select count(*) from done where n = {}", n + 100), "1");
        assert_eq!(text(&mut db, &theirs), "0", "{take}");
        db.batch_execute(give).expect(give);
        cluster.wait_for(&theirs, "1");
        assert_eq!(text(&mut db, "select max(attempts) from graphile_worker.jobs"), "", "{take}");
    }
}

#[test]
fn a_role_can_be_dropped_and_its_tasks_taken_over() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.shutdown_timeout = '1s'"]);
    cluster.sql("select kongtask.register_task('ours', 'note(json)')");
    cluster.wait_for("select count(*) > 0 from kongtask.workers where role = 'alice' and state = 'idle'", "t");
    cluster.sql("update naps set seconds = 60; select graphile_worker.add_job('rest', '1')");
    cluster.wait_for(RUNNING, "1");
    cluster.sql("reassign owned by alice to postgres; drop owned by alice; drop role alice");
    // As any session of a role that was dropped, it goes on until it ends. None comes after it, and others do not suffer.
    cluster.sql(
        "update naps set seconds = 0; select pg_terminate_backend(pid) from kongtask.workers where state = 'running'",
    );
    cluster.wait_for(RUNNING, "0");
    cluster.sql("select graphile_worker.add_job('ours', '2'), graphile_worker.add_job('note', '3')");
    cluster.wait_for("select count(*) from done where n = 2", "1");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    cluster.stop("fast");
    cluster.start();
    cluster.sql("select graphile_worker.add_job('ours', '4')");
    cluster.wait_for("select count(*) from done where n = 4", "1");
    // It is said, and no worker is started as that role.
    cluster.wait_for_log("tasks wait because the roles of these tasks do not exist");
    assert!(!cluster.log().contains("could log in"), "{}", cluster.log());
    // A role of the same name is another; whoever registers them has them.
    cluster.sql(
        "create role alice login; grant usage on schema kongtask, graphile_worker to alice;
        grant execute on function kongtask.register_task to alice; grant insert on done to alice;
        grant usage on sequence done_at_seq to alice; grant select on naps to alice;",
    );
    cluster.sql("select kongtask.unregister_task(identifier) from kongtask.tasks where identifier in ('note', 'rest')");
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(
            "select kongtask.register_task('note', 'note(json)'), kongtask.register_task('rest', 'rest(json)')",
        )
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select string_agg(n::text, ',' order by n) from done"), "1,2,3,4");
}

#[test]
fn a_server_full_of_connections_still_runs_jobs_and_replaces_workers() {
    let cluster = cluster(&["max_connections = 12", "superuser_reserved_connections = 3"]);
    cluster.wait_for(IDLE, "4");
    let mut db = cluster.connect();
    let mut others = Vec::new();
    let refused = loop {
        match cluster.try_connect_as("postgres", "postgres") {
            Ok(other) => others.push(other),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code().map(|code| code.code()), Some("53300"));
    db.batch_execute("select pg_terminate_backend(pid) from pg_stat_activity where backend_type like 'kongtask%'")
        .expect("terminate");
    db.batch_execute("select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 100) n")
        .expect("add_job");
    assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{}", cluster.log());
    assert_eq!(text(&mut db, ONCE), "100 100");
    assert!(wait_until(SOON, || text(&mut db, IDLE) == "4"), "{}", cluster.log());
}

const REPLICATED: [&str; 3] = ["wal_level = replica", "max_wal_senders = 4", "kongtask.shutdown_timeout = '1s'"];

#[test]
fn everything_that_writes_refuses_on_a_standby() {
    let cluster = cluster(&REPLICATED);
    cluster.sql("select graphile_worker.add_job('elsewhere', job_key := 'k')");
    let standby = cluster.standby();
    let mut db = standby.connect();
    for call in [
        "graphile_worker.add_job('note')",
        "graphile_worker.add_jobs(array[('note', null, null, null, null, null, null, null)]::graphile_worker.job_spec[])",
        "graphile_worker.get_job('an external worker')",
        "graphile_worker.complete_job('an external worker', 1)",
        "graphile_worker.fail_job('an external worker', 1, 'no')",
        "graphile_worker.complete_jobs('{1}')",
        "graphile_worker.permanently_fail_jobs('{1}')",
        "graphile_worker.reschedule_jobs('{1}', run_at := now())",
        "graphile_worker.remove_job('k')",
        "graphile_worker.force_unlock_workers('{me}')",
        "kongtask.register_task('note', 'note(json)')",
        "kongtask.unregister_task('note')",
    ] {
        assert_eq!(error(&mut db, &format!("select {call}")).0, "25006", "{call}");
    }
    assert_eq!(text(&mut db, "select count(*) from pg_stat_activity where backend_type like 'kongtask%'"), "0");
}

/// Of what was replicated: the primary may know of more.
#[test]
fn what_was_replicated_runs_once_after_the_primary_died_under_load() {
    let cluster = cluster(&REPLICATED);
    let standby = cluster.standby();
    let (stop, added) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| load(&cluster, &stop, &added));
        let _stops = Stops(&stop);
        // Retries, queues and keys among them are under way.
        standby.wait_for("select count(*) >= 2000 from done", "t");
        cluster.kill_9(cluster.postmaster());
    });
    standby.promote();
    let mut db = standby.connect();
    let begun = Instant::now();
    standby.wait_for("select count(*) > 0 from kongtask.workers where state in ('idle', 'running')", "t");
    let came = wait_until(SOON, || text(&mut db, LOCKED) == "0" || text(&mut db, RUNNING) != "0");
    assert!(came && begun.elapsed() < SOON, "{:?}\n{}", begun.elapsed(), standby.log());
    // A transaction of 20 jobs came over as a whole or not at all.
    let total = "select (select count(*) from done) + (select count(*) from graphile_worker.jobs)";
    let count: usize = text(&mut db, total).parse().expect("a number");
    assert_eq!(count % 20, 0);
    drains_once(&standby, count);
    assert_eq!(standby.log_lines(&["ERROR", "WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn a_dead_synchronous_standby_holds_up_commits_and_no_shutdown() {
    let cluster = cluster(&REPLICATED);
    cluster.wait_for(IDLE, "4");
    cluster.sql("alter role postgres set synchronous_commit = local");
    cluster.reload(&["synchronous_standby_names = 'nobody'"]);
    let mut db = cluster.connect();
    assert!(wait_until(SOON, || text(&mut db, "show synchronous_standby_names") == "nobody"));
    every_kind::add(&mut db, 1).expect("add_job");
    cluster.wait_for(
        "select count(*) > 0 from pg_stat_activity where backend_type = 'kongtask worker' and wait_event = 'SyncRep'",
        "t",
    );
    drop(db);
    let took = cluster.stop("fast");
    assert!(took < Duration::from_secs(1 + 4), "{took:?}\n{}", cluster.log());
    cluster.configure(&["synchronous_standby_names = ''"]);
    cluster.start();
    drains_once(&cluster, 20);
}

/// A file system of a few megabytes, for a tablespace.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where we may not make one.
    fn mount(at: &Path, owner: u32) -> Option<SmallDisk> {
        std::fs::create_dir(at).ok()?;
        let options = format!("size=4m,mode=700,uid={owner}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output().ok()?;
        done.status.success().then(|| SmallDisk(at.to_path_buf()))
    }

    fn grow(&self) {
        let done = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(done.expect("mount").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_failed_attempt_until_there_is_room() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    let owner = std::fs::metadata(cluster.data()).expect("the data directory").uid();
    let Some(disk) = SmallDisk::mount(&PathBuf::from(cluster.host()).join("small"), owner) else {
        return say("skipped a_full_disk_is_a_failed_attempt_until_there_is_room: a tmpfs can be mounted by root only");
    };
    cluster.sql(&format!("create tablespace small location '{}'", disk.0.display()));
    cluster.sql(
        "create table big (n bigint, filler text) tablespace small; alter table big alter filler set storage external;
         grant insert on big to alice;
         create function fill(p json) returns void language sql as
           $$ insert into public.big values ((p #>> '{}')::bigint, repeat('x', 700000)) $$;",
    );
    cluster
        .connect_as("alice", "postgres")
        .batch_execute("select kongtask.register_task('fill', 'fill(json)')")
        .expect("register");
    cluster.wait_for(IDLE, "2");
    let workers = rows(&mut cluster.connect(), "select pid from kongtask.workers order by 1");
    cluster.sql("select graphile_worker.add_job('fill', to_json(n)) from generate_series(1, 8) n");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "0");
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 0", "0");
    let says = cluster.text("select last_error from graphile_worker.jobs limit 1");
    assert!(says.contains("No space left on device") && says.contains("(SQLSTATE 53100)"), "{says}");
    // Everything else goes on.
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done", "1");
    let mut db = cluster.connect();
    disk.grow();
    db.batch_execute(
        "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())",
    )
    .expect("reschedule");
    cluster.wait_for(JOBS, "0");
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from big"), "8 8");
    assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers);
}

/// As if the machine had no more than that.
fn limit_memory(process: i32, bytes: u64) {
    let owner = std::fs::metadata(format!("/proc/{process}")).expect("a process");
    let mut prlimit = Command::new("prlimit");
    prlimit.args([format!("--pid={process}"), format!("--as={bytes}")]).uid(owner.uid()).gid(owner.gid());
    assert!(prlimit.status().expect("prlimit").success());
}

#[test]
fn running_out_of_memory_is_a_failed_attempt() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(
            "create function too_long() returns void language sql as
               $$ select length(repeat(repeat('x', 10000), 100000) || repeat(repeat('x', 10000), 100000)) $$;
             create function too_much() returns void language sql as $$ select length(repeat(repeat('x', 10000), 100000)) $$;
             select kongtask.register_task('too_long', 'too_long()'), kongtask.register_task('too_much', 'too_much()')",
        )
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
    cluster.wait_for(IDLE, "1");
    let worker: i32 = cluster.text("select pid from kongtask.workers").parse().expect("a pid");
    for (task, sqlstate) in [("too_long", "XX000"), ("too_much", "53200")] {
        if task == "too_much" {
            limit_memory(worker, 512 << 20);
        }
        cluster.sql(&format!("select graphile_worker.add_job('{task}', job_key := '{task}')"));
        let says =
            format!("select last_error like '%(SQLSTATE {sqlstate})%' from graphile_worker.jobs where key = '{task}'");
        cluster.wait_for(&says, "t");
        cluster.sql(&format!("select graphile_worker.remove_job('{task}')"));
    }
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done", "1");
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker.to_string());
}

/// What a handler may do to its session that outlives its transaction, or what it set with it.
const LITTER: &[&str] = &[
    "set search_path = pg_catalog",
    "select set_config('work_mem', '123kB', false), set_config('my.litter', 'left', false)",
    "set local work_mem = '123kB'",
    "set statement_timeout = '1ms'",
    "set role bob",
    "set session authorization bob",
    "set session_replication_role = replica",
    "set transaction read only",
    "reset all",
    "create temporary table litter as select 1 as n",
    "create temporary table seen (what jsonb)",
    "create function pg_temp.litter() returns int language sql as 'select 1'",
    "select pg_advisory_lock(1), pg_advisory_lock_shared(2)",
    "listen litter",
    "declare litter cursor with hold for select generate_series(1, 3)",
    "prepare litter as select 1",
    "deallocate all",
    "discard plans",
    "discard sequences",
    "select nextval('public.litter_seq')",
    "do $do$ begin insert into public.half values ('done'); commit; end $do$",
    "call public.commits()",
    "discard all",
];

/// `litter` does as it is told, and looks around if it is told nothing, as `look` does, which is another task.
const LITTERERS: &str = "
    create function look() returns void language plpgsql as $$ declare last text = 'none'; begin
      begin last := lastval(); exception when others then null; end;
      insert into seen values (jsonb_build_object(
        'user', current_user, 'session user', session_user, 'last value', last, 'my', nullif(current_setting('my.litter', true), ''),
        'settings', (select jsonb_object_agg(name, setting) from pg_settings where source = 'session' and name <> 'lock_timeout'),
        'search_path', current_setting('search_path'), 'replication', current_setting('session_replication_role'),
        'tables', (select jsonb_agg(relname) from pg_class where relnamespace = pg_my_temp_schema()),
        'functions', (select jsonb_agg(proname) from pg_proc where pronamespace = pg_my_temp_schema()),
        'locks', (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
        'channels', (select jsonb_agg(channel) from pg_listening_channels() channel),
        'cursors', (select jsonb_agg(name) from pg_cursors), 'prepared', (select jsonb_agg(name) from pg_prepared_statements)));
    end $$;
    create function litter(p json) returns void language plpgsql as $$ begin
      if p ->> 'do' is null then perform look(); else execute p ->> 'do'; end if;
      if p ->> 'fail' is not null then raise 'as told'; end if; end $$;
    create procedure commits() language plpgsql as $$ begin insert into public.half values ('done'); commit; end $$;
    select kongtask.register_task('look', 'look()'), kongtask.register_task('litter', 'litter(json)'),
      kongtask.register_task('litter_batch', 'litter(json)', max_batch := 50);";

/// Has a role run jobs that leave things behind, and tells what the next job met of them.
fn what_is_left(cluster: &Cluster, role: &str) -> Vec<String> {
    cluster.connect_as(role, "postgres").batch_execute(LITTERERS).unwrap_or_else(|e| panic!("{}", describe(&e)));
    let mut db = cluster.connect();
    let mut look = |jobs: &str, looks: usize| {
        db.batch_execute(&format!("truncate seen; begin; {jobs}; commit")).expect(jobs);
        let looked = wait_until(SOON, || {
            // What failed has; what waits behind a failure that time is given to is of no interest.
            text(&mut db, "select count(*) from graphile_worker.jobs where attempts < max_attempts") == "0"
        });
        assert!(looked, "{role}: {jobs}\n{}", cluster.log());
        db.batch_execute("delete from graphile_worker.jobs").expect("delete");
        let seen = rows(&mut db, "select what from seen");
        if seen.len() == looks { seen } else { vec![format!("{} of {looks} looks", seen.len())] }
    };
    let clean = look("select graphile_worker.add_job('look')", 1);
    let mut left = Vec::new();
    for &litter in LITTER {
        for (how, jobs, looks) in [
            ("in place", "add_job('litter', {done}, max_attempts := 1)", 1),
            ("claimed", "add_job('litter', {done}, max_attempts := 1, job_key := 'k')", 1),
            ("and fails", "add_job('litter', {failed}, max_attempts := 1)", 1),
            (
                "in a batch",
                "add_job('litter_batch', {done}, max_attempts := 1), graphile_worker.add_job('litter_batch'),
                 graphile_worker.add_job('litter_batch', {failed}, max_attempts := 1), graphile_worker.add_job('litter_batch')",
                3,
            ),
        ] {
            let payload = |fail: &str| format!("json_build_object('do', $litter${litter}$litter${fail})");
            let jobs = jobs.replace("{done}", &payload("")).replace("{failed}", &payload(", 'fail', true"));
            let seen = look(&format!("select graphile_worker.{jobs}, graphile_worker.add_job('look')"), looks);
            // What shares a transaction shares its locks.
            let shared = if how == "in a batch" { r#""locks": 2"# } else { "" };
            let unlocked = |seen: &String| if shared.is_empty() { seen.clone() } else { seen.replace(shared, r#""locks": 0"#) };
            left.extend(seen.iter().find(|seen| unlocked(seen) != clean[0]).map(|seen| format!("{role}: {litter}, {how}: {seen}")));
        }
    }
    left
}

#[test]
fn nothing_that_a_handler_leaves_behind_reaches_the_next_job() {
    let mut left = Vec::new();
    for role in ["alice", "postgres"] {
        let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
        cluster.sql(
            "create role alice login; create role bob; grant bob to alice; grant create on schema public to alice;
             grant usage on schema kongtask to alice; grant execute on function kongtask.register_task to alice;
             create table seen (what jsonb); create table half (what text); create sequence litter_seq;
             grant all on seen, half, litter_seq to alice",
        );
        left.extend(what_is_left(&cluster, role));
        assert_eq!(cluster.text("select count(*) from half"), "0", "a handler has committed");
        assert_eq!(cluster.text("select count(*) from kongtask.workers"), "1");
        assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC"]), Vec::<String>::new());
    }
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_handler_s_notify_is_sent_if_it_succeeds() {
    let cluster = cluster(&[]);
    cluster.sql(
        "create function tell(p json) returns void language plpgsql as $$ begin
           perform pg_notify('heard', p ->> 'say'); if p ->> 'fail' is not null then raise 'as told'; end if; end $$;
         select kongtask.register_task('tell', 'tell(json)')",
    );
    let mut db = cluster.connect();
    db.batch_execute("listen heard").expect("listen");
    cluster.sql(
        "select graphile_worker.add_job('tell', '{\"say\": \"failed\", \"fail\": true}', queue_name := 'q'),
                graphile_worker.add_job('tell', '{\"say\": \"succeeded\"}', queue_name := 'q')",
    );
    let said = db.notifications().timeout_iter(SOON).next().expect("a notification").map(|n| n.payload().to_string());
    assert_eq!(said.as_deref(), Some("succeeded"));
    cluster.wait_for("select count(*) from graphile_worker.jobs where last_error is not null", "1");
}
