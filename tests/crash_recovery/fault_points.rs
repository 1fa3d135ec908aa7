//! Processes that fail, or stand still, at a certain point in the life of a job: each point in the code is hit, in each way
//! in which a process can fail there, and nothing is lost, or done twice, or left behind.

use kongtask_tests::every_kind::{self, drains_once};
use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::{Cluster, IDLE, JOBS, LOCKED, SOON, error, pg_config, text, wait_until};
use postgres::Client;
use std::fs;

/// What an enqueuer was promised is a row of `wanted`, of the same transaction as the job.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_faults(&[&["restart_after_crash = on", "kongtask.workers = 2"], settings].concat());
    every_kind::prepare(&cluster);
    cluster.sql("create table wanted (n bigint)");
    cluster
}

/// A connection, once the server takes one.
fn connect(cluster: &Cluster) -> Client {
    let mut db = None;
    let came = wait_until(SOON, || {
        db = cluster.try_connect_as("postgres", "postgres").ok();
        db.is_some()
    });
    assert!(came, "{}", cluster.log());
    db.expect("a connection")
}

/// The points, and what brings a process there, if it is not the load: that another fails at another.
const POINTS: &[(&str, Option<(&str, &str)>)] = &[
    ("added", None),
    ("searched", None),
    ("taking", None),
    ("taken", None),
    ("chosen", None),
    ("claiming", None),
    ("claimed", None),
    ("went_on", None),
    ("called", None),
    ("completed", None),
    ("settled", None),
    ("failing", None),
    ("failed", None),
    ("tired", None),
    ("idle", None),
    ("looking", None),
    ("launching", Some(("looking", "exit"))),
    ("recovering", Some(("looking", "exit"))),
    ("releasing", Some(("claimed", "exit"))),
    ("charging", Some(("called", "crash"))),
];

/// Has a process fail at each point while jobs of every kind are added and run; that each job has its effect once, and jobs of
/// transactions that were rolled back have none.
fn everything_is_done_once_although_processes(action: &str) {
    let cluster = cluster(&["kongtask.poll_interval = '1h'"]);
    let mut next = 1;
    let takes_down = |action| ["crash", "kill"].contains(&action);
    // Nothing but a crash can come between a commit and telling of it.
    let after_commit = takes_down(action).then_some(("committed", None));
    for (point, provoked_by) in POINTS.iter().copied().chain(after_commit) {
        let crashes = || cluster.log().matches("all server processes terminated; reinitializing").count();
        let mut provoked = crashes();
        cluster.arm(point, action);
        let came = wait_until(SOON, || {
            // Once may not do: of jobs that shared a call, none is charged. Not before the last crash has taken the server down, as
            // another process might crash with it.
            if let Some((point, action)) = provoked_by
                && !cluster.is_armed(point)
                && crashes() >= provoked
            {
                cluster.arm(point, action);
                provoked += usize::from(takes_down(action));
            }
            if let Ok(mut db) = cluster.try_connect_as("postgres", "postgres") {
                let wanted = format!("insert into wanted select generate_series({next}, {})", next + 19);
                // Any of it may fail, or be lost.
                let _ = db.batch_execute("begin").and_then(|()| db.batch_execute(&wanted));
                let _ = every_kind::add(&mut db, next).and_then(|_| db.batch_execute("commit"));
                // Has the table be searched from its beginning.
                let _ = db.batch_execute("select kongtask.register_task('other', 'note(json)')");
                next += 20;
            }
            !cluster.is_armed(point)
        });
        assert!(came, "nobody came to {point} ({action})\n{}", cluster.log());
        if let Some((point, action)) = provoked_by
            && cluster.disarm(point)
        {
            provoked -= usize::from(takes_down(action));
        }
        let expected = provoked + usize::from(takes_down(action));
        assert!(wait_until(SOON, || crashes() >= expected), "{point}\n{}", cluster.log());
        let mut db = connect(&cluster);
        let count: usize = text(&mut db, "select count(*) from wanted").parse().expect("a number");
        drains_once(&cluster, count);
        let others = "select count(*) from (select n from done except select n from wanted) as others";
        assert_eq!(text(&mut db, others), "0", "{point} ({action})");
        assert_eq!(text(&mut db, LOCKED), "0", "{point} ({action})");
    }
    // Whoever failed was replaced.
    cluster.wait_for(IDLE, "2");
    assert_eq!(cluster.log_lines(&["PANIC"]), Vec::<String>::new());
    if action == "cancel" {
        let ours = |line: &String| line.contains(" kongtask ");
        assert!(!cluster.log_lines(&["ERROR"]).iter().any(ours), "a cancel ended a process\n{}", cluster.log());
    }
}

#[test]
fn everything_is_done_once_although_processes_crash() {
    everything_is_done_once_although_processes("crash");
}

