//! A server that has been up for long, in little time: UPTIME_JOBS jobs (200,000 unless told otherwise) through one server.

use kongtask_tests::{Cluster, rows, say, text, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const JOBS: &str = "select count(*) from graphile_worker.jobs";

/// Of every process of ours: what it is, and the memory that is its own, in kB.
fn memory(cluster: &Cluster) -> BTreeMap<String, u64> {
    let pids = "select backend_type || ' ' || pid, pid from pg_stat_activity where backend_type like 'kongtask%'";
    let own = |pid: &str| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let of = |line: &str| line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
        rollup.lines().filter(|line| line.starts_with("Private_")).filter_map(of).sum()
    };
    let rows = rows(&mut cluster.connect(), pids);
    rows.iter().filter_map(|row| row.split_once('|')).map(|(name, pid)| (name.to_string(), own(pid))).collect()
}

#[test]
fn nothing_grows_with_the_jobs_that_were_run() {
    let jobs: usize = std::env::var("UPTIME_JOBS").map_or(200_000, |jobs| jobs.parse().expect("a number"));
    let cluster = Cluster::with_extension(&[
        "kongtask.workers = 3",
        "autovacuum_naptime = '1s'",
        "autovacuum_vacuum_cost_delay = 0",
        "log_min_messages = warning",
    ]);
    cluster.sql(
        "create unlogged table done (n int);
         create function note(p json) returns void language plpgsql as $$ begin insert into done values ((p #>> '{}')::int); end $$;
         create function note_all(p json[]) returns void language plpgsql as $$ begin
           insert into done select (x #>> '{}')::int from unnest(p) x; end $$;
         create function fails_once(p json) returns void language plpgsql as $$ begin
           if (kongtask.current_job()).attempts = 1 then raise 'first' using errcode = 'XX123'; end if;
           insert into done values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('alone', 'note(json)'), kongtask.register_task('claimed', 'note(json)', in_place := false),
                kongtask.register_task('batch', 'note(json)', max_batch := 50), kongtask.register_task('set', 'note_all(json[])'),
                kongtask.register_task('again', 'fails_once(json)')",
    );
    let mut db = cluster.connect();
    let (rounds, mut early) = (20, BTreeMap::new());
    let mut sizes = Vec::new();
    for round in 0..rounds {
        db.batch_execute(&format!(
            "select count(graphile_worker.add_job(
               (array['alone', 'batch', 'set', 'claimed'])[1 + n % 4], to_json(n),
               job_key := case when n % 9 = 0 then 'k' || n end, queue_name := case when n % 50 = 0 then 'q' || n % 7 end))
             from generate_series(1, {0} - 100) n;
             select count(graphile_worker.add_job('again', to_json(n))) from generate_series({0} - 99, {0}) n",
            jobs / rounds
        ))
        .expect("add_job");
        let drained = wait_until(Duration::from_secs(120), || {
            text(&mut db, "select count(*) from graphile_worker.jobs where attempts = 0 or locked_at is not null")
                == "0"
        });
        assert!(drained, "{:?}", rows(&mut db, "select * from graphile_worker.jobs limit 5"));
        db.batch_execute(
            "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())",
        )
        .expect("reschedule");
        assert!(wait_until(Duration::from_secs(120), || text(&mut db, JOBS) == "0"));
        sizes.push(
            text(&mut db, "select pg_total_relation_size('graphile_worker.jobs')").parse::<u64>().expect("bytes"),
        );
        if round == rounds / 4 {
            early = memory(&cluster);
        }
    }
    assert_eq!(text(&mut db, "select count(*) from done"), (jobs / rounds * rounds).to_string());
    // It is told what workers do.
    cluster.wait_for(
        "select n_tup_del >= (select count(*) from done) from pg_stat_user_tables where relname = 'jobs'",
        "t",
    );
    let late = memory(&cluster);
    for (process, kb) in &late {
        let before = early.get(process).copied().expect("the same process as before");
        say(&format!("uptime: {process}: {before} kB after a quarter, {kb} kB after {jobs} jobs"));
        assert!(*kb < before + before / 4 + 1024, "{process} grows: {before} kB, {kb} kB");
    }
    // Autovacuum keeps up: the table is as large as a few rounds make it.
    let (early, late) = (sizes[..5].iter().max().copied().unwrap_or(0), sizes.last().copied().unwrap_or(0));
    say(&format!("uptime: jobs and its indexes: {early} bytes at most in the first quarter, {late} bytes at the end"));
    assert!(late < early * 3, "{sizes:?}");
    assert_eq!(cluster.log_lines(&["WARNING", "ERROR", "FATAL"]), Vec::<String>::new());
}
