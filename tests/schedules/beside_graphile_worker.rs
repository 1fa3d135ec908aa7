//! graphile-worker's own process beside the server, on one crontab: each instant is fired by one of them, once. It fires
//! by the minute only, so the clock of both runs faster.

use crate::PREPARE;
use kongtask_tests::docs::{blocks, page};
use kongtask_tests::fast_clock::FastClock;
use kongtask_tests::fault::go_on;
use kongtask_tests::reference::{self, Worker};
use kongtask_tests::{Cluster, SOON, describe, rows, say, text, wait_until};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Notes each job of a crontab in the transaction that adds it, and the process that does so.
const WATCH: &str = "create table fired (name text, ts timestamptz, backfilled boolean, by text, at timestamptz default clock_timestamp());
    create function watch() returns trigger language plpgsql as $$ begin
      insert into public.fired (name, ts, backfilled, by)
      values (new.payload ->> 'name', (new.payload -> '_cron' ->> 'ts')::timestamptz, (new.payload -> '_cron' ->> 'backfilled')::boolean,
        (select backend_type from pg_stat_activity where pid = pg_backend_pid()));
      return null; end $$;
    create trigger watch after insert on graphile_worker.jobs for each row execute function watch();";

/// A server whose clock is so much faster, with the extension.
fn with_fast_clock(rate: u32) -> (Cluster, FastClock) {
    let cluster = Cluster::stopped(&["kongtask.workers = 2"]);
    let clock = FastClock::of(&cluster, rate);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    cluster.sql(PREPARE);
    cluster.sql(WATCH);
    (cluster, clock)
}

/// graphile-worker's process with a crontab, by the same clock. No job is its own.
fn their_process(cluster: &Cluster, clock: &FastClock, crontab: &str) -> Worker {
    let tasks = [("other", "")];
    Worker::start_with(&clock.environment(), cluster, ("postgres", "postgres"), "0.12.2", &tasks, crontab, &[])
}

/// What is wrong with the fires of a line of a crontab: instants that are missing, or are there twice, up to the last.
fn wrong(cluster: &Cluster, name: &str, cron: &str, since: &str) -> Vec<String> {
    rows(
        &mut cluster.connect(),
        &format!(
            "with mine as (select ts, count(*) as times, string_agg(by, ', ' order by at) as by from fired where name = '{name}' group by ts),
               wanted as (
                 select run from kongtask.next_runs('{cron}', 'UTC', '{since}', 100000) as run where run <= (select max(ts) from mine)
               )
             select '{name}', coalesce(ts, run), coalesce(times, 0), by from wanted full join mine on run = ts
             where times is distinct from 1 or run is null order by 2"
        ),
    )
}

#[test]
fn beside_graphile_worker_each_minute_fires_once() {
    let (cluster, clock) = with_fast_clock(20);
    cluster.sql("insert into graphile_worker.known_crontabs values ('here', now() - interval '1 day', now() - interval '5 minutes')");
    let since = cluster.text("select last_execution from graphile_worker.known_crontabs");
    let crontab = "* * * * * note ?id=here&fill=4m {\"name\": \"here\"}\n* * * * * note ?id=new {\"name\": \"new\"}\n";
    let imported = cluster.text(&format!(
        "select string_agg(concat_ws(' ', name, cron, task, payload::text, missed, missed_within), E'\\n')
         from kongtask.import_crontab($${crontab}$$)"
    ));
    assert_eq!(
        imported,
        "here * * * * * note {\"name\":\"here\"} all 00:04:00\nnew * * * * * note {\"name\":\"new\"} skip"
    );
    let worker = their_process(&cluster, &clock, crontab);
    cluster.wait_for("select count(*) between 3 and 5 from done where name = 'here' and backfilled", "t");
    worker.wait_for("looking for jobs");
    let more = "select min(count) >= 5 from (select count(distinct ts) from done where not backfilled group by name) as c having count(*) = 2";
    cluster.wait_for(more, "t");
    for name in ["here", "new"] {
        let since = if name == "here" {
            format!("select '{since}'::timestamptz + interval '1 min'")
        } else {
            "select min(scheduled_at) from kongtask.schedules".into()
        };
        let since = cluster.text(&since);
        assert_eq!(wrong(&cluster, name, "* * * * *", &since), Vec::<String>::new(), "{}", worker.log());
    }
}

/// A minute takes three seconds.
const RATE: u32 = 20;

/// Lines of one crontab. Nobody runs the jobs of the last.
const LINES: [(&str, &str, &str); 4] = [
    ("each", "* * * * *", "note"),
    ("even", "*/2 * * * *", "note"),
    ("some", "1,2,5,9,13,16,20,24,27,31,35,38,42,46,49,53,57 * * * *", "note"),
    ("there", "* * * * *", "elsewhere"),
];

