//! Who is woken, when, and who is not.

use kongtask_tests::fixtures::{add, without_polling};
use kongtask_tests::{Cluster, SOON, every_kind, rows, text, wait_until};
use postgres::fallible_iterator::FallibleIterator;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// A cluster whose safety net is an hour away: what runs was woken.
fn cluster() -> Cluster {
    let cluster = Cluster::with_extension(&["kongtask.poll_interval = '1h'", "max_prepared_transactions = 4"]);
    cluster.sql(
        "create table done (what text, at timestamptz default clock_timestamp());
         create function note(p json) returns void language sql as $$ insert into done select p #>> '{}' $$;
         select kongtask.register_task('note', 'note(json)')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    cluster
}

#[test]
fn a_commit_wakes_and_a_rollback_does_not() {
    let cluster = cluster();
    let mut db = cluster.connect();
    let since = "select string_agg(since::text, ',' order by pid) from kongtask.workers";
    let before = text(&mut db, since);
    db.batch_execute("begin; select graphile_worker.add_job('note', '1'); rollback").expect("rollback");
    db.batch_execute("begin; savepoint s; select graphile_worker.add_job('note', '1'); rollback to s; commit")
        .expect("rollback");
    assert_eq!(text(&mut db, "select count(*) from done"), "0");
    db.batch_execute("begin; select graphile_worker.add_job('note', '2'), pg_sleep(0.3)").expect("add_job");
    assert_eq!(text(&mut db, "select count(*) from done"), "0");
    db.batch_execute("commit").expect("commit");
    cluster.wait_for("select what from done", "2");
    assert_ne!(text(&mut db, since), before);
}

#[test]
fn a_trigger_and_a_plain_insert_wake_too() {
    let cluster = cluster();
    cluster.sql(
        "create table orders (id int);
         create function enqueue() returns trigger language plpgsql as $$ begin
           perform graphile_worker.add_job('note', to_json(new.id)); return new; end $$;
         create trigger enqueue after insert on orders for each row execute function enqueue();",
    );
    cluster.sql("insert into orders select generate_series(1, 50)");
    cluster.wait_for("select count(*) from done", "50");
    cluster.sql("insert into graphile_worker.jobs (task_identifier, payload) values ('note', '51')");
    cluster.wait_for("select count(*) from done", "51");
}

/// Where triggers are off, nobody is told: what the poll is for.
#[test]
fn a_shorter_poll_interval_is_heeded_at_once() {
    let cluster = cluster();
    cluster.sql(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, payload) values ('note', '1'); select pg_sleep(0.5)",
    );
    assert_eq!(cluster.text("select count(*) from done"), "0");
    cluster.reload(&["kongtask.poll_interval = '200ms'"]);
    cluster.wait_for("select what from done", "1");
}

/// Another session may commit it, and the one that added the jobs be gone.
#[test]
fn commit_prepared_wakes_and_rollback_prepared_does_not() {
    let cluster = cluster();
    for run_at in ["now()", "now() + interval '1 s'"] {
        cluster.sql(&format!(
            "begin; select graphile_worker.add_job('note', '1', run_at := {run_at}); prepare transaction 'one'"
        ));
        cluster.sql("begin; select graphile_worker.add_job('note', '2'); prepare transaction 'two'");
        // The scheduler has looked for what falls due, and is past it.
        cluster.sql("select graphile_worker.add_job('note', '0', run_at := now() + interval '100 ms')");
        cluster.wait_for("select string_agg(what, ' ') from done", "0");
        cluster.sql("commit prepared 'one'");
        cluster.sql("rollback prepared 'two'");
        cluster.wait_for("select string_agg(what, ' ' order by at) from done", "0 1");
        cluster.sql("truncate done");
    }
    // Amidst others, behind those that are begun and before the rest.
    cluster.reload(&["kongtask.workers = 1"]);
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    cluster.sql(
        "create function nap() returns void language sql as $$ select pg_sleep(0.3); insert into done values ('nap') $$;
         select kongtask.register_task('nap', 'nap()')",
    );
    cluster.sql("begin; select graphile_worker.add_job('note', '1', priority := 1); prepare transaction 'one'");
    cluster.sql("select graphile_worker.add_job('nap', priority := p) from unnest(array[0, 0, 2]) p");
    cluster.sql("commit prepared 'one'");
    cluster.wait_for("select string_agg(what, ' ' order by at) from done", "nap nap 1 nap");
}

/// Nobody has noted anything in a database that is not served yet.
#[test]
fn commit_prepared_of_what_creates_the_extension_has_its_jobs_run() {
    let cluster = cluster();
    cluster.sql("create database other");
    let mut db = cluster.connect_as("postgres", "other");
    db.batch_execute(
        "create table done (n int);
         create function note() returns void language sql as $$ insert into done values (1) $$;
         begin; create extension kongtask; select kongtask.register_task('note', 'note()'), graphile_worker.add_job('note');
         prepare transaction 'created'",
    )
    .expect("prepare");
    db.batch_execute("commit prepared 'created'").expect("commit");
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from done") == "1"), "{}", cluster.log());
}