#[test]
fn everything_is_done_once_although_processes_are_killed() {
    everything_is_done_once_although_processes("kill");
}

#[test]
fn everything_is_done_once_although_processes_exit() {
    everything_is_done_once_although_processes("exit");
}

#[test]
fn everything_is_done_once_although_processes_meet_an_error() {
    everything_is_done_once_although_processes("error");
}

#[test]
fn everything_is_done_once_although_processes_panic() {
    everything_is_done_once_although_processes("panic");
}

/// It is for what a handler runs. Where it hits a statement of the queue's own, that goes on.
#[test]
fn everything_is_done_once_although_processes_are_cancelled() {
    everything_is_done_once_although_processes("cancel");
}

/// It logs a failure, at which a process would serve that interrupt, before it comes to count what was done.
#[test]
fn a_worker_that_is_terminated_as_it_commits_a_batch_counts_all_of_it() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function some_fail(p json) returns void language plpgsql as $$ begin
           if p::text = '1' then raise 'the first'; end if;
         end $$;
         select kongtask.register_task('some', 'some_fail(json)', max_batch := 20)",
    );
    cluster.wait_for(IDLE, "1");
    cluster.arm("completed", "stop");
    cluster.sql("select graphile_worker.add_job('some', to_json(n), max_attempts := 1) from generate_series(1, 10) n");
    let mut db = connect(&cluster);
    let worker = stopped(&cluster, &mut db);
    db.execute("select pg_terminate_backend($1)", &[&worker]).expect("terminate");
    go_on(worker);
    cluster.wait_for(&format!("select count(*) from pg_stat_activity where pid = {worker}"), "0");
    let counted = "select concat_ws(' ', succeeded, failed) from kongtask.stat_tasks where task = 'some'";
    assert_eq!(text(&mut db, counted), "9 1");
}

/// It was the handler's, which did not come to serve it, and nobody else's.
#[test]
fn a_cancel_that_comes_as_a_handler_ends_is_a_failed_attempt() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql("create function fault(what json) returns void language c as '$libdir/kongtask', 'kongtask_fault'");
    cluster.connect_as("alice", "postgres").batch_execute(
        "select kongtask.register_task('fault', 'fault(json)'), kongtask.register_task('claimed', 'fault(json)', in_place := false)",
    ).expect("register");
    cluster.wait_for(IDLE, "1");
    let worker = cluster.text("select pid from kongtask.workers");
    for task in ["fault", "claimed"] {
        cluster.sql(&format!("select graphile_worker.add_job('{task}', '\"cancel\"', max_attempts := 1)"));
        let said = "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs where task_identifier = ";
        cluster.wait_for(&format!("{said}'{task}'"), "canceling statement due to user request (SQLSTATE 57014)");
    }
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
}

/// Nobody polls here: a wake-up that is lost is lost for an hour.
#[test]
fn no_wake_up_is_lost_by_a_process_that_stands_still_when_it_comes() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    // With a second role, the scheduler would look again for other reasons.
    let (mut db, mut alice) = (cluster.connect(), cluster.connect_as("alice", "postgres"));
    let mut n = 0;
    let mut add = |db: &mut Client, run_at: &str| {
        n += 1;
        db.batch_execute(&format!("select graphile_worker.add_job('note', '{n}', run_at := {run_at})"))
            .expect("add_job");
        format!("select count(*) from done where n = {n}")
    };
    for point in ["searched", "taking", "taken", "called", "settled", "tired", "idle", "looking"] {
        for run_at in ["now()", "now() + interval '50 ms'"] {
            cluster.wait_for(IDLE, "1");
            cluster.arm(point, "stop");
            let before = add(&mut db, "now()");
            alice.batch_execute("select kongtask.register_task('other', 'note(json)')").expect("register");
            let pid = stopped(&cluster, &mut db);
            let meanwhile = add(&mut db, run_at);
            // What is due while it stands still is due already when it goes on.
            db.batch_execute("select pg_sleep(0.1)").expect("sleep");
            go_on(pid);
            for query in [before, meanwhile] {
                let came = wait_until(SOON, || text(&mut db, &query) == "1");
                assert!(came, "{point}, {run_at}: {query}\n{}", cluster.log());
            }
        }
    }
}

/// Between its commit and telling of it, an enqueuer may take its time: what it added is there already.
#[test]
fn a_job_that_nobody_was_told_of_yet_may_be_found_and_runs_once() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.wait_for(IDLE, "1");
    let mut db = cluster.connect();
    for found_first in [false, true] {
        db.batch_execute("truncate done").expect("truncate");
        cluster.arm("committed", "stop");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                cluster.connect().batch_execute("select graphile_worker.add_job('note', '1')").expect("add_job")
            });
            let pid = stopped(&cluster, &mut db);
            assert_eq!(text(&mut db, "select count(*) from done"), "0");
            if found_first {
                db.batch_execute("select kongtask.register_task('other', 'note(json)')").expect("register");
                cluster.wait_for("select count(*) from done", "1");
            }
            go_on(pid);
        });
        cluster.wait_for(JOBS, "0");
        db.batch_execute("select graphile_worker.add_job('note', '2')").expect("add_job");
        cluster.wait_for("select string_agg(n::text, ' ' order by n) from done", "1 2");
    }
}

