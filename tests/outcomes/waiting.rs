//! kongtask.wait_for.

use crate::{TASKS, WAYS, with_ways};
use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::without_polling;
use kongtask_tests::{Cluster, SOON, error, rows, text, wait_until};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

/// How many sessions sleep in wait_for.
const SLEEPING: &str =
    "select count(*) from pg_stat_activity where query like '%wait_for%' and wait_event_type = 'Extension'
                        and pid <> pg_backend_pid()";

fn add(db: &mut Client, call: &str) -> String {
    text(db, &format!("select id from graphile_worker.add_job({call})"))
}

/// A session that waits for a job, and what it gets: the row, or the error.
fn wait_in_another_session(cluster: &Cluster, job: &str) -> thread::JoinHandle<Result<Vec<String>, String>> {
    let mut db = cluster.connect();
    let call = format!("select state, attempt, result, split_part(error, E'\\n', 1) from kongtask.wait_for({job})");
    let before: i32 = cluster.text(SLEEPING).parse().expect("a number");
    let waiting = thread::spawn(move || match db.simple_query(&call) {
        Ok(_) => Ok(rows(&mut db, &call)),
        Err(error) => Err(kongtask_tests::describe(&error)),
    });
    cluster.wait_for(SLEEPING, &(before + 1).to_string());
    waiting
}

#[test]
fn a_wait_ends_with_the_job_however_that_runs_and_ends() {
    // A safety net that is an hour away: whatever wakes the session here is the end of the job.
    let cluster = with_ways(&["kongtask.workers = 2"]);
    let mut db = cluster.connect();
    for task in TASKS {
        for (payload, expected) in [("4", "succeeded|1|8|"), ("-1", "failed|1||negative (SQLSTATE P0001)")] {
            let expected = if task == "steps" { expected.replace("|8|", "||") } else { expected.into() };
            for more in ["", ", queue_name := 'q'", ", job_key := 'k'"] {
                let job = add(
                    &mut db,
                    &format!("'{task}', '{payload}', max_attempts := 1, run_at := now() + interval '1 h'{more}"),
                );
                let waiting = wait_in_another_session(&cluster, &job);
                cluster.sql(&format!("select graphile_worker.reschedule_jobs(array[{job}], now())"));
                assert_eq!(waiting.join().expect("a thread"), Ok(vec![expected.clone()]), "{task} {payload}{more}");
                cluster.sql(&format!("delete from graphile_worker.jobs where id = {job}"));
            }
        }
    }
    let job = add(&mut db, "'alone', '1', run_at := now() + interval '1 h'");
    let waiting = [wait_in_another_session(&cluster, &job), wait_in_another_session(&cluster, &job)];
    cluster.sql(&format!("select kongtask.cancel({job}, 'why')"));
    for waiting in waiting {
        assert_eq!(waiting.join().expect("a thread"), Ok(vec!["cancelled|||cancelled by postgres: why".into()]));
    }
    assert_eq!(cluster.text("select count(*) from kongtask.runs where state = 'cancelled'"), "1");
    // Jobs that other means end.
    for (end, expected) in [
        ("select graphile_worker.permanently_fail_jobs(array[JOB], 'by hand')", Ok(vec!["failed|25||by hand".into()])),
        ("select graphile_worker.complete_jobs(array[JOB])", Err("42704")),
        ("select graphile_worker.remove_job('k')", Err("42704")),
        ("select graphile_worker.complete_job('external-worker', JOB)", Err("42704")),
    ] {
        let job = add(&mut db, "'alone', '1', job_key := 'k', run_at := now() + interval '1 h'");
        let waiting = wait_in_another_session(&cluster, &job);
        cluster.sql(&end.replace("JOB", &job));
        let ended = waiting.join().expect("a thread");
        match expected {
            Ok(rows) => assert_eq!(ended, Ok(rows), "{end}"),
            Err(code) => assert!(
                ended.as_ref().is_err_and(|error| error.contains(&format!("job {job} does not exist"))),
                "{end} {code} {ended:?}"
            ),
        }
        cluster.sql("delete from graphile_worker.jobs");
    }
}

