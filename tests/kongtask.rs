//! KongTask's pool, which calls get_job for any task, on a schema that it made: while that is taken over, and beside workers in
//! the server.

use kongtask_tests::kongtask::{self, Pool};
use kongtask_tests::{Cluster, LOCKED, describe, text, wait_until};
use postgres::Client;
use std::thread;
use std::time::Duration;

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