/// REINDEX locks the table and then its indexes; so does who takes a job of a queue, although it reads first.
#[test]
fn reindex_and_a_worker_that_takes_a_job_of_a_queue_do_not_wait_for_each_other() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.arm("chosen", "stop");
    cluster.sql("select graphile_worker.add_job('note', '1', queue_name := 'q')");
    let pid = stopped(&cluster, &mut db);
    std::thread::scope(|scope| {
        let reindexing = scope.spawn(|| cluster.connect().batch_execute("reindex table graphile_worker.jobs"));
        cluster.wait_for(
            "select count(*) from pg_stat_activity where query like 'reindex%' and wait_event_type = 'Lock'",
            "1",
        );
        go_on(pid);
        reindexing.join().expect("a thread").expect("reindex");
    });
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
}

/// It is not claimed, and anyone may change it until it is taken.
#[test]
fn the_next_job_of_a_queue_may_change_before_its_worker_comes_to_it() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    let mut locker = cluster.connect();
    for (change, runs) in [
        ("select", true),
        ("delete from graphile_worker.jobs where id = $1", false),
        ("select graphile_worker.complete_jobs('{$1}')", false),
        ("select kongtask.cancel($1)", false),
        ("select graphile_worker.reschedule_jobs('{$1}', run_at := now() + interval '1 hour')", false),
        ("update graphile_worker.jobs set queue_name = 'other' where id = $1", true),
        ("update graphile_worker.jobs set key = 'k' where id = $1", true),
        ("select kongtask.pause(queue_name := 'q'), kongtask.resume(queue_name := 'q')", true),
        ("select kongtask.unregister_task('note')", false),
        ("select graphile_worker.get_job('external-worker', '{note}')", true),
        ("select pg_terminate_backend($2)", true),
        // It is found again once that is unlocked, which the scheduler looks for.
        ("lock", true),
    ] {
        cluster.sql("truncate done");
        let mut alice = cluster.connect_as("alice", "postgres");
        alice.batch_execute("select kongtask.register_task('note', 'note(json)')").expect("register");
        cluster.wait_for(IDLE, "2");
        cluster.arm("went_on", "stop");
        db.batch_execute(
            "select count(graphile_worker.add_job('note', to_json(n), queue_name := 'q')) from generate_series(1, 6) n",
        )
        .expect("jobs");
        let pid = stopped(&cluster, &mut db);
        let next = text(&mut db, "select min(id) from graphile_worker.jobs");
        let n = text(&mut db, &format!("select payload from graphile_worker.jobs where id = {next}"));
        let lock = format!("begin; select from graphile_worker.jobs where id = {next} for update");
        let statement = change.replace("$1", &next).replace("$2", &pid.to_string());
        let is_locked = change == "lock";
        let result = locker.batch_execute(if is_locked { &lock } else { &statement });
        result.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        go_on(pid);
        if is_locked {
            let skipped = wait_until(SOON, || text(&mut db, "select count(*) from graphile_worker.job_queues") == "0");
            assert!(skipped, "{}", cluster.log());
            locker.batch_execute("commit").expect("commit");
        }
        if change.contains("unregister") {
            cluster.wait_for(IDLE, "2");
            cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
            let left: usize = text(&mut db, JOBS).parse().expect("a number");
            assert!(left >= 1, "{left}");
            alice.batch_execute("select kongtask.register_task('note', 'note(json)')").expect("register");
        }
        let runs = runs || change.contains("unregister");
        let expected = if runs { "6" } else { "5" };
        let came = wait_until(SOON, || text(&mut db, "select count(*) from done") == expected);
        assert!(came, "{change}: {}\n{}", text(&mut db, "select count(*) from done"), cluster.log());
        cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
        assert_eq!(
            text(&mut db, &format!("select count(*) from done where n = {n}")),
            if runs { "1" } else { "0" },
            "{change}"
        );
        let order = format!(
            "select bool_and(n > before) from (select n, lag(n) over (order by at) as before from done where n <> {n}) d"
        );
        assert_eq!(text(&mut db, &order), "t", "{change}");
        assert_eq!(text(&mut db, LOCKED), "0", "{change}");
        db.batch_execute("delete from graphile_worker.jobs").expect("delete");
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_drop_extension_whose_session_is_lost_keeps_nobody_away() {
    let cluster = cluster(&[]);
    cluster.wait_for(IDLE, "2");
    cluster.arm("emptied", "exit");
    cluster.connect().batch_execute("drop extension kongtask cascade").expect_err("a lost connection");
    assert!(!cluster.is_armed("emptied"));
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done", "1");
}

/// Somebody's lock may keep the scheduler from it for a while. Nobody polls here, and nobody tells it when the lock is free.
#[test]
fn a_crash_is_charged_although_somebody_has_the_job_locked_at_first() {
    let cluster = cluster(&["kongtask.poll_interval = '1h'", "deadlock_timeout = '100ms'"]);
    cluster.sql(
        "create function crash() returns void language sql as $$ select kongtask_fault('crash') $$;
         select kongtask.register_task('crash', 'crash()')",
    );
    cluster.arm("recovering", "stop");
    let _ = cluster.connect().batch_execute("select graphile_worker.add_job('crash', '1')");
    cluster.wait_for_log("all server processes terminated; reinitializing");
    let mut db = connect(&cluster);
    let pid = stopped(&cluster, &mut db);
    // Nobody is to run it again before that: a worker may see sooner than the scheduler that the lock is free.
    db.batch_execute("begin; select kongtask.unregister_task('crash') from graphile_worker.jobs for update")
        .expect("a lock");
    go_on(pid);
    db.batch_execute("select pg_sleep(2.5); commit").expect("a lock");
    cluster.wait_for("select last_error like 'worker process crashed%1 of 3%' from graphile_worker.jobs", "t");
}

/// However soon a worker sees that it could: who has it locked tells of it, and nobody has said yet that it crashed the server.
#[test]
fn a_job_does_not_run_again_before_its_crash_is_charged() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'", "deadlock_timeout = '100ms'"]);
    cluster.sql(
        "create function is_killed() returns void language sql as $$ select kongtask_fault('kill') $$;
         create function told() returns void language sql as $$ insert into done (n) values (1) $$;
         select kongtask.register_task('is_killed', 'is_killed()'), kongtask.register_task('told', 'told()')",
    );
    cluster.arm("recovering", "stop");
    let _ = cluster.connect().batch_execute("select graphile_worker.add_job('is_killed')");
    cluster.wait_for_log("all server processes terminated; reinitializing");
    let mut db = connect(&cluster);
    let scheduler = stopped(&cluster, &mut db);
    let mut locker = connect(&cluster);
    locker
        .batch_execute(
            "begin; select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), priority := -1)",
        )
        .expect("a lock");
    go_on(scheduler);
    cluster.wait_for(IDLE, "2");
    // It has found the lock, and tries again in a moment.
    let waits = format!("select count(*) from pg_stat_activity where pid = {scheduler} and wait_event_type = 'Lock'");
    for expected in ["1", "0"] {
        assert!(wait_until(SOON, || text(&mut db, &waits) == expected), "{}", cluster.log());
    }
    // SAFETY: a process of this cluster's.
    unsafe { libc::kill(scheduler, libc::SIGSTOP) };
    locker.batch_execute("commit; select graphile_worker.add_job('told')").expect("commit");
    cluster.wait_for("select count(*) from done", "1");
    let killed = "was terminated by signal 9";
    assert_eq!(cluster.log().matches(killed).count(), 1, "{}", cluster.log());
    go_on(scheduler);
    // Killed once, it runs again as soon as that is recorded.
    cluster.wait_for_log("crash 1 of 3");
    assert!(wait_until(SOON, || cluster.log().matches(killed).count() == 2), "{}", cluster.log());
}

