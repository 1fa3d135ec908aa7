//! How late schedules fire on an idle server, and what ten thousand of them cost.

use crate::report::{Section, Target, number};
use crate::server::{SETTINGS, Server, scale};
use kongtask_tests::{Cluster, text, wait_until};
use postgres::Client;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOW: &str = "A schedule that is due each second, beside none and beside ten thousand that are not due, on an idle server. Lateness is the \
    time from the instant to the beginning of the transaction that fires it (created_at of its job), and to the first statement of its handler, \
    which a worker runs once that transaction has committed. A start is measured until a job that waits has run.";

const MANY: usize = 10_000;

pub fn measure(_: &Server, section: &mut Section) {
    section.note(HOW);
    let cluster = Cluster::with_extension(SETTINGS);
    cluster.reload(&["kongtask.workers = 2"]);
    let mut db = cluster.connect();
    db.batch_execute(
        "create table late (added float8, began float8);
         create function measure(p json, j graphile_worker.jobs) returns void language sql as $$
           insert into public.late
           select extract(epoch from j.created_at - instant) * 1e3, extract(epoch from clock_timestamp() - instant) * 1e3
           from (select (p -> '_cron' ->> 'ts')::timestamptz as instant) i $$;
         select kongtask.register_task('measure', 'measure(json, graphile_worker.jobs)');
         select kongtask.schedule('measured', '* * * * * *', 'measure')",
    )
    .expect("a schedule");
    let fires = ((40.0 * scale()) as usize).max(20);
    let mut table = Vec::new();
    for others in [0, MANY] {
        if others > 0 {
            db.batch_execute(&format!(
                "select count(kongtask.schedule('other ' || n, format('%s %s 1 1 *', n % 60, n % 24), 'measure', timezone := 'Europe/Paris'))
                 from generate_series(1, {others}) n"
            ))
            .expect("schedules");
            sleep(Duration::from_secs(2));
        }
        db.batch_execute("truncate late").expect("truncate");
        let cpu = scheduler_cpu(&cluster);
        let came = wait_until(Duration::from_secs(fires as u64 + 20), || {
            sleep(Duration::from_millis(500));
            text(&mut db, "select count(*) from late").parse::<usize>().is_ok_and(|count| count >= fires)
        });
        assert!(came, "the schedule does not fire");
        let cpu = (scheduler_cpu(&cluster) - cpu) / fires as f64;
        let beside = format!("beside {others} others");
        let mut row = vec![beside.clone()];
        let [added, began] = ["added", "began"].map(|column| quantiles(&mut db, column));
        row.extend(added.iter().chain(&began).map(|ms| number(*ms)));
        row.push(number(cpu));
        table.push(row);
        for (what, [median, p99]) in [("a fire", added), ("its handler", began)] {
            section.require(&format!("lateness of {what}, median, ms"), &beside, Ok(median), Target::AtMost(5.0));
            section.require(&format!("lateness of {what}, p99, ms"), &beside, Ok(p99), Target::AtMost(20.0));
        }
    }
    section.table(&["", "added p50 ms", "p99 ms", "began p50 ms", "p99 ms", "scheduler CPU a fire, ms"], table);

    let with_many = (first_job_ms(&cluster), scheduler_kb(&cluster));
    cluster.sql("select count(kongtask.unschedule(name)) from kongtask.schedules");
    let with_none = (first_job_ms(&cluster), scheduler_kb(&cluster));
    let row = |name: &str, (start, memory): (f64, f64)| vec![name.to_string(), number(start), number(memory)];
    let table = vec![row(&format!("{MANY} schedules"), with_many), row("none", with_none)];
    section.table(&["", "start until the first job has run, ms", "the scheduler's private memory, kB"], table);
    let longer = with_many.0 - with_none.0;
    section.require("a start takes longer by, ms", &format!("{MANY} schedules"), Ok(longer), Target::AtMost(1000.0));
}

/// How long it takes from a start of the server until a job that waits has run.
fn first_job_ms(cluster: &Cluster) -> f64 {
    cluster.reload(&["kongtask.workers = 0"]);
    cluster.wait_for("select count(*) from kongtask.workers", "0");
    cluster.sql("select graphile_worker.add_job('measure')");
    cluster.stop("fast");
    cluster.configure(&["kongtask.workers = 2"]);
    let begun = Instant::now();
    cluster.start();
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    begun.elapsed().as_secs_f64() * 1e3
}

/// The median and the 99th percentile, in ms.
fn quantiles(db: &mut Client, column: &str) -> [f64; 2] {
    [0.5, 0.99].map(|share| {
        let query = format!("select percentile_cont({share}) within group (order by {column}) from late");
        text(db, &query).parse().expect("a number")
    })
}

fn scheduler(cluster: &Cluster) -> String {
    cluster.text("select pid from pg_stat_activity where backend_type = 'kongtask scheduler'")
}

/// Milliseconds of CPU that the scheduler has used.
fn scheduler_cpu(cluster: &Cluster) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", scheduler(cluster))).unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

fn scheduler_kb(cluster: &Cluster) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", scheduler(cluster))).unwrap_or_default();
    let kb = |name: &str| {
        let value = rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
        value.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    kb("Private_Clean:") + kb("Private_Dirty:")
}
