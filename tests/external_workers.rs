//! External workers beside ours: graphile-worker's own processes, KongTask's pool, and any session that calls get_job.

use kongtask_tests::fixtures::{with_note, with_note_and_nap};
use kongtask_tests::kongtask::{self, Pool};
use kongtask_tests::reference::Worker;
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::{Cluster, IDLE, LOCKED, SOON, describe, error, rows, say, text, wait_until};
use postgres::Client;
use std::thread;
use std::time::Duration;

/// Those that work with the schema as it is.
const VERSIONS: [&str; 3] = ["0.8.1", "0.9.0", "0.12.2"];
const POSTGRES: (&str, &str) = ("postgres", "postgres");
const OURS: &str = "create table done (job bigint, task text, by text);
    create function here(j graphile_worker.jobs) returns void language sql as
      $$ insert into public.done values (j.id, j.task_identifier, 'here') $$;";

/// A task of the external worker's that notes what it did.
const NOTE: &str =
    "await helpers.query(`insert into done values ($1, $2, 'there')`, [helpers.job.id, helpers.job.task_identifier]);";

#[test]
fn their_workers_share_the_work_and_change_nothing() {
    for version in VERSIONS {
        let cluster = Cluster::with_extension(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
        cluster.sql(OURS);
        cluster.sql(
            "select kongtask.register_task('here', 'here(graphile_worker.jobs)');
             select kongtask.register_task('both', 'here(graphile_worker.jobs)')",
        );
        let mut db = cluster.connect();
        let before = snapshot(&mut db, "graphile_worker");
        let tasks = [("there", NOTE), ("both", NOTE), ("failing", "throw new Error('not today');")];
        let worker = Worker::start(&cluster, POSTGRES, version, &tasks, "", &["-j", "2"]);
        worker.wait_until_it_listens(&cluster);

        for task in ["here", "there"] {
            db.batch_execute(&format!("select graphile_worker.add_job('{task}', '{{}}', 'q')")).expect("add_job");
            let query = format!("select count(*) from done where task = '{task}' and by = '{task}'");
            assert!(wait_until(SOON, || text(&mut db, &query) == "1"), "{version}: {task}\n{}", worker.log());
        }
        // Known to both, run once each, whoever comes first.
        db.batch_execute("select graphile_worker.add_job('both') from generate_series(1, 200)").expect("add_job");
        cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
        assert_eq!(
            text(&mut db, "select count(*) || ' ' || count(distinct job) from done where task = 'both'"),
            "200 200"
        );
        db.batch_execute("select graphile_worker.add_job('failing', max_attempts := 3)").expect("add_job");
        cluster.wait_for(
            "select attempts || ' ' || (last_error = 'not today') || ' ' || (locked_by is null) from graphile_worker.jobs
             where last_error is not null",
            "1 true true",
        );
        db.batch_execute("select graphile_worker.complete_jobs((select array_agg(id) from graphile_worker.jobs))")
            .expect("complete");
        assert_same(version, &snapshot(&mut db, "graphile_worker"), &before);
        assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new(), "{version}");
    }
}

#[test]
fn their_cron_fills_in_what_was_missed() {
    for version in ["0.9.0", "0.12.2"] {
        let cluster = Cluster::with_extension(&["kongtask.workers = 2"]);
        cluster.sql(OURS);
        cluster.sql(
            "select kongtask.register_task('here', 'here(graphile_worker.jobs)');
             insert into graphile_worker.known_crontabs values ('here', now() - interval '1 day', now() - interval '5 minutes'),
               ('there', now() - interval '1 day', now() - interval '5 minutes')",
        );
        // A crontab's task need not be one that this worker handles.
        let crontab = "* * * * * there ?fill=4m\n* * * * * here ?fill=4m {\"from\": \"cron\"}\n";
        let worker = Worker::start(&cluster, POSTGRES, version, &[("there", NOTE)], crontab, &[]);
        for task in ["here", "there"] {
            let query = format!("select count(*) >= 3 from done where task = '{task}' and by = '{task}'");
            assert!(wait_until(SOON, || cluster.text(&query) == "t"), "{version}: {task}\n{}", worker.log());
        }
        assert_eq!(
            cluster.text("select count(*) from graphile_worker.known_crontabs where last_execution > now() - interval '2 minutes'"),
            "2",
            "{version}"
        );
        assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new(), "{version}");
    }
}