/// Each could have added a job anywhere: all is searched again, no more often than it is anyway.
#[test]
fn many_prepared_transactions_do_not_have_a_long_backlog_searched_for_each() {
    const BACKLOG: u64 = 50_000;
    let cluster = cluster();
    cluster.sql(&format!(
        "create table other (n int);
         insert into graphile_worker.jobs (task_identifier, priority) select 'elsewhere', -1 from generate_series(1, {BACKLOG});
         analyze graphile_worker.jobs"
    ));
    let mut db = cluster.connect();
    let read = "select sum(idx_tup_read)::text from pg_stat_user_indexes where relname = 'jobs'";
    let mut entries = || text(&mut db, read).parse::<u64>().expect("a number");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    let before = entries();
    let mut other = cluster.connect();
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        other
            .batch_execute("begin; insert into other values (1); prepare transaction 'other'")
            .and_then(|()| other.batch_execute("commit prepared 'other'"))
            .expect("commit");
        count += 1;
    }
    // What is added among them is found.
    other
        .batch_execute("begin; select graphile_worker.add_job('note', '1'); prepare transaction 'one'")
        .and_then(|()| other.batch_execute("commit prepared 'one'"))
        .expect("commit");
    cluster.wait_for("select what from done", "1");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    let read = entries() - before;
    assert!(count > 100, "{count}");
    assert!(read < 60 * BACKLOG, "{read} for {count}");
}

#[test]
fn a_future_job_runs_when_it_is_due() {
    let cluster = cluster();
    let mut db = cluster.connect();
    db.batch_execute(
        "select graphile_worker.add_job('note', '\"later\"', run_at := now() + interval '1 hour');
         select graphile_worker.add_job('note', '\"second\"', run_at := now() + interval '1.5 seconds', priority := 9);
         select graphile_worker.add_job('note', '\"first\"', run_at := now() + interval '1 second', priority := 10);",
    )
    .expect("add_job");
    db.batch_execute("create table due as select payload #>> '{}' as what, run_at from graphile_worker.jobs")
        .expect("copy");
    cluster.wait_for("select string_agg(what, ',' order by at) from done", "first,second");
    let late = rows(&mut db, "select extract(epoch from at - run_at) from done join due using (what)");
    for seconds in late {
        let seconds: f64 = seconds.parse().expect("a number");
        assert!((0.0..1.0).contains(&seconds), "{seconds}");
    }
    // Made due by hand, it runs at once.
    db.batch_execute(
        "select graphile_worker.reschedule_jobs(array_agg(id), run_at := now()) from graphile_worker.jobs",
    )
    .expect("reschedule");
    cluster.wait_for("select count(*) from done", "3");
}

#[test]
fn a_released_queue_and_a_new_registration_wake() {
    let cluster = cluster();
    let mut db = cluster.connect();
    db.batch_execute(
        "select graphile_worker.add_job('elsewhere', queue_name := 'q');
         select graphile_worker.add_job('note', '\"after\"', queue_name := 'q', priority := 1);
         select graphile_worker.add_job('unknown', '\"registered\"');",
    )
    .expect("add_job");
    // An external worker may have been slower than ours.
    cluster.wait_for("select count(*) from done", "1");
    db.batch_execute("delete from done; select graphile_worker.complete_jobs(array(select id from graphile_worker.jobs where queue_name = 'q'))").expect("clear");
    db.batch_execute("select graphile_worker.add_job('elsewhere', queue_name := 'q')").expect("add_job");
    assert_eq!(
        text(&mut db, "select task_identifier from graphile_worker.get_job('external-worker', array['elsewhere'])"),
        "elsewhere"
    );
    db.batch_execute("select graphile_worker.add_job('note', '\"after\"', queue_name := 'q')").expect("add_job");
    db.batch_execute("select graphile_worker.complete_job('external-worker', (select id from graphile_worker.jobs where locked_by = 'external-worker'))").expect("complete");
    cluster.wait_for("select string_agg(what, ',') from done", "after");
    db.batch_execute("select kongtask.register_task('unknown', 'note(json)')").expect("register");
    cluster.wait_for("select string_agg(what, ',') from done", "after,registered");
}

