//! What was promised to the sessions that added jobs, and what became of it.

use crate::load::{EACH, Load};
use kongtask_tests::{rows, say, text, wait_until};
use postgres::Client;
use std::time::{Duration, Instant};

/// How long what is left may take once the load has ended.
const DRAINED: Duration = Duration::from_secs(120);

/// Lets all that is left run, on a server whose primary is to stay, and holds it against what was promised. Returns a line on it.
pub fn settle(db: &mut Client, load: &Load) -> String {
    db.batch_execute("select kongtask.unschedule('tick')").expect("unschedule");
    let begun = Instant::now();
    let mut is_told = false;
    let is_empty = wait_until(DRAINED, || {
        db.batch_execute(
            "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where run_at > now()), run_at := now())",
        )
        .expect("reschedule");
        let left = text(db, "select count(*) from graphile_worker.jobs");
        if begun.elapsed() > DRAINED / 4 && left != "0" && !is_told {
            // Beside much else, the search of the whole table takes long, and then comes seldom.
            say(&format!(
                "{left} jobs still wait after {:?}: a change of tasks has the whole table searched",
                begun.elapsed()
            ));
            db.batch_execute("select kongtask.alter_task('tick', max_attempts := 24)").expect("alter_task");
            is_told = true;
        }
        left == "0"
    });
    assert!(
        is_empty,
        "jobs are left\n{}",
        [
            "select task_identifier, state, why, count(*), min(run_at) from kongtask.job_states group by 1, 2, 3",
            "select * from kongtask.doctor()",
            "select * from kongtask.workers",
            "select pid, backend_type, state, wait_event, query, xact_start, now() from pg_stat_activity",
            "select relation::regclass, mode, granted, pid from pg_locks where relation is not null",
            "select count(*), max(ran_at) from done",
        ]
        .map(|query| rows(db, query).join("\n"))
        .join("\n\n")
    );
    assert_eq!(text(db, "select count(*) from graphile_worker.job_queues where locked_at is not null"), "0");

    let acknowledged = load.acknowledged();
    db.execute("create temporary table acknowledged as select unnest($1::bigint[]) as first", &[&acknowledged])
        .expect("a table");
    let mut count = |query: &str| -> i64 { text(db, query).parse().expect("a number") };
    let lost = count(
        "select count(*) from acknowledged, generate_series(first, first + 19) as promised (n)
         where not exists (select from done where done.n = promised.n)",
    );
    let twice = count("select count(*) - count(distinct n) from done");
    assert_eq!((lost, twice), (0, 0), "lost, twice");
    let parts = "select count(*) from (select from done group by (n - 1) / 20 having count(*) <> 20) parts";
    assert_eq!(count(parts), 0, "a transaction came over in part");
    let servers = "select count(*) from (select from done group by timeline having count(distinct server) > 1) more";
    assert_eq!(count(servers), 0, "two servers ran jobs in one timeline");
    // Each instant of the schedule was fired once, from the first to the last.
    assert_eq!(count("select count(*) - count(distinct ts) from ticks"), 0, "an instant was fired twice");
    assert_eq!(
        count("select extract(epoch from max(ts) - min(ts))::bigint + 1 - count(*) from ticks"),
        0,
        "an instant is missing"
    );

    let all = count("select count(*) from done");
    let promised = i64::try_from(acknowledged.len() * EACH).expect("a number");
    let ticks = count("select count(*) from ticks");
    format!(
        "{promised} jobs acknowledged, {lost} lost, {twice} had effects twice; of transactions that were not acknowledged, {} came \
         over; {ticks} instants of a schedule, each fired once",
        (all - promised) / 20
    )
}