fn crontab() -> String {
    let lines = LINES.map(|(name, cron, task)| format!("{cron} {task} ?id={name}&fill=8h {{\"name\": \"{name}\"}}\n"));
    lines.concat()
}

/// Numbers at random, that SEED repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn nap(&mut self, most_ms: u64) {
        sleep(Duration::from_millis(self.below(most_ms)));
    }
}

/// What is done to either process.
const FAULTS: [&str; 11] = [
    "kill the scheduler",
    "kill the scheduler",
    "terminate the scheduler",
    "freeze the scheduler",
    "serve no database",
    "kill the postmaster",
    "restart the server",
    "kill their process",
    "kill their process",
    "terminate their process",
    "freeze their process",
];

fn signal(pid: i32, signal: i32) {
    // SAFETY: a process of this test's.
    unsafe { libc::kill(pid, signal) };
}

/// Strikes one of them; whether there was anything to strike.
fn strike(fault: &str, cluster: &Cluster, clock: &FastClock, theirs: &Worker, random: &mut Random) -> bool {
    /// Up to a minute of the clock.
    const PAUSE_MS: u64 = 3000;
    let scheduler = || -> Option<i32> {
        let mut db = cluster.try_connect_as("postgres", "postgres").ok()?;
        let pid = "select pid from pg_stat_activity where backend_type = 'kongtask scheduler'";
        Some(db.query(pid, &[]).ok()?.first()?.get(0))
    };
    match fault {
        "kill their process" => signal(theirs.pid(), libc::SIGKILL),
        "terminate their process" => signal(theirs.pid(), libc::SIGTERM),
        "freeze their process" => {
            signal(theirs.pid(), libc::SIGSTOP);
            random.nap(PAUSE_MS);
            go_on(theirs.pid());
        }
        "kill the postmaster" => {
            cluster.kill_postmaster();
            random.nap(1000);
            cluster.start_with(&clock.environment());
        }
        "restart the server" => {
            cluster.stop("fast");
            random.nap(1000);
            cluster.start_with(&clock.environment());
        }
        "serve no database" => {
            cluster.reload(&["kongtask.databases = ''"]);
            random.nap(2 * PAUSE_MS);
            cluster.reload(&["kongtask.databases = '*'"]);
        }
        _ => {
            let Some(pid) = scheduler() else { return false };
            match fault {
                "kill the scheduler" => signal(pid, libc::SIGKILL),
                "terminate the scheduler" => cluster.sql(&format!("select pg_terminate_backend({pid})")),
                _ => {
                    signal(pid, libc::SIGSTOP);
                    random.nap(2 * PAUSE_MS);
                    go_on(pid);
                }
            }
            // Until the server is up again.
            wait_until(SOON, || scheduler().is_some_and(|now| now != pid || fault == "freeze the scheduler"));
        }
    }
    true
}

