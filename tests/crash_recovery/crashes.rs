//! Jobs that crash the server, and servers that crash: who is charged, and what runs again.

use kongtask_tests::fixtures::{with_crashing_handlers, with_note_and_nap};
use kongtask_tests::{Cluster, JOBS, LOCKED, RUNNING, SOON, text, wait_until};

/// Runs a query when the server is there; `None` while it is not.
fn try_text(cluster: &Cluster, query: &str) -> Option<String> {
    let mut db = cluster.try_connect_as("postgres", "postgres").ok()?;
    let rows = db.simple_query(query).ok()?;
    rows.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_string()),
        _ => None,
    })
}

fn wait_for(cluster: &Cluster, query: &str, expected: &str) {
    let mut last = None;
    let came = wait_until(SOON * 2, || {
        last = try_text(cluster, query);
        last.as_deref() == Some(expected)
    });
    assert!(came, "{query}: {last:?}, not {expected:?}\n{}", cluster.log());
}

/// Runs statements, and may not be told so: the jobs that they let run crash the server at once.
fn send(cluster: &Cluster, statement: &str) {
    let _ = cluster.connect().batch_execute(statement);
}

/// Lets a job that waits for its next attempt have it now.
fn hurry(cluster: &Cluster) {
    send(
        cluster,
        "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where locked_at is null and attempts < max_attempts), run_at := now())",
    );
}

/// Whether it ran in place (no key) or was claimed (a key), the crash is the job's, and the third is its last.
#[test]
fn a_job_that_crashes_the_server_is_charged_and_fails_for_good_after_three_crashes() {
    for key in ["null", "'k'"] {
        let cluster = with_crashing_handlers(&["kongtask.workers = 2"]);
        send(
            &cluster,
            &format!(
                "select graphile_worker.add_job('crash', job_key := {key});
                 select count(graphile_worker.add_job('note', to_json(n))) from generate_series(1, 200) n"
            ),
        );
        for crash in 1..=2 {
            wait_for(
                &cluster,
                "select attempts from graphile_worker.jobs where task_identifier = 'crash' and locked_at is null and last_error is not null and last_error like '%crash ' || attempts || ' of 3%' order by attempts desc",
                &crash.to_string(),
            );
            assert_eq!(
                cluster.text(
                    "select last_error || (run_at > updated_at + interval '1 s') from graphile_worker.jobs where task_identifier = 'crash'"
                ),
                format!("worker process crashed while it ran this job: crash {crash} of 3 (SQLSTATE 57P02)true")
            );
            hurry(&cluster);
        }
        wait_for(
            &cluster,
            "select attempts from graphile_worker.jobs where task_identifier = 'crash' and locked_at is null",
            "25",
        );
        wait_for(&cluster, JOBS, "1");
        let mut db = cluster.connect();
        assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), "200 200");
        assert_eq!(
            text(&mut db, "select last_error from graphile_worker.jobs"),
            "worker process crashed while it ran this job: crash 3 of 3 (SQLSTATE 57P02)"
        );
        cluster.wait_for_log_times("was terminated by signal 11", 3);
        cluster.wait_for_log("WARNING:  job 1 (crash) failed for good: worker process crashed");
    }
}

#[test]
fn a_crash_counts_as_the_options_of_the_task_say() {
    let cluster = with_crashing_handlers(&["kongtask.workers = 1"]);
    cluster.sql("select kongtask.alter_task('crash', backoff := '{1 day}', max_attempts := 2)");
    send(&cluster, "select graphile_worker.add_job('crash')");
    let charged = |attempts: i32| {
        format!(
            "select max_attempts || ' ' || (run_at > updated_at + interval '23 h') from graphile_worker.jobs where attempts = {attempts} and locked_at is null and last_error is not null"
        )
    };
    wait_for(&cluster, &charged(1), "25 true");
    hurry(&cluster);
    wait_for(&cluster, &charged(2), "2 true");
    cluster.wait_for_log(
        "WARNING:  job 1 (crash) failed for good: worker process crashed while it ran this job: crash 2 of 3",
    );
}

