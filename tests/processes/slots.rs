//! Background worker slots (max_worker_processes) that are fewer than all databases would have.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use postgres::Client;
use std::time::Instant;

#[test]
fn too_few_process_slots_are_said_and_lived_with() {
    let cluster = with_note_and_nap(&["max_worker_processes = 4", "kongtask.poll_interval = '200ms'"]);
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select what from done", "1");
    cluster.wait_for_log("kongtask workers could be started in database \"postgres\"");
    cluster.wait_for_log("Increase max_worker_processes");
    assert_eq!(rows(&mut cluster.connect(), "select count(*) > 0 from kongtask.workers"), ["t"]);
    cluster.stop("fast");
}

fn settings(slots: usize) -> Vec<String> {
    // Replication has a slot of its own.
    vec![format!("max_worker_processes = {slots}"), "max_logical_replication_workers = 0".into()]
}

const DATABASE: &str = "create extension kongtask; create table done (at timestamptz default clock_timestamp());
    create function note() returns void language sql as 'insert into public.done default values';
    create function rest() returns void language sql as 'insert into public.done default values; select pg_sleep(0.3)';
    create function short() returns void language sql as 'insert into public.done default values; select pg_sleep(0.01)';
    select kongtask.register_task('note', 'note()'), kongtask.register_task('rest', 'rest()'),
           kongtask.register_task('short', 'short()')";

