//! What its processes take while they wait, and how long it takes until the first job runs.

use crate::queue::{Queue, Task};
use crate::report::{Section, number};
use crate::server::{SETTINGS, Server, median, rounds, scaled};
use kongtask_tests::{Cluster, rows};
use std::time::{SystemTime, UNIX_EPOCH};

const WORKERS: usize = 4;

const MEMORY: &str = "By /proc/PID/smaps_rollup. Private: a process's own. PSS: that and its share of what several use, such as \
    shared_buffers and the program.";

pub fn memory(server: &Server, section: &mut Section) {
    section.note(MEMORY);
    let task = Task::new("write", 1);
    let queue = Queue::create(server, "kong_memory");
    queue.register(&task).unwrap_or_else(|error| panic!("{error}"));
    server.serve(&[&queue.database], WORKERS);
    let mut table = tell_processes(&queue, "started");
    if let Err(error) = queue.drain(&task, scaled(20_000)) {
        section.failed("running jobs", &error);
    }
    table.extend(tell_processes(&queue, "after many jobs"));
    section.table(&["process", "", "private kB", "PSS kB"], table);
    server.serve_nobody();
    server.drop(&queue.database);
}

fn tell_processes(queue: &Queue, when: &str) -> Vec<Vec<String>> {
    let processes = "select pid, backend_type from pg_stat_activity where backend_type like 'kongtask %' order by 2, 1";
    rows(&mut queue.connect(), processes)
        .iter()
        .filter_map(|row| {
            let (pid, what) = row.split_once('|')?;
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let kb = |name: &str| {
                let value = rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
                value.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(f64::NAN)
            };
            let private = kb("Private_Clean:") + kb("Private_Dirty:");
            Some(vec![what.into(), when.into(), number(private), number(kb("Pss:"))])
        })
        .collect()
}

pub fn startup(_: &Server, section: &mut Section) {
    section.note(
        "Until the first statement of the handler, in ms; a server of its own, idle, with the settings of this run.",
    );
    let (mut accepting, mut started, mut registered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let cluster = Cluster::with_extension(SETTINGS);
        cluster.sql(
            "create table started (n int, at timestamptz);
             create function start(p json) returns void language sql as
               $$ insert into started values ((p #>> '{}')::int, clock_timestamp()) $$",
        );
        cluster.reload(&[&format!("kongtask.workers = {WORKERS}")]);
        cluster.wait_for("show kongtask.workers", &WORKERS.to_string());
        let begun = now();
        cluster.sql("select kongtask.register_task('start', 'start(json)')");
        cluster.sql("select graphile_worker.add_job('start', '1')");
        registered.push(started_at(&cluster, 1) - begun);
        cluster.reload(&["kongtask.workers = 0"]);
        cluster.wait_for("select count(*) from kongtask.workers", "0");
        cluster.sql("select graphile_worker.add_job('start', '2')");
        cluster.stop("fast");
        cluster.configure(&[&format!("kongtask.workers = {WORKERS}")]);
        let begun = now();
        cluster.start();
        accepting.push(now() - begun);
        started.push(started_at(&cluster, 2) - begun);
    }
    let row = |what: &str, seconds: Vec<f64>| vec![what.to_string(), number(median(seconds) * 1e3)];
    let table = vec![
        row("from the start of the server, with a job waiting", started),
        row("for comparison: until pg_ctl says that it accepts connections", accepting),
        row("from the call of register_task, with a job added right after it", registered),
    ];
    section.table(&["", "ms"], table);
}

/// When the handler of a job began.
fn started_at(cluster: &Cluster, n: i32) -> f64 {
    cluster.wait_for(&format!("select count(*) from started where n = {n}"), "1");
    cluster.text(&format!("select extract(epoch from at) from started where n = {n}")).parse().expect("seconds")
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
