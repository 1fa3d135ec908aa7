//! A day on which clocks change, in a minute: what fires is what next_runs says, which tests/cron holds against a matcher
//! that looks at each minute.

use kongtask_tests::fast_clock::FastClock;
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use std::time::Duration;

/// Their clocks change at the same instant: by an hour, by two, and at midnight.
const ZONES: [&str; 3] = ["Europe/Paris", "Antarctica/Troll", "America/Nuuk"];

const CRONS: [&str; 10] = [
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "45 1 * * *",
    "15 2,3 * * *",
    "0-30/10 */2 * * *",
    "* 2 * * *",
    "0 0 * * *",
    "30 23 * * SAT,SUN",
];

/// Twelve hours before the change at 01:00 UTC, and twelve after it.
fn fires_as_next_runs_says(beginning: u64, change: &str) {
    let cluster = Cluster::stopped(&[
        "kongtask.workers = 1",
        "autovacuum = off",
        "bgwriter_delay = '10s'",
        "wal_writer_delay = '10s'",
        "checkpoint_timeout = '1d'",
    ]);
    let clock = FastClock::beginning_at(&cluster, 2880, beginning);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    for (number, zone) in ZONES.iter().enumerate() {
        for cron in CRONS {
            // Late ones are not left out, however busy the machine is.
            cluster.sql(&format!(
                "select kongtask.schedule('{number} {cron}', '{cron}', 'elsewhere', '{{\"name\": \"{number} {cron}\"}}', '{zone}', missed := 'all')"
            ));
        }
    }
    let mut db = cluster.connect();
    let since = text(&mut db, "select max(scheduled_at) from kongtask.schedules");
    let until = format!("timestamptz '{change}' + interval '12 hours'");
    assert_eq!(
        text(&mut db, &format!("select '{since}' < timestamptz '{change}' - interval '2 hours'")),
        "t",
        "{since}"
    );
    let is_over = format!("select bool_and(next_run_at > {until}) and now() > {until} from kongtask.schedules");
    assert!(wait_until(Duration::from_secs(120), || text(&mut db, &is_over) == "t"));
    // The scheduler may be late with the last of them.
    let mut wrong = Vec::new();
    wait_until(SOON, || {
        wrong = rows(
            &mut db,
            &format!(
                "with fired as (
                   select payload ->> 'name' as name, (payload -> '_cron' ->> 'ts')::timestamptz as ts from graphile_worker.jobs
                 ),
                 mine as (select name, ts, count(*) as times from fired where ts > '{since}' and ts <= {until} group by name, ts),
                 wanted as (
                   select name, run from kongtask.schedules, kongtask.next_runs(cron, timezone, '{since}', 2000) as run where run <= {until}
                 )
                 select coalesce(mine.name, wanted.name), coalesce(ts, run), coalesce(times, 0)
                 from mine full join wanted on mine.name = wanted.name and ts = run where times is distinct from 1 or run is null
                 order by 1, 2"
            ),
        );
        wrong.is_empty()
    });
    assert_eq!(wrong, Vec::<String>::new());
    let fires: usize = text(&mut db, "select count(*) from graphile_worker.jobs").parse().expect("a number");
    assert!(fires > 3 * (1320 + 264), "{fires}");
}

#[test]
fn a_day_on_which_clocks_go_forward_fires_as_next_runs_says() {
    // 2025-03-29 13:00 UTC.
    fires_as_next_runs_says(1_743_253_200, "2025-03-30 01:00Z");
}

#[test]
fn a_day_on_which_clocks_go_back_fires_as_next_runs_says() {
    // 2025-10-25 13:00 UTC.
    fires_as_next_runs_says(1_761_397_200, "2025-10-26 01:00Z");
}