#[test]
fn notify_is_for_identifiers_that_nobody_handles_here() {
    let cluster = cluster();
    let mut listener = cluster.connect();
    listener.batch_execute("listen \"jobs:insert\"").expect("listen");
    let mut db = cluster.connect();
    let mut heard = |db: &mut postgres::Client, statement: &str| {
        db.batch_execute(statement).expect(statement);
        db.batch_execute("notify \"jobs:insert\", 'end'").expect("notify");
        let mut notifications = listener.notifications();
        let mut heard = Vec::new();
        let mut iterator = notifications.timeout_iter(SOON);
        while let Some(notification) = iterator.next().expect("a notification") {
            if notification.payload() == "end" {
                return heard.len();
            }
            heard.push(notification.payload().to_string());
        }
        panic!("no notification at all")
    };
    assert_eq!(heard(&mut db, "select graphile_worker.add_job('note')"), 0);
    assert_eq!(heard(&mut db, "select graphile_worker.add_job('elsewhere')"), 1);
    assert_eq!(heard(&mut db, "begin; select graphile_worker.add_job('elsewhere', job_key := 'k'); commit"), 1);
    assert_eq!(heard(&mut db, "select graphile_worker.add_job('elsewhere', job_key := 'k')"), 1);
    assert_eq!(heard(&mut db, "begin; select graphile_worker.add_job('elsewhere'); rollback"), 0);
    assert_eq!(heard(&mut db, "select kongtask.unregister_task('note'); select graphile_worker.add_job('note')"), 1);
}

#[test]
fn idle_costs_nothing() {
    // As installed: the safety net every two seconds, and nothing else.
    let cluster =
        Cluster::with_extension(&["autovacuum = off", "checkpoint_timeout = '1h'", "bgwriter_lru_maxpages = 0"]);
    cluster.sql(
        "create function note(p json) returns void language sql as ''; select kongtask.register_task('note', 'note(json)');
         select graphile_worker.add_job('note', run_at := now() + interval '1 day')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    cluster.sql("checkpoint");
    let mut db = cluster.connect();
    let state = "select pg_current_wal_insert_lsn() || ' ' || pg_snapshot_xmax(pg_current_snapshot()) || ' ' ||
                 (select string_agg(pid || '@' || since, ',' order by pid) from kongtask.workers)";
    // The server itself logs a snapshot of running transactions within 15 seconds of the last activity: let that pass.
    let quiet = Duration::from_secs(10);
    let (mut before, mut since) = (text(&mut db, state), Instant::now());
    let stayed = wait_until(Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = text(&mut db, state);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        since.elapsed() > quiet
    });
    assert!(stayed, "never quiet for {quiet:?}");
}

/// Of a worker that runs many jobs it is known between which ids they lie: what falls due there may be one of them, or not.
#[test]
fn what_falls_due_among_jobs_that_somebody_runs_is_run() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    every_kind::prepare(&cluster);
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "1");
    cluster.sql(
        "update naps set seconds = 1;
         begin;
         select graphile_worker.add_job('rest_set', '1');
         select graphile_worker.add_job('rest_set', '2', run_at := now() + interval '200 ms');
         select graphile_worker.add_job('note', '3', run_at := now() + interval '200 ms');
         select graphile_worker.add_job('rest_set', '4');
         commit",
    );
    cluster.wait_for("select string_agg(n::text, ' ' order by n) from done", "1 2 3 4");
}

#[test]
fn a_commit_wakes_as_many_as_it_adds_jobs() {
    let cluster = without_polling(&["kongtask.workers = 4"]);
    cluster.sql("select kongtask.register_task('note', 'note(json)')");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    let mut db = cluster.connect();
    let since = "select pid, since from kongtask.workers order by pid";
    for jobs in [1, 2] {
        // Once what the scheduler has woken some for, the new task, is done with.
        let mut before = Vec::new();
        let is_quiet = wait_until(SOON, || {
            let now = rows(&mut db, since);
            let is_same = now == before;
            before = now;
            thread::sleep(Duration::from_millis(300));
            is_same
        });
        assert!(is_quiet);
        db.batch_execute(&format!("truncate done; {}", add("note", jobs))).expect("add_job");
        cluster.wait_for("select count(*) from done", &jobs.to_string());
        cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
        let changed = rows(&mut db, since).iter().zip(&before).filter(|(after, before)| after != before).count();
        assert!((1..=jobs).contains(&changed), "{changed} woken for {jobs}");
    }
}

/// Each would have it search the table, beside the sessions that add jobs, for workers that may not be.
#[test]
fn commits_do_not_wake_a_scheduler_that_may_start_no_worker() {
    const JOBS: u64 = 500;
    let cluster = without_polling(&["kongtask.workers = 0"]);
    cluster.sql("select kongtask.register_task('note', 'note(json)')");
    let pid = cluster.text("select pid from pg_stat_activity where backend_type = 'kongtask scheduler'");
    // Each pass ends with a sleep.
    let sleeps = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a count");
        count.trim().parse::<u64>().expect("a number")
    };
    let mut db = cluster.connect();
    let before = sleeps();
    for n in 0..JOBS {
        db.batch_execute(&format!("select graphile_worker.add_job('note', '{n}')")).expect("add_job");
    }
    let passes = sleeps() - before;
    assert!(passes > 0, "it was not told of the first one");
    assert!(passes < JOBS / 10, "{passes} passes for {JOBS} jobs");
    cluster.reload(&["kongtask.workers = 2"]);
    cluster.wait_for("select count(*) from done", &JOBS.to_string());
    // Commits tell again.
    db.batch_execute("select graphile_worker.add_job('note', '-1')").expect("add_job");
    cluster.wait_for("select count(*) from done where n = -1", "1");
}
