//! Databases in which nothing is to be done: their schedulers leave, and come back for whatever comes.

use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::{NOTE_AND_NAP, with_note_and_nap};
use kongtask_tests::{Cluster, JOBS, SOON, rows, text, wait_until};
use postgres::Client;
use std::time::{Duration, Instant};

/// The processes of databases, without the launcher.
const PROCESSES: &str =
    "select count(*) from pg_stat_activity where backend_type in ('kongtask scheduler', 'kongtask worker')";

/// Processes leave as soon as they have nothing to do, and no poll brings one back.
const LEAVING: [&str; 3] = [
    "kongtask.worker_idle_timeout = '50ms'",
    "kongtask.scheduler_idle_timeout = '100ms'",
    "kongtask.poll_interval = '1h'",
];

fn leaving() -> Cluster {
    let cluster = with_note_and_nap(&LEAVING);
    cluster.wait_for(PROCESSES, "0");
    cluster
}

fn run(db: &mut Client, statements: &str) {
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{statements}: {}", kongtask_tests::describe(&e)));
}

/// Waits until a job has noted this, once.
fn has_noted(cluster: &Cluster, what: &str) {
    cluster.wait_for(&format!("select count(*) from done where what = '{what}'"), "1");
}

#[test]
fn a_database_with_nothing_to_do_has_no_process_until_there_is_something() {
    let cluster = leaving();
    let mut db = cluster.connect();
    for (statements, what) in [
        ("select graphile_worker.add_job('note', '\"a job\"')", "a job"),
        ("select graphile_worker.add_job('note', '\"one of a queue\"', 'queue')", "one of a queue"),
        ("select graphile_worker.add_job('note', '\"a due one\"', run_at := now() + interval '1.5 s')", "a due one"),
        ("select graphile_worker.add_job('note', '\"later\"', run_at := now() + interval '3 s')", ""),
        ("select graphile_worker.add_job('note', '\"earlier\"', run_at := now() + interval '1 s')", "earlier"),
        ("", "later"),
        ("select graphile_worker.add_job('new', '\"of a new task\"')", ""),
        ("select kongtask.register_task('new', 'note(json)')", "of a new task"),
        ("select kongtask.pause('note'); select graphile_worker.add_job('note', '\"resumed\"')", ""),
        ("select kongtask.resume('note')", "resumed"),
        ("select kongtask.pause('note', until := now() + interval '1 s')", ""),
        ("select graphile_worker.add_job('note', '\"whose pause ends\"')", "whose pause ends"),
        (
            "select kongtask.schedule('soon', '2 seconds', 'note', '\"scheduled\"', ends_at := now() + interval '2 s')",
            "",
        ),
        ("", "scheduled"),
        ("select graphile_worker.add_job('note', '\"held\"', run_at := now() + interval '1 s')", ""),
        ("create database copy template postgres", "held"),
        ("drop database copy", ""),
    ] {
        cluster.wait_for(PROCESSES, "0");
        run(&mut db, statements);
        if !what.is_empty() {
            has_noted(&cluster, what);
        }
    }
    cluster.wait_for(PROCESSES, "0");
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR", "FATAL"]), [""; 0]);
}

#[test]
fn a_reload_brings_a_scheduler_back_where_jobs_may_run_that_did_not_before() {
    let cluster = leaving();
    cluster.reload(&["kongtask.forbidden_flags = 'red'"]);
    cluster.wait_for("show kongtask.forbidden_flags", "red");
    cluster.sql("select graphile_worker.add_job('note', '\"red\"', flags := '{red}')");
    cluster.wait_for(PROCESSES, "0");
    cluster.reload(&["kongtask.forbidden_flags = ''"]);
    has_noted(&cluster, "red");
    cluster.wait_for(PROCESSES, "0");
    cluster.reload(&["kongtask.workers = 0"]);
    cluster.wait_for("show kongtask.workers", "0");
    cluster.sql("select graphile_worker.add_job('note', '\"none to run it\"')");
    assert_eq!(cluster.text("select why from kongtask.job_states"), "no worker: kongtask.workers is 0");
    cluster.reload(&["kongtask.workers = 2"]);
    has_noted(&cluster, "none to run it");
}

#[test]
fn what_no_commit_tells_of_is_found_by_a_look_from_time_to_time() {
    let cluster = with_note_and_nap(&[
        "kongtask.worker_idle_timeout = '50ms'",
        "kongtask.scheduler_idle_timeout = '100ms'",
        "kongtask.poll_interval = '100ms'",
    ]);
    cluster.wait_for(PROCESSES, "0");
    let added = Instant::now();
    cluster.sql(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, payload) values ('note', '\"replicated\"')",
    );
    has_noted(&cluster, "replicated");
    // Thirty polls, or twice as many if one look has been in vain.
    assert!(added.elapsed() < Duration::from_secs(10), "{:?}", added.elapsed());
}