/// SCHEDULE_SECONDS says for how long.
#[test]
fn beside_graphile_worker_each_minute_fires_once_whatever_is_killed() {
    let duration = std::env::var("SCHEDULE_SECONDS").map_or(60, |seconds| seconds.parse().expect("a number"));
    let duration = Duration::from_secs(duration);
    let seed =
        std::env::var("SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().expect("a number"));
    let mut random = Random(seed);
    let (cluster, clock) = with_fast_clock(RATE);
    cluster.sql(&format!("select kongtask.import_crontab($${}$$)", crontab()));
    let since = cluster.text("select max(scheduled_at) from kongtask.schedules");
    let mut theirs = their_process(&cluster, &clock, &crontab());
    theirs.wait_for("looking for jobs");
    let (mut struck, mut restarts) = (BTreeMap::<&str, usize>::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        random.nap(3000);
        // It ends by itself where the server goes away.
        if !theirs.lives() {
            theirs = their_process(&cluster, &clock, &crontab());
            restarts += 1;
        }
        let fault = FAULTS[random.below(FAULTS.len() as u64) as usize];
        if strike(fault, &cluster, &clock, &theirs, &mut random) {
            *struck.entry(fault).or_default() += 1;
        }
    }
    if !theirs.lives() {
        theirs = their_process(&cluster, &clock, &crontab());
    }
    // In peace, all lines get to where the clock is.
    let ended = cluster.text("select now()");
    cluster.wait_for(
        &format!("select count(*) from graphile_worker.known_crontabs where last_execution > '{ended}'"),
        "4",
    );
    drop(theirs);
    cluster.sql("select kongtask.unschedule(name) from kongtask.schedules");
    cluster.wait_for("select count(*) from graphile_worker.jobs where task_identifier = 'note'", "0");

    let mut db = cluster.connect();
    let minutes = text(&mut db, &format!("select extract(epoch from max(ts) - '{since}')::int / 60 from fired"));
    let by = rows(
        &mut db,
        "select count(*) || ' by a ' || by || case when backfilled then ', backfilled' else '' end from fired group by by, backfilled order by by, backfilled",
    );
    say(&format!(
        "schedules: {} s, {minutes} minutes of the clock, {} fires: {by:?}; {struck:?}, their process started again {restarts} times; SEED={seed}",
        duration.as_secs(),
        text(&mut db, "select count(*) from fired"),
    ));
    let wrong: Vec<String> = LINES.iter().flat_map(|(name, cron, _)| wrong(&cluster, name, cron, &since)).collect();
    assert_eq!(wrong, Vec::<String>::new(), "SEED={seed}");
    // Each of them had a part in it.
    assert_eq!(text(&mut db, "select count(distinct by) from fired"), "2", "SEED={seed}");
    // And each job that runs here has run once.
    let run = "select count(*) from (select name, ts from fired where name <> 'there' except all select name, ts from done) as lost";
    let twice = "select count(*) - count(distinct (name, ts)) from done";
    assert_eq!((text(&mut db, run), text(&mut db, twice)), ("0".into(), "0".into()), "SEED={seed}");
}

/// As the documentation says, step by step, with graphile-worker's process beside.
#[test]
fn a_crontab_moves_here_and_back_and_each_minute_fires_once() {
    let cluster = Cluster::stopped(&["kongtask.workers = 2"]);
    let clock = FastClock::of(&cluster, 2 * RATE);
    cluster.start_with(&clock.environment());
    let mut db = cluster.connect();
    reference::install(&mut db, "0.12.2", 9, "graphile_worker");
    db.batch_execute("create table fired (ts timestamptz)").expect("a table");
    let start = |crontab: &str| {
        let note = "await helpers.query('insert into fired values ($1)', [payload._cron.ts]);";
        let tasks = [("call_api", note), ("nightly_report", "")];
        let postgres = ("postgres", "postgres");
        Worker::start_with(&clock.environment(), &cluster, postgres, "0.12.2", &tasks, crontab, &[])
    };
    let stop = |mut worker: Worker| {
        signal(worker.pid(), libc::SIGTERM);
        worker.end();
    };
    let mut fires = 0;
    let mut fires_more = |db: &mut postgres::Client, worker: &Worker| {
        fires += 2;
        let count = || text(db, &format!("select count(*) >= {fires} from fired")) == "t";
        assert!(wait_until(SOON, count), "{fires}\n{}\n{}", worker.log(), cluster.log());
    };
    let page = page("docs/how-to/move-a-crontab.md").blocks();
    let sql: Vec<_> = page.iter().filter(|block| block.info == "sql").collect();
    let run =
        |n: usize| cluster.run_block(sql[n], "postgres", "postgres").unwrap_or_else(|error| panic!("{n}: {error}"));
    let crontab = &page.iter().find(|block| block.info == "text").expect("the crontab").body;

    let theirs = start(crontab);
    fires_more(&mut db, &theirs);
    db.batch_execute(&blocks("sql adopt")[0]).unwrap_or_else(|error| panic!("{}", describe(&error)));
    fires_more(&mut db, &theirs);
    // The task, the crontab, what it has become, and what both have done.
    (0..4).for_each(run);
    fires_more(&mut db, &theirs);
    stop(theirs);
    let without_crontab = start("");
    // Other times, for one.
    run(4);
    fires_more(&mut db, &without_crontab);
    // And back: the schedule that has a time zone is none of theirs.
    let printed = text(&mut db, &sql[5].body);
    assert_eq!(printed, "* * * * * call_api ?id=poll_orders&fill=3600s {\"path\":\"/orders\"}");
    stop(without_crontab);
    let theirs = start(&printed);
    fires_more(&mut db, &theirs);
    run(6);
    assert_eq!(text(&mut db, "select count(*) from kongtask.schedules"), "0");
    fires_more(&mut db, &theirs);
    stop(theirs);
    db.batch_execute(&blocks("sql before")[0]).unwrap_or_else(|error| panic!("{}", describe(&error)));
    reference::install(&mut db, "0.12.2", 9, "graphile_worker");
    db.batch_execute(&blocks("sql after")[0]).unwrap_or_else(|error| panic!("{}", describe(&error)));
    let theirs = start(&printed);
    fires_more(&mut db, &theirs);
    drop(theirs);
    let account = "select count(*) - count(distinct ts), extract(epoch from max(ts) - min(ts))::int / 60 + 1 - count(*) from fired";
    assert_eq!(rows(&mut db, account), ["0|0"], "{:?}", rows(&mut db, "select * from fired order by 1"));
    assert_eq!(sql.len(), 7);
}