/// A renewal that fails takes the scheduler with it, and nothing else.
#[test]
fn a_lock_that_could_not_be_renewed_is_renewed_by_the_next_scheduler() {
    let cluster = cluster(&["kongtask.job_expiry = '6s'"]);
    cluster.arm("renewing", "error");
    cluster.sql("update naps set seconds = 8; select graphile_worker.add_job('rest', '1', job_key := 'k')");
    assert!(wait_until(SOON, || !cluster.is_armed("renewing")), "{}", cluster.log());
    cluster.wait_for("select locked_at > created_at + interval '2 s' from graphile_worker.jobs", "t");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    cluster.wait_for_log_times("WARNING:  ", 1);
}

#[test]
fn the_library_that_is_installed_has_no_fault_points() {
    let cluster = Cluster::with_extension(&[]);
    let declare = "create function fault(text) returns void language c as '$libdir/kongtask', 'kongtask_fault'";
    assert_eq!(error(&mut cluster.connect(), declare).0, "42883");
    let bytes = fs::read(format!("{}/kongtask.so", pg_config("--pkglibdir"))).expect("the library");
    assert!(!bytes.windows(14).any(|bytes| bytes == b"kongtask.fault"));
    assert!(bytes.windows(16).any(|bytes| bytes == b"kongtask.workers"));
}