#[test]
fn a_role_that_is_granted_it_runs_their_worker_and_no_other_does() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    cluster.sql(OURS);
    cluster.sql(
        "create role node login; grant select, insert on done to node; create role stranger login;
         select kongtask.grant_worker('node')",
    );
    let crontab = "* * * * * there ?fill=1m\n";
    let worker = Worker::start(&cluster, ("node", "postgres"), "0.12.2", &[("there", NOTE)], crontab, &[]);
    worker.wait_until_it_listens(&cluster);
    cluster.sql("select graphile_worker.add_job('there')");
    cluster.wait_for("select count(*) from done where by = 'there'", "1");
    cluster.wait_for("select count(*) from graphile_worker.known_crontabs", "1");
    let mut stranger = cluster.connect_as("stranger", "postgres");
    for statement in ["select kongtask.grant_worker('stranger')", "select graphile_worker.get_job('1234567890')"] {
        assert_eq!(error(&mut stranger, statement).0, "42501", "{statement}");
    }
    // What lets a worker in is not what lets somebody read.
    cluster.sql(
        "select graphile_worker.add_job('nobodys'); create role reader login; grant usage on schema graphile_worker to reader;
         grant select on graphile_worker.jobs to reader",
    );
    let mut reader = cluster.connect_as("reader", "postgres");
    assert_eq!(text(&mut reader, "select count(*) from graphile_worker.jobs"), "0");
    let mut node = cluster.connect_as("node", "postgres");
    assert_eq!(text(&mut node, "select count(*) from graphile_worker.jobs where task_identifier = 'nobodys'"), "1");
}

#[test]
fn later_versions_fail_to_start_and_leave_everything_as_it_was() {
    for version in ["0.13.0", "0.17.3"] {
        let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
        cluster.sql(OURS);
        cluster.sql(
            "select kongtask.register_task('here', 'here(graphile_worker.jobs)');
             select graphile_worker.add_job('there', '{\"n\": 1}', 'q', job_key := 'k');
             insert into graphile_worker.known_crontabs values ('c', now())",
        );
        let mut db = cluster.connect();
        let everything = |db: &mut postgres::Client| {
            let mut all = snapshot(db, "graphile_worker");
            for table in ["jobs", "job_queues", "known_crontabs", "migrations"] {
                all.extend(rows(db, &format!("select '{table}', t.* from graphile_worker.{table} t order by 2")));
            }
            all
        };
        let before = everything(&mut db);
        let mut worker = Worker::start(&cluster, POSTGRES, version, &[("there", NOTE)], "", &[]);
        assert!(!worker.end(), "{version} was content\n{}", worker.log());
        let says = "graphile-worker's migration 10 cannot be applied to schema graphile_worker: it belongs to the extension kongtask";
        assert!(worker.log().contains(says), "{version}\n{}", worker.log());
        assert_same(version, &everything(&mut db), &before);
        // Nothing is in the way of the others.
        cluster.sql("select graphile_worker.add_job('here')");
        cluster.wait_for("select count(*) from done", "1");
    }
}