#[test]
fn a_job_that_ended_before_is_not_waited_for() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let job = add(&mut db, "'alone', '4'");
    cluster.wait_for("select count(*) from kongtask.runs", "1");
    let wait = |job: &str| format!("select job_id = {job}, state, result, waited >= '0' from kongtask.wait_for({job})");
    assert_eq!(rows(&mut db, &wait(&job)), ["t|succeeded|8|t"]);
    // One that failed before its task kept anything, and one that was redriven and failed again.
    cluster.sql("select kongtask.alter_task('alone', keep := 'none')");
    let job = add(&mut db, "'alone', '-1', max_attempts := 1");
    cluster.wait_for("select count(*) from kongtask.failed", "1");
    let failed = format!("select state, attempt, split_part(error, E'\\n', 1) from kongtask.wait_for({job})");
    assert_eq!(rows(&mut db, &failed), ["failed|1|negative (SQLSTATE P0001)"]);
    cluster.sql("select kongtask.alter_task('alone', keep := 'all')");
    cluster.sql(&format!("select kongtask.redrive(ids := array[{job}])"));
    cluster.wait_for(&format!("select state from kongtask.runs where job_id = {job}"), "failed");
    cluster.sql(&format!(
        "select graphile_worker.reschedule_jobs(array[{job}], attempts := 0, run_at := now() + interval '1 h');
         select kongtask.cancel({job})"
    ));
    assert_eq!(rows(&mut db, &failed), ["cancelled||cancelled by postgres"]);
    // One that waits for its retry has not ended.
    let job = add(&mut db, "'alone', '-1'");
    cluster.wait_for(&format!("select state from kongtask.runs where job_id = {job}"), "retrying");
    assert_eq!(text(&mut db, &format!("select kongtask.wait_for({job}, '10 ms') is null")), "t");
}

#[test]
fn what_would_never_end_is_refused() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let refused = |db: &mut Client, job: &str| {
        let found = error(db, &format!("select kongtask.wait_for({job})"));
        db.batch_execute("rollback").expect("a rollback");
        found
    };
    assert_eq!(refused(&mut db, "null"), ("22004".into(), "job_id must not be null".into()));
    assert_eq!(refused(&mut db, "1, '-1 s'"), ("22023".into(), "timeout must not be negative".into()));
    assert_eq!(refused(&mut db, "12345"), ("42704".into(), "job 12345 does not exist".into()));
    let itself = |job: &str| ("55000".into(), format!("job {job} cannot end while this transaction lasts"));
    db.batch_execute("begin").expect("begin");
    let job = add(&mut db, "'alone', '1'");
    assert_eq!(refused(&mut db, &job), itself(&job));
    db.batch_execute("begin; savepoint s").expect("begin");
    let job = add(&mut db, "'alone', '1'");
    db.batch_execute("release s").expect("release");
    assert_eq!(refused(&mut db, &job), itself(&job));
    let later = add(&mut db, "'alone', '1', run_at := now() + interval '1 h'");
    for change in ["update graphile_worker.jobs set priority = 1", "select from graphile_worker.jobs for update"] {
        db.batch_execute(&format!("begin; {change}")).expect(change);
        assert_eq!(refused(&mut db, &later), itself(&later), "{change}");
    }
    // A job that waits for itself.
    cluster.sql(
        "create function waits() returns void language sql as 'select kongtask.wait_for((kongtask.current_job()).id)';
         select kongtask.register_task('waits', 'waits()', in_place := false, keep := 'all')",
    );
    let job = add(&mut db, "'waits', max_attempts := 1");
    let said = format!("select split_part(error, ' (SQL', 1) from kongtask.wait_for({job})");
    assert_eq!(text(&mut db, &said), itself(&job).1);
    // What nobody keeps.
    for keep in ["none", "failures"] {
        cluster.sql(&format!("select kongtask.alter_task('alone', keep := '{keep}')"));
        let message = "task \"alone\" does not keep how its jobs end";
        assert_eq!(refused(&mut db, &later), ("55000".into(), message.into()), "{keep}");
    }
    let elsewhere = add(&mut db, "'elsewhere'");
    let message = "task \"elsewhere\" does not keep how its jobs end";
    assert_eq!(refused(&mut db, &elsewhere), ("55000".into(), message.into()));
}

