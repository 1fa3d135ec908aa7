//! Many databases with the extension, in which there is nothing to do: what that costs, and how late a job runs in one of them.

use crate::report::{Section, Target, number};
use crate::server::{Server, median, scaled, setting};
use kongtask_tests::{Cluster, SOON, text, wait_until};
use postgres::Client;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOW: &str = "A server of its own, with fsync off, as so many files are to be made; its processes leave after 0.2 s without work. \
    From the call that adds a job to the first statement \
    of its handler, in a database without processes.";

const DATABASE: &str = "create extension kongtask; create table begun (at timestamptz);
    create function note() returns void language sql as 'insert into public.begun values (clock_timestamp())';
    select kongtask.register_task('note', 'note()')";

/// Databases in each of which a job is added, one after another.
const ASKED: usize = 40;

/// Databases in each of which a job is added at once, by a connection each.
const MOST_AT_ONCE: usize = 100;

/// For how long the CPU time of the launcher is taken.
const IDLE: Duration = Duration::from_secs(10);

pub fn measure(_: &Server, section: &mut Section) {
    section.note(HOW);
    let databases = setting("DATABASES", scaled(100).min(100));
    let cluster = Cluster::with(&[
        "max_connections = 300",
        "max_worker_processes = 64",
        &format!("kongtask.max_databases = {}", databases + 100),
        "kongtask.worker_idle_timeout = '200ms'",
        "kongtask.scheduler_idle_timeout = '200ms'",
    ]);
    cluster.sql("create database d0");
    connect(&cluster, 0).batch_execute(DATABASE).expect("a database");
    for n in 1..=databases {
        cluster.sql(&format!("create database d{n} template d0"));
    }
    wait_until_idle(&cluster);
    // Files of all databases reach the disk before the clock runs.
    cluster.sql("checkpoint");
    let begun = Instant::now();
    cluster.stop("fast");
    cluster.start();
    let looked = wait_until_idle(&cluster) - begun;
    let cpu = launcher_cpu(&cluster);
    sleep(IDLE);
    let cpu = (launcher_cpu(&cluster) - cpu) / IDLE.as_secs_f64();
    let processes = processes(&cluster);

    let mut waited: Vec<f64> =
        (1..=databases).step_by((databases / ASKED).max(1)).map(|n| first_job(&cluster, n)).collect();
    waited.sort_by(f64::total_cmp);
    let at_once = databases.min(MOST_AT_ONCE);
    let mut connections: Vec<Client> = (1..=at_once).map(|n| connect(&cluster, n)).collect();
    for db in &mut connections {
        db.batch_execute("truncate begun").expect("truncate");
    }
    let begun = Instant::now();
    for db in &mut connections {
        db.batch_execute("select graphile_worker.add_job('note')").expect("add_job");
    }
    let all =
        |connections: &mut Vec<Client>| connections.iter_mut().all(|db| text(db, "select count(*) from begun") != "0");
    assert!(wait_until(SOON * 6, || all(&mut connections)), "{}", cluster.log());
    let took = begun.elapsed();

    let first = median(waited.clone());
    let row = |what: &str, value: f64| vec![what.to_string(), number(value)];
    section.table(
        &["", ""],
        vec![
            row("databases", databases as f64),
            row("processes beside the launcher when all are idle", processes),
            row("CPU time of the launcher when all are idle, ms a second", cpu),
            row("from a restart until each has been looked at, ms", looked.as_secs_f64() * 1e3),
            row("a job in an idle database begins after, median, ms", first),
            row("the same, greatest, ms", waited[waited.len() - 1]),
            row(
                &format!("a job in each of {at_once} of them at once: all have run after, ms"),
                took.as_secs_f64() * 1e3,
            ),
        ],
    );
    let settings = format!("{databases} databases");
    section.require("processes when all are idle", &settings, Ok(processes), Target::AtMost(0.0));
    section.require("median ms until a job in an idle database begins", &settings, Ok(first), Target::AtMost(50.0));
}

fn connect(cluster: &Cluster, n: usize) -> Client {
    cluster.connect_as("postgres", &format!("d{n}"))
}

fn processes(cluster: &Cluster) -> f64 {
    let count = "select count(*) from pg_stat_activity where backend_type in ('kongtask scheduler', 'kongtask worker')";
    cluster.text(count).parse().expect("a count")
}

/// Waits until there has been no process for a second: between two databases that are looked at, there may be none for a
/// moment. Returns since when.
fn wait_until_idle(cluster: &Cluster) -> Instant {
    const LONG: Duration = Duration::from_secs(1);
    let mut since = Instant::now();
    let is_idle = || {
        if processes(cluster) > 0.0 {
            since = Instant::now();
        }
        since.elapsed() > LONG
    };
    assert!(wait_until(SOON * 6, is_idle), "{}", cluster.log());
    since
}

/// Milliseconds from the call of add_job to the handler's start.
fn first_job(cluster: &Cluster, n: usize) -> f64 {
    let mut db = connect(cluster, n);
    let add = "select called from (select clock_timestamp() as called, graphile_worker.add_job('note')) added";
    let called = text(&mut db, add);
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from begun") == "1"), "{}", cluster.log());
    let waited = format!("select extract(epoch from at - '{called}') * 1e3 from begun");
    text(&mut db, &waited).parse().expect("milliseconds")
}

/// Milliseconds of CPU that the launcher has used.
fn launcher_cpu(cluster: &Cluster) -> f64 {
    let pid = cluster.text("select pid from pg_stat_activity where backend_type = 'kongtask launcher'");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e6
}