/// The kernel may kill a process for another's doing: a job is given that, once.
#[test]
fn a_job_whose_process_is_killed_is_charged_from_the_second_time_on() {
    let cluster = with_crashing_handlers(&["kongtask.workers = 1"]);
    send(&cluster, "select graphile_worker.add_job('is_killed'), graphile_worker.add_job('note', '1')");
    wait_for(
        &cluster,
        "select attempts || ' ' || last_error from graphile_worker.jobs where locked_at is null and attempts > 0",
        "1 worker process crashed while it ran this job: crash 2 of 3 (SQLSTATE 57P02)",
    );
    cluster.wait_for_log_times("was terminated by signal 9", 2);
    hurry(&cluster);
    wait_for(&cluster, "select attempts from graphile_worker.jobs", "25");
    wait_for(&cluster, "select count(*) from done", "1");
}

#[test]
fn who_crashed_is_found_among_jobs_that_share_a_transaction_or_a_call() {
    for task in ["batch", "set"] {
        let cluster = with_crashing_handlers(&["kongtask.workers = 2"]);
        send(
            &cluster,
            &format!("select count(graphile_worker.add_job('{task}', to_json(n))) from generate_series(1, 100) n"),
        );
        let left = "select count(*) || ' ' || coalesce(min(payload::text), '') from graphile_worker.jobs";
        wait_for(&cluster, left, "1 13");
        let failed = "select attempts >= max_attempts from graphile_worker.jobs";
        let found = wait_until(SOON * 2, || {
            if try_text(&cluster, failed).as_deref() == Some("t") {
                return true;
            }
            let _ = try_text(
                &cluster,
                "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where attempts < max_attempts), run_at := now())",
            );
            false
        });
        assert!(found, "{task}\n{}", cluster.log());
        assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "99 99");
        assert_eq!(cluster.text("select string_agg(attempts::text, ',') from graphile_worker.jobs"), "25");
        // Of a set it is not known at first, so that there is one crash more, and no search by halves.
        cluster.wait_for_log_times("was terminated by signal 11", if task == "set" { 4 } else { 3 });
    }
}

/// The postmaster has everybody quit when one process crashes: that is not their jobs' doing.
#[test]
fn a_job_that_runs_while_another_process_crashes_is_not_charged() {
    let cluster = with_crashing_handlers(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function nap() returns void language sql as $$ select pg_sleep(2); insert into done values (0) $$;
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap', max_attempts := 1), graphile_worker.add_job('nap', max_attempts := 1, job_key := 'k')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "2");
    let mut db = cluster.connect();
    let pid = text(&mut db, "select pg_backend_pid()");
    cluster.kill_9(pid.parse().expect("a pid"));
    cluster.wait_for_log("all server processes terminated; reinitializing");
    wait_for(&cluster, "select count(*) from done", "2");
    wait_for(&cluster, JOBS, "0");
    assert!(!cluster.log().contains("worker process crashed"), "{}", cluster.log());
}

/// However the server went down, what ran runs again at once, and each effect is there once.
#[test]
fn after_a_crash_jobs_run_again_at_once() {
    let cluster = with_note_and_nap(&["kongtask.poll_interval = '1h'", "restart_after_crash = on"]);
    for round in 1..=3 {
        cluster.sql("select graphile_worker.add_job('nap', '2', queue_name := 'q', max_attempts := 1), graphile_worker.add_job('nap', '2')");
        cluster.wait_for(RUNNING, "2");
        // A claim is committed lazily: have this one outlive the crash.
        cluster.sql("checkpoint");
        match round {
            1 => {
                cluster.stop("immediate");
                cluster.start();
            }
            2 => {
                let postmaster = cluster.postmaster();
                let worker = cluster.text("select pid from kongtask.workers where state = 'running' limit 1");
                cluster.kill_9(worker.parse().expect("a pid"));
                cluster.wait_for_log("all server processes terminated; reinitializing");
                assert_eq!(cluster.postmaster(), postmaster);
                assert!(wait_until(SOON, || cluster.try_connect_as("postgres", "postgres").is_ok()));
            }
            _ => {
                cluster.kill_9(cluster.postmaster());
                // Its children notice by and by.
                let started = wait_until(SOON, || {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.start())).is_ok()
                });
                assert!(started);
            }
        }
        cluster.wait_for(JOBS, "0");
        assert_eq!(
            cluster.text("select count(*) || ' ' || count(distinct job) from done"),
            format!("{} {}", round * 2, round * 2)
        );
        assert_eq!(cluster.text(LOCKED), "0");
    }
    cluster.wait_for_log("kongtask released");
}
