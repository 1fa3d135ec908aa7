//! How many jobs a second are added and run, beside what the same server does at best: plain INSERTs of the same rows, and
//! bare calls of the same handler in a loop.

use kongtask_tests::{Cluster, text, wait_until};
use std::time::{Duration, Instant};

const JOBS: usize = 20_000;
const CONNECTIONS: usize = 8;

fn main() {
    println!("throughput, {JOBS} jobs that each write a row, fsync on");
    for synchronous_commit in ["on", "off"] {
        println!("\nsynchronous_commit = {synchronous_commit}");
        let cluster = Cluster::with_extension(&[
            "fsync = on",
            "max_worker_processes = 24",
            "kongtask.workers = 0",
            &format!("synchronous_commit = {synchronous_commit}"),
        ]);
        cluster.sql(
            "create table effect (n int);
             create table plain (like graphile_worker.jobs including defaults including indexes);
             create function effect(p json) returns void language sql as
               $$ insert into effect values ((p ->> 'n')::int) $$;
             select kongtask.register_task('effect', 'effect(json)');
             create procedure bare(n int) language plpgsql as $$ begin
               for i in 1..n loop perform effect(json_build_object('n', i)); commit; end loop;
             end $$;",
        );
        let insert = "insert into plain (task_identifier, payload) values ('effect', '{\"n\": 1}')";
        let add = "select graphile_worker.add_job('effect', '{\"n\": 1}')";
        let plain = rate(enqueue(&cluster, insert));
        let added = rate(enqueue(&cluster, add));
        report("plain INSERT", &format!("{CONNECTIONS} connections"), plain, None);
        report("add_job", &format!("{CONNECTIONS} connections"), added, Some(("plain INSERT", added / plain)));
        let bare = {
            let mut db = cluster.connect();
            let begun = Instant::now();
            db.batch_execute(&format!("call bare({JOBS})")).expect("bare calls");
            rate(begun.elapsed())
        };
        report("bare calls of the handler", "1 connection, a commit each", bare, None);
        for workers in [1, 4, 8, 16] {
            let mut db = cluster.connect();
            db.batch_execute("truncate graphile_worker.jobs; truncate effect").expect("truncate");
            db.batch_execute(&format!(
                "select count(graphile_worker.add_job('effect', json_build_object('n', n))) from generate_series(1, {JOBS}) n"
            ))
            .expect("add_job");
            let begun = Instant::now();
            cluster.reload(&[&format!("kongtask.workers = {workers}")]);
            let drained = wait_until(Duration::from_secs(120), || {
                text(&mut db, "select count(*) from effect") == JOBS.to_string()
            });
            assert!(drained, "{}", cluster.log());
            let run = rate(begun.elapsed());
            assert_eq!(text(&mut db, "select count(distinct n) from effect"), JOBS.to_string());
            report("jobs run", &format!("{workers} workers"), run, Some(("bare calls", run / bare)));
            cluster.reload(&["kongtask.workers = 0"]);
            cluster.wait_for("select count(*) from kongtask.workers", "0");
        }
    }
}

fn rate(elapsed: Duration) -> f64 {
    JOBS as f64 / elapsed.as_secs_f64()
}

fn report(what: &str, how: &str, per_second: f64, against: Option<(&str, f64)>) {
    let against = against.map_or(String::new(), |(what, ratio)| format!("{ratio:.2} of {what}"));
    println!("  {what:<28} {how:<30} {per_second:>9.0}/s  {against}");
}

/// Runs one statement `JOBS` times, a transaction each, from several connections at once.
fn enqueue(cluster: &Cluster, statement: &'static str) -> Duration {
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| cluster.connect()).collect();
    let begun = Instant::now();
    let threads: Vec<_> = connections
        .into_iter()
        .map(|mut db| {
            std::thread::spawn(move || {
                let statement = db.prepare(statement).expect("prepare");
                for _ in 0..JOBS / CONNECTIONS {
                    db.query(&statement, &[]).expect("a row");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a connection");
    }
    begun.elapsed()
}