#[test]
fn what_comes_while_a_scheduler_leaves_is_not_lost() {
    let cluster = Cluster::with_faults(&[&LEAVING[..], &["max_prepared_transactions = 4"]].concat());
    cluster.sql(NOTE_AND_NAP);
    let mut db = cluster.connect();
    for point in ["leaving_database", "handed_over", "looked_once_more"] {
        for (n, statements) in [
            "select graphile_worker.add_job('note', '1')",
            "select graphile_worker.add_job('note', '1', run_at := now() + interval '100 ms')",
            "begin; select graphile_worker.add_job('note', '1'); prepare transaction 'job'; commit prepared 'job'",
            "select graphile_worker.add_job('new', '1'); select kongtask.register_task('new', 'note(json)')",
            "select kongtask.schedule('soon', '1 second', 'note', '1', ends_at := now() + interval '1.5 s')",
        ]
        .iter()
        .enumerate()
        {
            cluster.arm(point, "stop");
            run(&mut db, "select graphile_worker.add_job('note', '0')");
            let leaving = stopped(&cluster, &mut db);
            run(&mut db, "truncate done");
            for statement in statements.split("; ") {
                run(&mut db, statement);
            }
            // One that it is to tell of after the commit has been told.
            go_on(leaving);
            let came = wait_until(SOON, || text(&mut db, "select count(*) from done where what = '1'") != "0");
            assert!(came, "{point} {n}\n{}", cluster.log());
            run(&mut db, "select kongtask.unschedule('soon'), kongtask.unregister_task('new')");
            cluster.wait_for(PROCESSES, "0");
        }
    }
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR", "FATAL"]), [""; 0]);
}