/// A cluster with so many databases that are served, named d1 and so on.
fn cluster(slots: usize, databases: usize) -> Cluster {
    let settings = settings(slots);
    let cluster = Cluster::with(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 1..=databases {
        cluster.sql(&format!("create database d{n}"));
        let mut db = connect(&cluster, n);
        db.batch_execute(DATABASE).expect("a database");
    }
    cluster
}

fn connect(cluster: &Cluster, n: usize) -> Client {
    cluster.connect_as("postgres", &format!("d{n}"))
}

fn runs(cluster: &Cluster, n: usize) {
    let mut db = connect(cluster, n);
    let before: i64 = text(&mut db, "select count(*) from done").parse().expect("a number");
    db.batch_execute("select graphile_worker.add_job('note')").expect("add_job");
    let after = (before + 1).to_string();
    let begun = Instant::now();
    let ran = wait_until(SOON, || text(&mut db, "select count(*) from done") == after);
    assert!(ran, "d{n}\n{}", cluster.log());
    println!("d{n}: {:?}", begun.elapsed());
}

#[test]
fn a_database_with_jobs_gets_a_worker_from_those_that_idle_elsewhere() {
    for (slots, databases) in [(8, 3), (24, 7)] {
        let cluster = cluster(slots, databases);
        for n in (1..=databases).rev().chain(1..=databases) {
            runs(&cluster, n);
        }
        // Also after a start, where whoever comes first takes all.
        cluster.stop("fast");
        cluster.start();
        for n in (1..=databases).rev() {
            runs(&cluster, n);
        }
        assert_eq!(cluster.log_lines(&["ERROR", "PANIC"]), Vec::<String>::new());
    }
}

#[test]
fn a_database_with_jobs_gets_a_worker_from_one_that_is_always_busy() {
    let cluster = cluster(7, 2);
    let mut busy = connect(&cluster, 1);
    busy.batch_execute("select graphile_worker.add_job('rest') from generate_series(1, 100)").expect("add_job");
    let idle = "select count(*) from kongtask.workers where database = 'd1' and state = 'running'";
    assert!(wait_until(SOON, || text(&mut busy, idle) != "0"));
    runs(&cluster, 2);
    assert_ne!(text(&mut busy, "select count(*) from graphile_worker.jobs"), "0");
}

/// Processes that leave as soon as they are idle.
const ELASTIC: [&str; 2] = ["kongtask.worker_idle_timeout = '1s'", "kongtask.scheduler_idle_timeout = '5s'"];

/// A cluster with so many copies of a database that has tasks, named d1 and so on.
fn copies(slots: usize, databases: usize, more: &[&str]) -> Cluster {
    let settings = settings(slots);
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(ELASTIC).chain(more.iter().copied()).collect();
    let cluster = Cluster::with(&settings);
    cluster.sql("create database d0");
    let mut db = cluster.connect_as("postgres", "d0");
    db.batch_execute(DATABASE).expect("a database");
    drop(db);
    for n in 1..=databases {
        cluster.sql(&format!("create database d{n} template d0"));
    }
    cluster
}

/// How often each of the databases has run a job.
fn counts(connections: &mut [Client]) -> Vec<i64> {
    connections.iter_mut().map(|db| text(db, "select count(*) from done").parse().expect("a number")).collect()
}

#[test]
fn each_of_many_databases_with_jobs_gets_its_turn_where_slots_are_few() {
    // 200 slots, if there are 140 databases.
    let databases = many().min(140);
    for (slots, databases, task) in [(8, 12, "short"), (24, 24, "short"), (databases * 10 / 7, databases, "rest")] {
        let cluster = copies(slots, databases, &["max_connections = 200"]);
        let mut connections: Vec<Client> = (1..=databases).map(|n| connect(&cluster, n)).collect();
        // More than any of them can run while this test lasts.
        for db in &mut connections {
            let add = format!("select graphile_worker.add_job('{task}') from generate_series(1, 3000)");
            db.batch_execute(&add).expect("add_job");
        }
        let begun = Instant::now();
        for round in 1..=2 {
            let before = if round == 1 { vec![0; databases] } else { counts(&mut connections) };
            let all_have_run = wait_until(SOON * 2, || {
                counts(&mut connections).iter().zip(&before).all(|(count, before)| count > before)
            });
            assert!(all_have_run, "{slots} slots: {before:?}, {:?}\n{}", counts(&mut connections), cluster.log());
        }
        println!("{slots} slots, {databases} databases: two rounds in {:?}", begun.elapsed());
        let left = connections.iter_mut().map(|db| text(db, "select count(*) from graphile_worker.jobs"));
        assert!(left.into_iter().all(|jobs| jobs != "0"), "it was no contest");
        assert_eq!(cluster.log_lines(&["ERROR", "PANIC"]), Vec::<String>::new());
    }
}

#[test]
fn each_role_with_jobs_gets_its_turn_where_there_is_one_worker() {
    let cluster = with_note_and_nap(&["kongtask.workers = 1", "kongtask.worker_idle_timeout = '5s'"]);
    cluster.sql(
        "create table by_role (role name default current_user);
         grant insert on by_role to public;
         create function work() returns void language sql as
           'insert into public.by_role default values; select pg_sleep(0.01)'",
    );
    for role in ["a", "b", "c", "d"] {
        cluster.sql(&format!(
            "create role {role} login; grant usage on schema kongtask to {role};
             grant execute on all functions in schema kongtask to {role};
             set session authorization {role};
             select kongtask.register_task('of_{role}', 'work()')"
        ));
    }
    cluster.sql(
        "select graphile_worker.add_job('of_' || role) from unnest('{a,b,c,d}'::text[]) role, generate_series(1, 5000)",
    );
    cluster.wait_for("select string_agg(distinct role, ' ' order by role) from by_role", "a b c d");
    cluster.sql("truncate by_role");
    cluster.wait_for("select string_agg(distinct role, ' ' order by role) from by_role", "a b c d");
    assert_ne!(cluster.text("select count(*) from graphile_worker.jobs"), "0");
}

#[test]
fn a_worker_that_makes_room_finishes_its_job() {
    let cluster = with_note_and_nap(&[
        "kongtask.workers = 1",
        "kongtask.worker_idle_timeout = '5s'",
        "kongtask.shutdown_timeout = '100ms'",
    ]);
    cluster.sql(
        "create role other login; grant usage on schema kongtask to other; grant insert on done to other;
         grant execute on all functions in schema kongtask to other;
         set session authorization other;
         select kongtask.register_task('of_other', 'note(json)')",
    );
    cluster.sql("select graphile_worker.add_job('nap', '2')");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    cluster.sql("select graphile_worker.add_job('of_other', '\"other\"')");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'stopping'", "1");
    cluster.wait_for("select string_agg(what, ' ' order by what) from done", "nap other");
    assert!(!cluster.log().contains("terminating"), "{}", cluster.log());
}

#[test]
fn a_database_with_long_jobs_gives_slots_to_another_after_them() {
    // A launcher, two schedulers, and two workers.
    let cluster = copies(5, 2, &["kongtask.shutdown_timeout = '100ms'", "kongtask.poll_interval = '1h'"]);
    let mut busy = connect(&cluster, 1);
    busy.batch_execute("select graphile_worker.add_job('rest') from generate_series(1, 300)").expect("add_job");
    let running = "select count(*) from kongtask.workers where database = 'd1' and state = 'running'";
    assert!(wait_until(SOON, || text(&mut busy, running) == "3"), "{}", cluster.log());
    runs(&cluster, 2);
    assert!(!cluster.log().contains("terminating"), "{}", cluster.log());
    assert_ne!(text(&mut busy, "select count(*) from graphile_worker.jobs"), "0");
}

/// 40 databases; as many as KONGTASK_DATABASES says (make many-databases).
fn many() -> usize {
    std::env::var("KONGTASK_DATABASES").map_or(40, |n| n.parse().expect("a number"))
}

#[test]
fn many_databases_are_served_by_the_launcher_alone() {
    let databases = many();
    let begun = Instant::now();
    let cluster = copies(
        200,
        databases,
        &[
            "max_connections = 400",
            "kongtask.worker_idle_timeout = '100ms'",
            "kongtask.scheduler_idle_timeout = '200ms'",
        ],
    );
    println!("{databases} databases made in {:?}", begun.elapsed());
    let processes =
        "select count(*) from pg_stat_activity where backend_type in ('kongtask scheduler', 'kongtask worker')";
    let none_is_left = |cluster: &Cluster| {
        let mut db = cluster.connect();
        wait_until(SOON * 3, || text(&mut db, processes) == "0")
    };
    assert!(none_is_left(&cluster), "{}", cluster.log());
    let begun = Instant::now();
    cluster.stop("fast");
    cluster.start();
    assert!(none_is_left(&cluster), "{}", cluster.log());
    println!("looked at after a start in {:?}", begun.elapsed());
    // One after another, each in a database without a process.
    let mut latencies = Vec::new();
    for n in (1..=databases).step_by(databases / 20) {
        let mut db = connect(&cluster, n);
        let since = text(&mut db, "select clock_timestamp() from (select graphile_worker.add_job('note')) j");
        assert!(wait_until(SOON, || text(&mut db, "select count(*) from done") == "1"), "{}", cluster.log());
        let took = format!("select extract(epoch from at - '{since}') * 1000 from done");
        latencies.push(text(&mut db, &took).parse::<f64>().expect("milliseconds"));
    }
    latencies.sort_by(f64::total_cmp);
    println!("a job began after {:.1} ms (median; {latencies:.1?})", latencies[latencies.len() / 2]);
    assert!(latencies[latencies.len() / 2] < 1000.0);
    // And many at once.
    let begun = Instant::now();
    let mut connections: Vec<Client> = (1..=databases.min(100)).map(|n| connect(&cluster, n)).collect();
    let before = counts(&mut connections);
    for db in &mut connections {
        db.batch_execute("select graphile_worker.add_job('note') from generate_series(1, 10)").expect("add_job");
    }
    let all = wait_until(SOON * 3, || {
        counts(&mut connections).iter().zip(&before).all(|(count, before)| *count == before + 10)
    });
    assert!(all, "{}", cluster.log());
    println!("{} databases at once in {:?}", connections.len(), begun.elapsed());
    drop(connections);
    assert!(none_is_left(&cluster), "{}", cluster.log());
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR", "PANIC"]), Vec::<String>::new());
}

#[test]
fn databases_beyond_those_that_can_be_served_are_told_of() {
    let cluster = copies(16, 3, &["kongtask.max_databases = 2"]);
    cluster.wait_for_log("kongtask cannot serve database");
    let mut without: Vec<String> = (0..=3).map(|n| format!("d{n}")).collect();
    let said = |database: &String| {
        let mut db = cluster.connect_as("postgres", database);
        db.batch_execute("select graphile_worker.add_job('note')").expect("add_job");
        text(&mut db, "select distinct why from kongtask.job_states")
    };
    without.retain(|database| said(database) == "no worker: kongtask.max_databases is reached");
    assert_eq!(without.len(), 2, "{without:?}");
    // One that is dropped makes room.
    let served = (0..=3).map(|n| format!("d{n}")).find(|database| !without.contains(database)).expect("a served one");
    cluster.sql(&format!("drop database {served}"));
    let mut ran = without.iter().map(|database| {
        let mut db = cluster.connect_as("postgres", database);
        wait_until(SOON, || text(&mut db, "select count(*) from done") == "1")
    });
    assert!(ran.any(|ran| ran), "{}", cluster.log());
}