#[test]
fn five_thousand_jobs_of_three_tasks_are_done_once_each() {
    const JOBS: i64 = 5000;
    let cluster = Cluster::with_extension(&["kongtask.workers = 2", "max_connections = 50"]);
    cluster.sql(OURS);
    cluster.sql(
        "create table wanted (job bigint primary key, task text);
         select kongtask.register_task('one', 'here(graphile_worker.jobs)');
         select kongtask.register_task('two', 'here(graphile_worker.jobs)')",
    );
    let worker = Worker::start(&cluster, POSTGRES, "0.12.2", &[("three", NOTE)], "", &["-j", "4", "-m", "8"]);
    worker.wait_until_it_listens(&cluster);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for enqueuer in 0..4 {
            let mut db = cluster.connect();
            scope.spawn(move || {
                for n in 0..JOBS / 4 {
                    let task = ["one", "two", "three"][usize::try_from(n % 3).expect("small")];
                    let queue = if n % 5 == 0 { format!("'q{enqueuer}'") } else { "null".into() };
                    db.batch_execute(&format!(
                        "begin; insert into wanted select id, task_identifier
                           from graphile_worker.add_job('{task}', queue_name := {queue}); commit"
                    ))
                    .expect("add_job");
                }
            });
        }
    });
    let mut db = cluster.connect();
    let left = "select count(*) from graphile_worker.jobs";
    let done = wait_until(std::time::Duration::from_secs(120), || text(&mut db, left) == "0");
    assert!(done, "{} are left\n{}", text(&mut db, left), worker.log());
    say(&format!("{JOBS} jobs of three tasks, by two kinds of workers, in {:?}", begun.elapsed()));
    assert_eq!(text(&mut db, "select count(*) from wanted"), JOBS.to_string());
    assert_eq!(
        rows(
            &mut db,
            "select w.task, d.by, count(*), count(distinct d.job) = count(*) from wanted w full join done d using (job)
             where w.task is not distinct from d.task group by 1, 2 order by 1"
        ),
        ["one|here|1668|t", "three|there|1664|t", "two|here|1668|t"]
    );
    assert_eq!(text(&mut db, "select count(*) from done"), JOBS.to_string());
}

#[test]
fn locks_of_external_workers_survive_a_restart() {
    let cluster = with_note_and_nap(&[]);
    cluster.sql(
        "select graphile_worker.add_job('elsewhere', queue_name := 'q'), graphile_worker.get_job('external-worker')",
    );
    cluster.sql("select graphile_worker.get_job('external-worker')");
    cluster.stop("immediate");
    cluster.start();
    cluster.wait_for(IDLE, "4");
    assert_eq!(cluster.text("select string_agg(locked_by, ',') from graphile_worker.jobs"), "external-worker");
}

/// How long some thousand jobs may take on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A database of role app's, with KongTask's schema in it, and a table for what was done.
fn with_kongtask(cluster: &Cluster, database: &str, migration: usize) -> Client {
    cluster.sql(&format!("create database {database} owner app"));
    let mut app = cluster.connect_as("app", database);
    kongtask::install(&mut app, migration);
    app.batch_execute("create table public.done (job bigint, task text, by text)").expect("a table");
    app
}

fn adopt(cluster: &Cluster, database: &str) {
    cluster
        .connect_as("postgres", database)
        .batch_execute("create extension kongtask schema graphile_worker")
        .unwrap_or_else(|e| panic!("{}\n{}", describe(&e), cluster.log()));
}

/// Adds jobs one by one from a session of its own: every third is in one of five queues, every seventh has a key, and every
/// eleventh fails at first.
fn enqueue(
    cluster: &Cluster,
    database: &str,
    session: usize,
    tasks: &'static [&'static str],
    count: usize,
) -> thread::JoinHandle<()> {
    let mut client = cluster.connect_as("app", database);
    thread::spawn(move || {
        for number in 0..count {
            let queue = (number % 3 == 0).then(|| format!("q{}", number % 5));
            let key = (number % 7 == 0).then(|| format!("{session}-{number}"));
            let payload = if number % 11 == 0 { r#"{"fail": true}"# } else { "{}" };
            client
                .execute(
                    "select graphile_worker.add_job($1, $4::text::json, $2, job_key := $3)",
                    &[&tasks[number % tasks.len()], &queue, &key, &payload],
                )
                .unwrap_or_else(|e| panic!("{}", describe(&e)));
        }
    })
}

#[test]
fn a_busy_schema_is_taken_over_without_a_deadlock_or_a_lost_job() {
    let cluster = Cluster::with(&["max_worker_processes = 32"]);
    cluster.sql("create role app login");
    for round in 0..4 {
        let database = format!("shop{round}");
        let mut db = with_kongtask(&cluster, &database, 9);
        let pool = Pool::start(&cluster, "app", &database, 4, &["there"]);
        let sessions: Vec<_> = (0..3).map(|n| enqueue(&cluster, &database, n, &["there"], 1000)).collect();
        let done = "select count(*) from done";
        let count = |db: &mut Client| text(db, done).parse::<usize>().expect("a number");
        assert!(wait_until(LONG, || count(&mut db) >= 200), "{}", cluster.log());
        adopt(&cluster, &database);
        for session in sessions {
            session.join().expect("every job is added");
        }
        assert!(wait_until(LONG, || text(&mut db, "select count(*) from graphile_worker.jobs") == "0"));
        assert_eq!(pool.stop(), Vec::<String>::new());
        assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct job) from done"), "3000 3000");
        assert_eq!(text(&mut db, LOCKED), "0");
    }
    assert!(!cluster.log().contains("deadlock"), "{}", cluster.log());
}