#[test]
fn schedules_of_a_database_without_a_scheduler_are_late_and_not_missed() {
    let cluster = leaving();
    let mut db = cluster.connect();
    run(
        &mut db,
        "create table fired (ts timestamptz, backfilled boolean);
         create function fire(p json) returns void language sql as
           $$ insert into public.fired select (p #>> '{_cron,ts}')::timestamptz, (p #>> '{_cron,backfilled}')::boolean $$;
         select kongtask.register_task('fire', 'fire(json)');
         select kongtask.schedule('odd', '3 seconds', 'fire', missed := 'skip')",
    );
    let mut was_gone = 0;
    let fired = wait_until(SOON, || {
        was_gone += usize::from(text(&mut db, PROCESSES) == "0");
        text(&mut db, "select count(*) from fired") == "3"
    });
    assert!(fired && was_gone > 2, "{was_gone}\n{}", cluster.log());
    assert_eq!(rows(&mut db, "select missed_count from kongtask.schedules"), ["0"]);
    let fired = rows(&mut db, "select ts - min(ts) over (), backfilled from fired order by ts");
    assert_eq!(fired, ["00:00:00|f", "00:00:03|f", "00:00:06|f"]);
    // With a job, so that a scheduler has come and has read the schedules once this is done.
    run(&mut db, "truncate fired; select kongtask.unschedule('odd'); select graphile_worker.add_job('fire', '{}')");
    cluster.wait_for("select count(*) from fired where ts is null", "1");
    // One that was made long before it is committed does not fire for the past, whatever it does about missed runs. The
    // scheduler that hears of it, early in a second, leaves before it fires.
    cluster.wait_for(PROCESSES, "0");
    run(
        &mut db,
        "truncate fired; begin; select kongtask.schedule('new', '1 second', 'fire', missed := 'all', ends_at := now() + interval '5.5 s');
         select pg_sleep(extract(epoch from date_trunc('second', clock_timestamp()) + interval '3.02 s' - clock_timestamp()));
         create table committing as select clock_timestamp() as at; commit",
    );
    cluster.wait_for("select count(*) > 1 from fired", "t");
    let late = "select min(ts) > max(committing.at), min(ts), max(committing.at), (select scheduled_at from kongtask.crontab) from fired, committing";
    assert!(rows(&mut db, late)[0].starts_with("t|"), "{:?}", rows(&mut db, late));
    // What falls due while the server is down is missed.
    run(&mut db, "select kongtask.unschedule('new')");
    cluster.wait_for(JOBS, "0");
    cluster.wait_for(PROCESSES, "0");
    run(&mut db, "truncate fired; select kongtask.schedule('down', '2 seconds', 'fire', missed := 'all')");
    cluster.wait_for("select count(*) > 0 from fired", "t");
    cluster.stop("fast");
    std::thread::sleep(Duration::from_secs(3));
    cluster.start();
    cluster.wait_for("select count(*) > 0 from fired where backfilled", "t");
    let gaps = "select count(*) = extract(epoch from max(ts) - min(ts)) / 2 + 1 from fired";
    // Several workers run what was missed, in any order.
    cluster.wait_for(gaps, "t");
}

#[test]
fn a_job_that_is_cancelled_while_a_session_has_its_row_is_cancelled_without_a_scheduler() {
    let cluster = leaving();
    cluster.sql("select graphile_worker.add_job('note', '\"never\"', run_at := now() + interval '1 hour')");
    cluster.wait_for(PROCESSES, "0");
    let mut holder = cluster.connect();
    run(&mut holder, "begin; select from graphile_worker.jobs for update");
    assert_eq!(cluster.text("select kongtask.cancel(id) from graphile_worker.jobs"), "stopping");
    run(&mut holder, "commit");
    cluster.wait_for("select last_error from graphile_worker.jobs", "cancelled by postgres");
    cluster.wait_for(PROCESSES, "0");
}

#[test]
fn a_database_is_looked_at_after_a_start_and_left_alone_again() {
    let cluster = leaving();
    for database in ["one", "two"] {
        cluster.sql(&format!("create database {database}"));
        let mut db = cluster.connect_as("postgres", database);
        run(&mut db, "create extension kongtask");
        run(&mut db, NOTE_AND_NAP);
    }
    cluster.wait_for(PROCESSES, "0");
    // With nothing but this, the server would know of no job.
    cluster.reload(&["kongtask.databases = ''"]);
    cluster.wait_for("show kongtask.databases", "");
    let mut two = cluster.connect_as("postgres", "two");
    run(&mut two, "select graphile_worker.add_job('note', '\"waiting\"')");
    assert_eq!(text(&mut two, "select count(*) from done"), "0");
    drop(two);
    cluster.configure(&["kongtask.databases = '*'"]);
    cluster.stop("fast");
    cluster.start();
    let mut two = cluster.connect_as("postgres", "two");
    let ran = wait_until(SOON, || text(&mut two, "select count(*) from done") == "1");
    assert!(ran, "{}", cluster.log());
    cluster.wait_for(PROCESSES, "0");
    // The launcher's own death does not lose them either.
    let launcher = cluster.text("select pid from pg_stat_activity where backend_type = 'kongtask launcher'");
    cluster.sql(&format!("select pg_terminate_backend({launcher})"));
    run(&mut two, "select graphile_worker.add_job('note', '\"without a launcher\"')");
    let ran = wait_until(SOON, || text(&mut two, "select count(*) from done") == "2");
    assert!(ran, "{}", cluster.log());
}

/// The launcher starts a worker for it beside the scheduler.
#[test]
fn a_job_of_a_database_without_processes_does_not_wait_for_a_scheduler() {
    let cluster = Cluster::with_faults(&LEAVING);
    cluster.sql(NOTE_AND_NAP);
    let mut db = cluster.connect();
    cluster.wait_for(PROCESSES, "0");
    // Nor does the scheduler read all jobs for those of ended workers: the former one has left nothing to be released.
    cluster.arm("recovering", "error");
    cluster.arm("introduced", "stop");
    run(&mut db, "select graphile_worker.add_job('note', '\"first\"')");
    has_noted(&cluster, "first");
    go_on(stopped(&cluster, &mut db));
    cluster.wait_for(PROCESSES, "0");
    // Without workers the job waits, and the scheduler starts one later.
    cluster.reload(&["kongtask.workers = 0"]);
    cluster.wait_for("show kongtask.workers", "0");
    run(&mut db, "select graphile_worker.add_job('note', '\"second\"')");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "1");
    cluster.reload(&["kongtask.workers = 2"]);
    has_noted(&cluster, "second");
    cluster.wait_for(PROCESSES, "0");
    assert!(cluster.is_armed("recovering"));
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR", "FATAL"]), [""; 0]);
    // After a start it does.
    cluster.stop("fast");
    cluster.start();
    assert!(wait_until(SOON, || !cluster.is_armed("recovering")), "{}", cluster.log());
    cluster.wait_for(PROCESSES, "0");
}

#[test]
fn a_job_of_a_database_without_processes_begins_soon() {
    let cluster = leaving();
    let mut db = cluster.connect();
    run(
        &mut db,
        "create table begun (n int, at timestamptz default clock_timestamp());
         create function begin_it(p json) returns void language sql as $$ insert into public.begun values ((p #>> '{}')::int) $$;
         select kongtask.register_task('begin', 'begin_it(json)')",
    );
    let mut latencies = Vec::new();
    for n in 0..7 {
        cluster.wait_for(PROCESSES, "0");
        let since =
            text(&mut db, &format!("select clock_timestamp() from (select graphile_worker.add_job('begin', '{n}')) j"));
        cluster.wait_for(&format!("select count(*) from begun where n = {n}"), "1");
        let took = format!("select extract(epoch from at - '{since}') * 1000 from begun where n = {n}");
        latencies.push(text(&mut db, &took).parse::<f64>().expect("milliseconds"));
    }
    latencies.sort_by(f64::total_cmp);
    println!("{latencies:?}");
    // Much less with a library that is optimised, on a machine that does nothing else.
    assert!(latencies[latencies.len() / 2] < 500.0, "{latencies:?}");
}
