//! Jobs that crash the server, or run for too long.

use kongtask_tests::{Cluster, SOON, error, rows, text, wait_until};
use std::time::{Duration, Instant};

const JOBS: &str = "select count(*) from graphile_worker.jobs";

/// A cluster that starts over after a crash, and handlers that crash their process.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_faults(&[&["restart_after_crash = on"], settings].concat());
    cluster.sql(
        "create table done (n int);
         create function note(p json) returns void language plpgsql as $$ begin insert into done values ((p #>> '{}')::int); end $$;
         create function crash() returns void language sql as $$ select kongtask_fault('crash') $$;
         create function is_killed() returns void language sql as $$ select kongtask_fault('kill') $$;
         create function crash_if(p json) returns void language plpgsql as $$ begin
           insert into done values ((p #>> '{}')::int);
           if p #>> '{}' = '13' then perform crash(); end if; end $$;
         create function crash_if_any(p json[]) returns void language plpgsql as $$ begin
           perform crash_if(x) from unnest(p) x; end $$;
         select kongtask.register_task('note', 'note(json)'),
                kongtask.register_task('crash', 'crash()'),
                kongtask.register_task('is_killed', 'is_killed()'),
                kongtask.register_task('batch', 'crash_if(json)', max_batch := 50),
                kongtask.register_task('set', 'crash_if_any(json[])')",
    );
    cluster
}

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
        let cluster = cluster(&["kongtask.workers = 2"]);
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

/// The kernel may kill a process for another's doing: a job is given that, once.
#[test]
fn a_job_whose_process_is_killed_is_charged_from_the_second_time_on() {
    let cluster = cluster(&["kongtask.workers = 1"]);
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
        let cluster = cluster(&["kongtask.workers = 2"]);
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
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
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

#[test]
fn a_call_that_takes_longer_than_its_timeout_has_failed() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function sleeps() returns void language sql as $$ select pg_sleep(60) $$;
         create function loops() returns void language plpgsql as $$ begin loop null; end loop; end $$;
         create function fifth(p json) returns void language plpgsql as $$ begin
           if p #>> '{}' = '5' then perform pg_sleep(60); end if; perform note(p); end $$;
         create function all_of(p json[]) returns void language plpgsql as $$ begin perform fifth(x) from unnest(p) x; end $$;
         select kongtask.register_task('sleeps', 'sleeps()', timeout := '200 ms'),
                kongtask.register_task('loops', 'loops()', timeout := '0.2 s'),
                kongtask.register_task('fifth', 'fifth(json)', max_batch := 50, timeout := '200 ms'),
                kongtask.register_task('all_of', 'all_of(json[])', timeout := '200 ms')",
    );
    let mut db = cluster.connect();
    for task in ["sleeps", "loops"] {
        let begun = Instant::now();
        cluster.sql(&format!("select graphile_worker.add_job('{task}', max_attempts := 1)"));
        let failed = format!(
            "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs where task_identifier = '{task}'"
        );
        cluster.wait_for(&failed, "timed out after 200ms (SQLSTATE 57014)");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    for task in ["fifth", "all_of"] {
        cluster.sql(&format!(
            "delete from graphile_worker.jobs; truncate done;
             select count(graphile_worker.add_job('{task}', to_json(n), max_attempts := 1)) from generate_series(1, 8) n"
        ));
        cluster.wait_for("select string_agg(payload::text || attempts, ',') from graphile_worker.jobs", "51");
        cluster.wait_for("select string_agg(n::text, ',' order by n) from done", "1,2,3,4,6,7,8");
    }
    // The timer is gone with the call: what is next may take its time.
    cluster.sql(
        "truncate done;
         create function naps() returns void language sql as $$ select pg_sleep(0.5); insert into done values (0) $$;
         select kongtask.register_task('naps', 'naps()'), kongtask.register_task('quick', 'note(json)', timeout := '200 ms');
         select graphile_worker.add_job('quick', '1', priority := -1), graphile_worker.add_job('naps', max_attempts := 1)",
    );
    cluster.wait_for("select count(*) from done where n = 0", "1");
    for timeout in ["'0'", "'-1 s'", "'0.1 ms'", "'25 days'"] {
        let statement = format!("select kongtask.register_task('naps', 'naps()', timeout := {timeout})");
        assert_eq!(
            error(&mut db, &statement),
            ("22023".into(), "timeout must be between 1 millisecond and 24 days".into())
        );
    }
    db.batch_execute("select kongtask.register_task('naps', 'naps()', timeout := '1 day 1 hour')").expect("a timeout");
    assert_eq!(rows(&mut db, "select timeout from kongtask.tasks where identifier = 'naps'"), ["1 day 01:00:00"]);
}