#[test]
fn a_pool_that_asks_for_any_job_and_the_servers_workers_share_a_schema_at_its_8_and_9() {
    let cluster = Cluster::with(&["max_worker_processes = 32"]);
    cluster.sql("create role app login; create role here login");
    for migration in [8, 9] {
        let database = format!("shop{migration}");
        let mut db = with_kongtask(&cluster, &database, migration);
        let pool = Pool::start(&cluster, "app", &database, 4, &["there", "there_too"]);
        adopt(&cluster, &database);
        cluster
            .connect_as("postgres", &database)
            .batch_execute(
                "create function public.note(j graphile_worker.jobs) returns void language plpgsql as $$ begin
                   if j.payload ->> 'fail' is not null and j.attempts < 2 then raise 'it failed'; end if;
                   perform pg_sleep(0.002);
                   insert into public.done (job, task, by) values (j.id, j.task_identifier, 'here');
                 end $$;
                 grant usage on schema kongtask, graphile_worker to here;
                 grant execute on function kongtask.register_task to here;
                 grant insert on done to here",
            )
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
        cluster
            .connect_as("here", &database)
            .batch_execute(
                "select kongtask.register_task('here', 'public.note(graphile_worker.jobs)');
                 select kongtask.register_task('here_too', 'public.note(graphile_worker.jobs)', max_batch := 20)",
            )
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
        let tasks = &["here", "there", "here_too", "there_too", "here"];
        let sessions: Vec<_> = (0..4).map(|n| enqueue(&cluster, &database, n, tasks, 500)).collect();
        for session in sessions {
            session.join().expect("every job is added");
        }
        let jobs = "select count(*) from graphile_worker.jobs";
        assert!(wait_until(LONG, || text(&mut db, jobs) == "0"), "{}\n{}", text(&mut db, jobs), cluster.log());
        assert_eq!(pool.stop(), Vec::<String>::new());
        assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct job) from done"), "2000 2000");
        assert_eq!(text(&mut db, "select count(*) from done where (by = 'here') <> starts_with(task, 'here')"), "0");
        assert_eq!(text(&mut db, LOCKED), "0");
    }
    assert!(!cluster.log().contains("deadlock"), "{}", cluster.log());
}

#[test]
fn external_locks_expire_and_external_identifiers_are_left() {
    let cluster = with_note(&["kongtask.job_expiry = '1h'", "kongtask.poll_interval = '100ms'"]);
    cluster.sql(
        "select graphile_worker.add_job('elsewhere', '0');
         begin;
         select graphile_worker.add_job('note', '1'), graphile_worker.add_job('note', '2', queue_name := 'q');
         update graphile_worker.jobs set locked_at = now() - interval '30 min', locked_by = 'external' where id > 1;
         insert into graphile_worker.job_queues values ('q', 1, now() - interval '30 min', 'external', 3);
         commit;",
    );
    cluster.sql("select graphile_worker.add_job('note', '3')");
    cluster.wait_for("select string_agg(what, '' order by what) from done", "3");
    cluster.reload(&["kongtask.job_expiry = '20min'"]);
    cluster.wait_for("select string_agg(what, '' order by what) from done", "123");
    assert_eq!(
        cluster.text("select string_agg(task_identifier, ',') from graphile_worker.jobs where attempts = 0"),
        "elsewhere"
    );
}
