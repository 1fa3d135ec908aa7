//! Crashes: rows and effects agree whatever was killed.

use crate::{TASKS, WAYS};
use kongtask_tests::fixtures::with_crashing_handlers;
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use postgres::Client;

/// Returns what a statement returns once the server is there.
fn ask(cluster: &Cluster, query: &str) -> String {
    let mut answer = None;
    wait_until(SOON, || {
        let client = cluster.try_connect_as("postgres", "postgres");
        answer = client.ok().and_then(|mut db| {
            let row = db.query_one(query, &[]).ok()?;
            row.get::<_, Option<String>>(0)
        });
        answer.is_some()
    });
    answer.unwrap_or_else(|| panic!("{query}\n{}", cluster.log()))
}

/// Jobs of each task: numbers from `first` on, each once.
fn add(db: &mut Client, first: usize) -> Result<(), postgres::Error> {
    let tasks = TASKS.join(",");
    db.batch_execute(&format!(
        "select graphile_worker.add_job(('{{{tasks}}}'::text[])[1 + n % {}], to_json(n),
           queue_name := case when n % 5 = 0 then 'q' end, job_key := case when n % 11 = 0 then 'k' || n end)
         from generate_series({first}, {first} + 139) n",
        TASKS.len()
    ))
}

#[test]
fn after_crashes_each_effect_has_its_row_and_each_row_its_effect() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 4", "restart_after_crash = on"]);
    cluster.sql(WAYS);
    cluster.sql(
        "create or replace function does(p json) returns int language plpgsql as $$ begin
           insert into public.did values ((p #>> '{}')::int); perform pg_sleep(0.001);
           return 2 * (p #>> '{}')::int; end $$",
    );
    let mut first = 1;
    for round in 0..6 {
        let added = cluster.try_connect_as("postgres", "postgres").and_then(|mut db| add(&mut db, first));
        first += if added.is_ok() { 140 } else { 0 };
        if round == 3 {
            cluster.kill_postmaster();
            cluster.start();
            continue;
        }
        let worker = "select coalesce(max(pid), 0)::text from kongtask.workers where state = 'running'";
        let mut pid = 0;
        wait_until(SOON / 10, || {
            pid = ask(&cluster, worker).parse().expect("a number");
            pid != 0
        });
        if pid != 0 {
            cluster.kill_9(pid);
        }
    }
    // Those that were charged wait for their next attempt.
    let left = "select count(*)::text from graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where run_at > now()), now())";
    let done = wait_until(SOON * 3, || {
        ask(&cluster, left);
        ask(&cluster, "select count(*)::text from graphile_worker.jobs") == "0"
    });
    assert!(
        done,
        "{}\n{}",
        ask(&cluster, "select string_agg(jobs::text, E'\\n') from graphile_worker.jobs"),
        cluster.log()
    );
    let mut db = cluster.connect();
    let count = (first - 1).to_string();
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from did"), format!("{count} {count}"));
    assert_eq!(
        text(&mut db, "select count(*) || ' ' || count(distinct job_id) from kongtask.runs where state = 'succeeded'"),
        format!("{count} {count}")
    );
    assert_eq!(
        text(
            &mut db,
            "select count(*) from (select 2 * n as result from did except all
               select result::int from kongtask.runs where state = 'succeeded' and result is not null) t
             where result / 2 % 7 <> 6"
        ),
        "0"
    );
    let others = "select distinct state, split_part(error, ':', 1) from kongtask.runs where state <> 'succeeded'";
    let crashed = "retrying|worker process crashed while it ran this job";
    assert!(rows(&mut db, others).iter().all(|row| row == crashed), "{:?}", rows(&mut db, others));
}

#[test]
fn an_attempt_that_crashes_the_server_is_kept_once_it_is_charged() {
    let cluster = with_crashing_handlers(&["kongtask.workers = 1"]);
    cluster.sql("select kongtask.alter_task('crash', keep := 'failures')");
    let _ = cluster.connect().batch_execute("select graphile_worker.add_job('crash', job_key := 'k')");
    for crash in 1..=3 {
        let kept = "select coalesce(string_agg(format('%s %s %s', attempt, state, split_part(error, ':', 2)), ',' order by job_id, ended_at), '') from kongtask.runs";
        let state = |n| if n == 3 { "failed" } else { "retrying" };
        let expected: Vec<_> =
            (1..=crash).map(|n| format!("{n} {}  crash {n} of 3 (SQLSTATE 57P02)", state(n))).collect();
        let came = wait_until(SOON * 2, || ask(&cluster, kept) == expected.join(","));
        assert!(came, "{}\n{}", ask(&cluster, kept), cluster.log());
        let hurry = "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where attempts < max_attempts), now())";
        let _ = cluster.connect().batch_execute(hurry);
    }
    let mut db = cluster.connect();
    let ended = "select state, attempt from kongtask.wait_for((select id from graphile_worker.jobs))";
    assert_eq!(rows(&mut db, ended), ["failed|3"]);
}