#[test]
fn a_wait_ends_at_its_timeout_and_when_it_is_cancelled_or_the_server_stops() {
    let cluster = with_ways(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    let job = add(&mut db, "'alone', '1', run_at := now() + interval '1 h'");
    let begun = Instant::now();
    assert_eq!(text(&mut db, &format!("select kongtask.wait_for({job}, '200 ms') is null")), "t");
    assert!((Duration::from_millis(200)..SOON).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(text(&mut db, &format!("select kongtask.wait_for({job}, '0') is null")), "t");
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        let waiting = wait_in_another_session(&cluster, &job);
        cluster.sql(&format!("select {end}(pid) from pg_stat_activity where query like '%wait_for%' and state = 'active' and pid <> pg_backend_pid()"));
        let said = waiting.join().expect("a thread").expect_err("it was ended");
        assert!(["cancel", "terminat", "closed"].iter().any(|word| said.contains(word)), "{said}");
    }
    db.batch_execute("set statement_timeout = '50 ms'").expect("a setting");
    assert_eq!(error(&mut db, &format!("select kongtask.wait_for({job})")).0, "57014");
    // Every entry was given back.
    let waits: Vec<_> = (0..3).map(|_| wait_in_another_session(&cluster, &job)).collect();
    assert!(cluster.stop("fast") < SOON);
    for waiting in waits {
        assert!(waiting.join().expect("a thread").is_err());
    }
    cluster.start();
    let waiting = wait_in_another_session(&cluster, &job);
    cluster.sql(&format!("select graphile_worker.reschedule_jobs(array[{job}], now())"));
    assert_eq!(waiting.join().expect("a thread"), Ok(vec!["succeeded|1|2|".into()]));
}

/// Between the session's look and its sleep, and between the worker's commit and its look for those that wait.
#[test]
fn no_end_of_a_job_is_missed() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(WAYS);
    let mut db = cluster.connect();
    let job = add(&mut db, "'alone', '1', run_at := now() + interval '1 h'");
    let wait = move |mut db: Client, job: String| {
        thread::spawn(move || rows(&mut db, &format!("select state from kongtask.wait_for({job})")))
    };
    cluster.arm("waiting", "stop");
    let waiting = wait(cluster.connect(), job.clone());
    let session = stopped(&cluster, &mut db);
    db.batch_execute(&format!("select graphile_worker.reschedule_jobs(array[{job}], now())")).expect("due");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    go_on(session);
    assert_eq!(waiting.join().expect("a thread"), ["succeeded"]);
    // The worker has done all but the commit when the session enters itself.
    cluster.arm("completed", "stop");
    let job = add(&mut db, "'alone', '1'");
    let worker = stopped(&cluster, &mut db);
    let waiting = wait(cluster.connect(), job);
    cluster.wait_for(SLEEPING, "1");
    go_on(worker);
    assert_eq!(waiting.join().expect("a thread"), ["succeeded"]);
}

#[test]
fn a_wait_goes_on_when_the_job_s_worker_ends_and_the_job_runs_again() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(WAYS);
    let mut db = cluster.connect();
    cluster.arm("completed", "stop");
    let job = add(&mut db, "'alone', '1'");
    let worker = stopped(&cluster, &mut db);
    let waiting = wait_in_another_session(&cluster, &job);
    db.execute("select pg_terminate_backend($1)", &[&worker]).expect("a termination");
    go_on(worker);
    assert_eq!(waiting.join().expect("a thread"), Ok(vec!["succeeded|1|2|".into()]));
    assert_eq!(text(&mut db, "select count(*) from did"), "1");
}

#[test]
fn a_job_that_is_deleted_is_noticed_within_the_poll_interval() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1", "kongtask.poll_interval = '100 ms'"]);
    cluster.sql(WAYS);
    let mut db = cluster.connect();
    for end in ["delete from graphile_worker.jobs", "truncate graphile_worker.jobs"] {
        let job = add(&mut db, "'alone', '1', run_at := now() + interval '1 h'");
        let mut waiter = cluster.connect();
        let waiting = thread::spawn(move || error(&mut waiter, &format!("select kongtask.wait_for({job})")).0);
        // The truncation waits for the session's lock on the table.
        cluster.wait_for(SLEEPING, "1");
        if end.starts_with("delete") {
            cluster.sql(end);
            assert_eq!(waiting.join().expect("a thread"), "42704");
        } else {
            assert_eq!(error(&mut db, &format!("set lock_timeout = '50 ms'; {end}")).0, "55P03");
            cluster.sql("delete from graphile_worker.jobs");
            assert_eq!(waiting.join().expect("a thread"), "42704");
        }
    }
}

#[test]
fn every_wait_gives_its_entry_back() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(WAYS);
    let mut db = cluster.connect();
    // Far more waits than entries, one after the other: each gives its entry back.
    let job = add(&mut db, "'alone', '1', run_at := now() + interval '1 h'");
    db.batch_execute(&format!(
        "do $$ begin for i in 1..3000 loop perform kongtask.wait_for({job}, '1 us'); end loop; end $$"
    ))
    .expect("waits");
    db.batch_execute(&format!(
        "do $$ begin for i in 1..1100 loop
           begin perform kongtask.wait_for({job}, '1 ms'); raise 'x'; exception when raise_exception then null; end;
         end loop; end $$"
    ))
    .expect("waits that are rolled back");
}

/// From the commit of a job to the return of the wait.
#[test]
fn a_wait_returns_within_milliseconds() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let mut times: Vec<f64> = (0..200)
        .map(|_| {
            let job = add(&mut db, "'alone', '1', run_at := now() + interval '2 ms'");
            let call =
                format!("select extract(epoch from clock_timestamp() - ended_at) * 1000 from kongtask.wait_for({job})");
            text(&mut db, &call).parse().expect("a number")
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    kongtask_tests::say(&format!(
        "wait_for returned {median:.3} ms after the end of the job (median of {})",
        times.len()
    ));
    assert!(median < 20.0, "{times:?}");
    assert!(wait_until(SOON, || cluster.text("select count(*) from graphile_worker.jobs") == "0"));
}
