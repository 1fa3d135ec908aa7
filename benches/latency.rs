//! How long it takes from a commit to the first statement of the handler, on a server with nothing else to do.

use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const JOBS: usize = 500;

fn main() {
    println!("latency, {JOBS} jobs one after another, fsync on, kongtask.workers = 4");
    println!(
        "{:<22} {:<34} {:>10} {:>10} {:>10}",
        "synchronous_commit", "from … to the handler's start", "median ms", "p99 ms", "max ms"
    );
    for synchronous_commit in ["on", "off"] {
        let cluster = Cluster::with_extension(&["fsync = on", &format!("synchronous_commit = {synchronous_commit}")]);
        cluster.sql(
            "create table started (n int, at timestamptz);
             create function start(p json) returns void language sql as
               $$ insert into started values ((p #>> '{}')::int, clock_timestamp()) $$;
             select kongtask.register_task('start', 'start(json)');
             select graphile_worker.add_job('start', '-1')",
        );
        cluster.wait_for("select count(*) from started", "1");
        cluster.sql("truncate started");
        let mut db = cluster.connect();
        let (mut called, mut committing) = (Vec::new(), Vec::new());
        for n in 0..JOBS {
            // Long enough for every worker to be asleep again.
            sleep(Duration::from_millis(3));
            called.push(now());
            db.batch_execute(&format!("begin; select graphile_worker.add_job('start', '{n}')")).expect("add_job");
            committing.push(now());
            db.batch_execute("commit").expect("commit");
        }
        assert!(wait_until(SOON, || text(&mut db, "select count(*) from started") == JOBS.to_string()));
        let started: Vec<f64> = rows(&mut db, "select extract(epoch from at) from started order by n")
            .iter()
            .map(|seconds| seconds.parse().expect("seconds"))
            .collect();
        for (what, from) in [("the call of add_job", &called), ("the client's COMMIT", &committing)] {
            let mut ms: Vec<f64> = started.iter().zip(from).map(|(to, from)| (to - from) * 1e3).collect();
            ms.sort_by(f64::total_cmp);
            println!(
                "{synchronous_commit:<22} {what:<34} {:>10.3} {:>10.3} {:>10.3}",
                ms[JOBS / 2],
                ms[JOBS * 99 / 100],
                ms[JOBS - 1]
            );
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
