//! Shutting the server down, and what the log says of starts and stops.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{IDLE, JOBS, LOCKED, RUNNING};
use std::time::Duration;

#[test]
fn fast_shutdown_lets_a_job_finish_within_the_timeout() {
    let cluster = with_note_and_nap(&[]);
    cluster.sql("select graphile_worker.add_job('nap', '1.5')");
    cluster.wait_for(RUNNING, "1");
    let took = cluster.stop("fast");
    assert!(took < Duration::from_secs(5), "{took:?}");
    cluster.start();
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    assert!(!cluster.log().contains("was released"), "{}", cluster.log());
}

#[test]
fn fast_shutdown_takes_no_longer_than_the_timeout_and_loses_nothing() {
    let cluster = with_note_and_nap(&["kongtask.shutdown_timeout = '1s'", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function once() returns void language plpgsql as $$ begin
           insert into public.done values (1, 'once');
           if (kongtask.current_job()).run_at < '2001-01-01' then perform pg_sleep(60); end if;
         end $$;
         select kongtask.register_task('once', 'once()')",
    );
    // A worker that has just looked does not know of a task registered since, and would take the second job first.
    cluster.wait_for(IDLE, "4");
    cluster.sql(
        "select graphile_worker.add_job('once', queue_name := 'q', run_at := '2000-01-01', max_attempts := 1);
         select graphile_worker.add_job('note', '\"after\"', queue_name := 'q')",
    );
    cluster.wait_for(RUNNING, "1");
    let took = cluster.stop("fast");
    assert!(Duration::from_millis(900) < took && took < Duration::from_secs(8), "{took:?}");
    // Nothing is left locked, the attempt was not counted.
    cluster.configure(&["kongtask.databases = ''"]);
    cluster.start();
    assert_eq!(cluster.text(LOCKED), "0");
    assert_eq!(cluster.text("select attempts || ' ' || max_attempts from graphile_worker.jobs where id = 1"), "0 1");
    assert_eq!(cluster.text("select string_agg(job || what, ' ') from done"), "");
    cluster.sql("update graphile_worker.jobs set run_at = '2002-01-01' where id = 1");
    cluster.reload(&["kongtask.databases = '*'"]);
    cluster.wait_for("select string_agg(what, ',') from done", "once,after");
    assert_eq!(cluster.text(JOBS), "0");
}

#[test]
fn the_log_says_who_started_and_stopped() {
    let cluster = with_note_and_nap(&["kongtask.workers = 1", "log_min_messages = debug1"]);
    cluster.wait_for(IDLE, "1");
    cluster.stop("fast");
    let log = cluster.log_lines(&["LOG", "DEBUG"]);
    for line in [
        "kongtask launcher started",
        "kongtask scheduler (postgres) started",
        "kongtask worker (postgres, postgres) started",
        "kongtask worker (postgres, postgres) stopped",
        "kongtask scheduler (postgres) stopped",
        "kongtask launcher stopped",
    ] {
        assert!(log.iter().any(|said| said.ends_with(line)), "{line}\n{}", cluster.log());
    }
}
