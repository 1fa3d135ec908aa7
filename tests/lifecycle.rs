//! Starting, stopping, and everything that can happen to a server in between.

use kongtask_tests::{Cluster, LOCKED, SOON, error, rows, text, wait_until};
use std::time::Duration;

const NOTE: &str = "create table done (job bigint, what text);
    create function note(p json) returns void language sql as
      $$ insert into public.done values ((kongtask.current_job()).id, p #>> '{}') $$;
    create function nap(p json) returns void language plpgsql as $$ begin
      insert into public.done values ((kongtask.current_job()).id, 'nap');
      perform pg_sleep((p #>> '{}')::float8);
    end $$;
    select kongtask.register_task('note', 'note(json)'), kongtask.register_task('nap', 'nap(json)');";

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(NOTE);
    cluster
}

const IDLE: &str = "select count(*) from kongtask.workers where state = 'idle'";
const RUNNING: &str = "select count(*) from kongtask.workers where state = 'running'";
const JOBS: &str = "select count(*) from graphile_worker.jobs";

#[test]
fn reload_changes_the_number_of_workers_and_the_databases() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.wait_for(IDLE, "2");
    cluster.reload(&["kongtask.workers = 5"]);
    cluster.wait_for(IDLE, "5");
    cluster.reload(&["kongtask.workers = 1"]);
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    cluster.reload(&["kongtask.databases = 'other, another'"]);
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.reload(&["kongtask.databases = 'other, postgres'"]);
    cluster.wait_for("select what from done", "1");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn every_database_that_has_the_extension_is_served_and_no_bad_one_stops_that() {
    let cluster = Cluster::with(&[]);
    for database in ["one", "two", "empty", "closed", "crowded"] {
        cluster.sql(&format!("create database {database}"));
    }
    cluster.sql("alter database closed allow_connections false");
    cluster.sql("alter database crowded connection limit 0");
    for database in ["one", "two"] {
        let mut db = cluster.connect_as("postgres", database);
        db.batch_execute("create extension kongtask").expect("create extension");
        db.batch_execute(NOTE).expect("handlers");
        db.batch_execute("select graphile_worker.add_job('note', '1')").expect("add_job");
        let done = wait_until(SOON, || text(&mut db, "select count(*) from done") == "1");
        assert!(done, "{database}\n{}", cluster.log());
        assert_eq!(text(&mut db, "select count(*) from kongtask.workers where database = current_database()"), "4");
    }
    assert_eq!(
        cluster.text(
            "select string_agg(distinct datname, ',') from pg_stat_activity where backend_type ~ 'kongtask [sw]'"
        ),
        "one,two"
    );
    // And all of it again after a restart.
    cluster.stop("fast");
    cluster.start();
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask worker'", "8");
    // A copy of a served database is served.
    cluster.sql("create database three template one");
    let mut db = cluster.connect_as("postgres", "three");
    db.batch_execute("select pg_reload_conf()").expect("reload");
    db.batch_execute("select graphile_worker.add_job('note', '2')").expect("add_job");
    let done =
        wait_until(Duration::from_secs(90), || text(&mut db, "select count(*) from done where what = '2'") == "1");
    assert!(done, "{}", cluster.log());
    let mut one = cluster.connect_as("postgres", "one");
    one.batch_execute("select graphile_worker.add_job('note', '3')").expect("add_job");
    let done = wait_until(SOON, || text(&mut one, "select count(*) from done where what = '3'") == "1");
    assert!(done, "{}", cluster.log());
}

#[test]
fn drop_extension_stops_the_workers_and_create_starts_them_again() {
    let cluster = cluster(&["kongtask.shutdown_timeout = '1s'"]);
    cluster.wait_for(IDLE, "4");
    cluster.sql("select graphile_worker.add_job('nap', '60')");
    cluster.wait_for(RUNNING, "1");
    let begun = std::time::Instant::now();
    cluster.sql("drop extension kongtask");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    assert_eq!(cluster.text("select count(*) from done"), "0");
    cluster.sql("drop table done; drop function note, nap");
    for _ in 0..3 {
        cluster.sql("create extension kongtask");
        cluster.sql(NOTE);
        cluster.sql("select graphile_worker.add_job('note', '1')");
        cluster.wait_for("select count(*) from done", "1");
        // In one breath.
        cluster.sql("drop extension kongtask; drop table done; drop function note, nap; create extension kongtask");
        cluster.sql(NOTE);
        cluster.sql("select graphile_worker.add_job('note', '1')");
        cluster.wait_for("select count(*) from done", "1");
        cluster.sql("drop extension kongtask; drop table done; drop function note, nap");
    }
    // One that is taken back leaves everything as it was.
    cluster.sql("create extension kongtask");
    cluster.sql(NOTE);
    cluster.wait_for(IDLE, "4");
    cluster.sql("begin; drop extension kongtask cascade; rollback");
    cluster.sql("select graphile_worker.add_job('note', '2')");
    cluster.wait_for("select count(*) from done", "1");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn databases_can_be_dropped_renamed_and_copied_while_workers_are_busy() {
    let cluster = Cluster::with(&["kongtask.shutdown_timeout = '1s'"]);
    cluster.sql("create database app");
    {
        let mut db = cluster.connect_as("postgres", "app");
        db.batch_execute("create extension kongtask").expect("create extension");
        db.batch_execute(NOTE).expect("handlers");
        db.batch_execute("select graphile_worker.add_job('nap', '60')").expect("add_job");
        assert!(wait_until(SOON, || text(&mut db, RUNNING) == "1"));
    }
    cluster.sql("create database copy template app");
    cluster.wait_for(RUNNING_IN_APP, "1");
    cluster.sql("alter database app rename to app2");
    cluster.sql("alter database app2 rename to app");
    cluster.wait_for(RUNNING_IN_APP, "1");
    cluster.sql("drop database app");
    cluster.sql("drop database copy with (force)");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

const RUNNING_IN_APP: &str = "select count(*) from pg_stat_activity where backend_type = 'kongtask worker' and datname = 'app'
                              and state = 'active' and query like 'select public.nap(json) /* job 1, task nap, attempt 1 */'";

#[test]
fn a_statement_that_will_be_refused_stops_no_worker() {
    let cluster = cluster(&["kongtask.shutdown_timeout = '0'"]);
    cluster.sql("create role stranger login createdb");
    cluster.sql("select graphile_worker.add_job('nap', '1.5')");
    cluster.wait_for(RUNNING, "1");
    let mut stranger = cluster.connect_as("stranger", "template1");
    for (statement, code) in [
        ("drop database postgres", "42501"),
        ("alter database postgres rename to mine", "42501"),
        ("create database mine template postgres", "42501"),
    ] {
        assert_eq!(kongtask_tests::error(&mut stranger, statement).0, code, "{statement}");
    }
    let mut stranger = cluster.connect_as("stranger", "postgres");
    assert_eq!(kongtask_tests::error(&mut stranger, "drop extension kongtask").0, "42501");
    assert_eq!(cluster.text(RUNNING), "1");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    assert!(!cluster.log().contains("was released"), "{}", cluster.log());
}

#[test]
fn a_release_that_has_to_wait_stops_nothing_else() {
    let cluster = cluster(&["kongtask.poll_interval = '200ms'", "kongtask.workers = 2"]);
    cluster.sql("select graphile_worker.add_job('nap', '60', job_key := 'k')");
    cluster.wait_for(RUNNING, "1");
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
fn terminate_gives_the_job_back_and_cancel_fails_it() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql("select graphile_worker.add_job('nap', '1', queue_name := 'q', max_attempts := 1)");
    cluster.wait_for(RUNNING, "1");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'");
    cluster.wait_for("select attempts from graphile_worker.jobs where locked_by is not null", "1");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    cluster.wait_for(IDLE, "2");
    cluster.sql("select graphile_worker.add_job('nap', '60', queue_name := 'q')");
    // Not before the handler has begun.
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    let worker = cluster.text("select pid from kongtask.workers where state = 'running'");
    cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
    cluster.wait_for(
        "select last_error like 'canceling statement due to user request (SQLSTATE 57014)%' from graphile_worker.jobs",
        "t",
    );
    assert_eq!(cluster.text(LOCKED), "0");
    assert_eq!(cluster.text(&format!("select state from kongtask.workers where pid = {worker}")), "idle");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    // Idle ones, the scheduler and the launcher come back as well.
    cluster.sql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type like 'kongtask%'");
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done where what = '1'", "1");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type like 'kongtask%'", "4");
}

#[test]
fn fast_shutdown_lets_a_job_finish_within_the_timeout() {
    let cluster = cluster(&[]);
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
    let cluster = cluster(&["kongtask.shutdown_timeout = '1s'", "kongtask.poll_interval = '1h'"]);
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

/// However the server went down, what ran runs again at once, and each effect is there once.
#[test]
fn after_a_crash_jobs_run_again_at_once() {
    let cluster = cluster(&["kongtask.poll_interval = '1h'", "restart_after_crash = on"]);
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

#[test]
fn locks_of_external_workers_survive_a_restart() {
    let cluster = cluster(&[]);
    cluster.sql(
        "select graphile_worker.add_job('elsewhere', queue_name := 'q'), graphile_worker.get_job('external-worker')",
    );
    cluster.sql("select graphile_worker.get_job('external-worker')");
    cluster.stop("immediate");
    cluster.start();
    cluster.wait_for(IDLE, "4");
    assert_eq!(cluster.text("select string_agg(locked_by, ',') from graphile_worker.jobs"), "external-worker");
}

#[test]
fn a_standby_is_idle_and_works_once_promoted() {
    let cluster = cluster(&["wal_level = replica", "max_wal_senders = 4", "kongtask.poll_interval = '1h'"]);
    cluster.reload(&["kongtask.databases = ''"]);
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "0");
    let standby = cluster.standby();
    standby.configure(&["kongtask.databases = '*'"]);
    standby.sql("select pg_reload_conf()");
    cluster.sql("select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 10) n");
    standby.wait_for(JOBS, "10");
    let mut db = standby.connect();
    assert_eq!(text(&mut db, "select count(*) from pg_stat_activity where backend_type like 'kongtask%'"), "0");
    assert_eq!(kongtask_tests::error(&mut db, "select graphile_worker.add_job('note')").0, "25006");
    assert_eq!(text(&mut db, "select count(*) from kongtask.workers"), "0");
    drop(db);
    cluster.stop("immediate");
    standby.promote();
    standby.wait_for("select count(*) from done", "10");
    standby.wait_for(JOBS, "0");
}

#[test]
fn too_few_process_slots_are_said_and_lived_with() {
    let cluster = cluster(&["max_worker_processes = 4", "kongtask.poll_interval = '200ms'"]);
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select what from done", "1");
    cluster.wait_for_log("kongtask workers could be started in database \"postgres\"");
    cluster.wait_for_log("Raise max_worker_processes");
    assert_eq!(rows(&mut cluster.connect(), "select count(*) > 0 from kongtask.workers"), ["t"]);
    cluster.stop("fast");
}

#[test]
fn workers_that_cannot_stay_are_not_started_for_ever_and_come_back() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '200ms'"]);
    cluster.wait_for(IDLE, "2");
    cluster.sql("alter table graphile_worker.jobs rename column locked_at to taken_at");
    cluster.sql("insert into graphile_worker.jobs (task_identifier, payload) values ('note', '1')");
    let came = wait_until(SOON, || {
        cluster.log_lines(&["WARNING"]).iter().any(|line| {
            line.contains("kongtask workers cannot keep running in") || line.contains("scheduler of database")
        })
    });
    assert!(came, "{}", cluster.log());
    std::thread::sleep(Duration::from_secs(3));
    let errors = cluster.log_lines(&["ERROR"]).len();
    assert!(errors < 60, "{errors} errors: it runs in circles");
    cluster.sql("alter table graphile_worker.jobs rename column taken_at to locked_at");
    cluster.wait_for("select what from done", "1");
}

#[test]
fn a_scheduler_that_waits_for_something_does_not_spin() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'", "max_worker_processes = 4"]);
    cluster.sql(
        "create role alice login; grant usage on schema kongtask to alice;
         grant execute on function kongtask.register_task to alice",
    );
    cluster.connect_as("alice", "postgres").batch_execute("create schema authorization alice").unwrap_err();
    cluster.sql("create schema authorization alice");
    cluster
        .connect_as("alice", "postgres")
        .batch_execute("create function alice.h() returns void language sql as ''; select kongtask.register_task('h', 'alice.h()')")
        .expect("register");
    cluster.sql("alter role alice nologin; select graphile_worker.add_job('h'), graphile_worker.add_job('note', '1')");
    cluster.wait_for("select what from done", "1");
    std::thread::sleep(Duration::from_secs(2));
    // Processor time of the scheduler, in ticks of 10 ms.
    let pid = cluster.text("select pid from pg_stat_activity where backend_type = 'kongtask scheduler'");
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        stat.split_whitespace().skip(13).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(3));
    assert!(ticks() - before < 30, "{} ticks in 3 s", ticks() - before);
}

#[test]
fn the_log_says_who_started_and_stopped() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.wait_for(IDLE, "1");
    cluster.stop("fast");
    let log = cluster.log_lines(&["LOG"]);
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

/// By a statement that does not name it. Workers leave first, and nobody complains.
#[test]
fn drop_owned_takes_the_extension_and_its_processes() {
    let cluster = cluster(&[]);
    cluster.wait_for(IDLE, "4");
    cluster.sql("create role other superuser; create role stranger login");
    cluster.sql("create database other");
    let mut db = cluster.connect_as("postgres", "other");
    db.batch_execute("set role other; create extension kongtask; reset role").expect("create");
    let schedulers = "select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'";
    cluster.wait_for(schedulers, "2");
    db.batch_execute(
        "create function busy() returns void language sql as 'select pg_sleep(0.3)';
         select kongtask.register_task('busy', 'busy()');
         select graphile_worker.add_job('busy') from generate_series(1, 8)",
    )
    .expect("jobs");
    // Whoever has no right to it disturbs nobody.
    let mut stranger = cluster.connect_as("stranger", "other");
    let pids = "select string_agg(pid::text, ',' order by pid) from pg_stat_activity where backend_type ~ 'kongtask (sch|wor)'";
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask worker'", "8");
    let before = text(&mut db, pids);
    assert_eq!(error(&mut stranger, "drop owned by other").0, "42501");
    assert_eq!(error(&mut stranger, "drop owned by stranger, other").0, "42501");
    stranger.batch_execute("drop owned by stranger").expect("nothing of the queue's");
    assert_eq!(text(&mut db, pids), before);
    db.batch_execute("drop owned by other").expect("drop owned");
    cluster.wait_for(schedulers, "1");
    assert_eq!(cluster.log_lines(&["WARNING"]), Vec::<String>::new());
    let errors = cluster.log_lines(&["ERROR", "FATAL"]);
    assert!(errors.iter().all(|line| line.contains("permission denied to drop objects")), "{errors:?}");
}
