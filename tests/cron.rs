//! Cron expressions: what kongtask.next_runs and describe_cron say, held against a matcher that looks at each minute, and
//! graphile-worker's own. The offsets of zones come from AT TIME ZONE, which the library does not use.

#[allow(dead_code)]
#[path = "../src/schedules/calendar.rs"]
mod calendar;
#[allow(dead_code)]
#[path = "../src/schedules/cron.rs"]
mod cron;
#[path = "../src/schedules/crontab.rs"]
mod crontab;
#[path = "../src/schedules/json5.rs"]
mod json5;
#[allow(dead_code)]
#[path = "../src/schedules/parse.rs"]
mod parse;

use kongtask_tests::{Cluster, text};
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn db() -> Client {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::with_extension(&["kongtask.workers = 0", "timezone = 'UTC'"])).connect()
}

/// The next runs, as the clocks of the zone show them with their offset.
fn runs(db: &mut Client, cron: &str, zone: &str, after: &str, count: i32) -> Vec<String> {
    db.batch_execute(&format!("set timezone = '{zone}'")).expect("a zone");
    let rows = db
        .query("select run::text from kongtask.next_runs($1, $2, $3::text::timestamptz, $4) as run", &[&cron, &zone, &after, &count])
        .unwrap_or_else(|error| panic!("{cron} in {zone}: {error}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// SQLSTATE, message, detail and hint.
fn failure(db: &mut Client, statement: &str) -> (String, String, String, String) {
    let error = db.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().expect("an error of the server's");
    let part = |part: Option<&str>| part.unwrap_or_default().to_string();
    (error.code().code().into(), error.message().into(), part(error.detail()), part(error.hint()))
}

#[test]
fn an_expression_fires_at_the_times_that_it_names() {
    let mut db = db();
    for (cron, expected) in [
        ("30 9 * * *", ["2025-01-01 09:30:00+00", "2025-01-02 09:30:00+00"]),
        ("15 30 9 * * *", ["2025-01-01 09:30:15+00", "2025-01-02 09:30:15+00"]),
        ("*/20 * * * * *", ["2025-01-01 00:00:20+00", "2025-01-01 00:00:40+00"]),
        ("0 9-17/4 * * *", ["2025-01-01 09:00:00+00", "2025-01-01 13:00:00+00"]),
        ("0 0 * FEB,apr *", ["2025-02-01 00:00:00+00", "2025-02-02 00:00:00+00"]),
        ("0 0 L * *", ["2025-01-31 00:00:00+00", "2025-02-28 00:00:00+00"]),
        ("0 0 $ * *", ["2025-01-31 00:00:00+00", "2025-02-28 00:00:00+00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00+00", "2032-02-29 00:00:00+00"]),
        ("0 0 29 2 +MON", ["2044-02-29 00:00:00+00", "2072-02-29 00:00:00+00"]),
        // 1 February 2025 is a Saturday, 1 June a Sunday.
        ("0 0 1W 2,6 *", ["2025-02-03 00:00:00+00", "2025-06-02 00:00:00+00"]),
        ("0 0 15W 2,3 *", ["2025-02-14 00:00:00+00", "2025-03-14 00:00:00+00"]),
        ("0 0 LW 5,8 *", ["2025-05-30 00:00:00+00", "2025-08-29 00:00:00+00"]),
        ("0 0 L,LW 5 *", ["2025-05-30 00:00:00+00", "2025-05-31 00:00:00+00"]),
        ("0 0 * * TUE#2", ["2025-01-14 00:00:00+00", "2025-02-11 00:00:00+00"]),
        ("0 0 * * 5L", ["2025-01-31 00:00:00+00", "2025-02-28 00:00:00+00"]),
        ("0 0 * * FRI#L", ["2025-01-31 00:00:00+00", "2025-02-28 00:00:00+00"]),
        ("0 0 * * SAT-SUN", ["2025-01-04 00:00:00+00", "2025-01-05 00:00:00+00"]),
        ("0 0 * * 7", ["2025-01-05 00:00:00+00", "2025-01-12 00:00:00+00"]),
        // Day of month or day of week; both with +; and one that does not restrict leaves it to the other.
        ("0 0 3 * MON", ["2025-01-03 00:00:00+00", "2025-01-06 00:00:00+00"]),
        ("0 0 3 * +MON", ["2025-02-03 00:00:00+00", "2025-03-03 00:00:00+00"]),
        ("0 0 1-31 * MON", ["2025-01-06 00:00:00+00", "2025-01-13 00:00:00+00"]),
        ("@hourly", ["2025-01-01 01:00:00+00", "2025-01-01 02:00:00+00"]),
        ("@Weekly", ["2025-01-05 00:00:00+00", "2025-01-12 00:00:00+00"]),
        ("@yearly", ["2026-01-01 00:00:00+00", "2027-01-01 00:00:00+00"]),
        (" \t30   9 * * *\n", ["2025-01-01 09:30:00+00", "2025-01-02 09:30:00+00"]),
    ] {
        assert_eq!(runs(&mut db, cron, "UTC", "2025-01-01", 2), expected, "{cron}");
    }
}

#[test]
fn the_start_is_excluded_to_the_microsecond() {
    let mut db = db();
    assert_eq!(runs(&mut db, "* * * * *", "UTC", "2025-01-01 00:00", 1), ["2025-01-01 00:01:00+00"]);
    assert_eq!(runs(&mut db, "* * * * *", "UTC", "2024-12-31 23:59:59.999999", 1), ["2025-01-01 00:00:00+00"]);
    assert_eq!(runs(&mut db, "30 seconds", "UTC", "2025-01-01 00:00:30", 1), ["2025-01-01 00:01:00+00"]);
    assert_eq!(runs(&mut db, "30 seconds", "UTC", "2025-01-01 00:00:29.999999", 1), ["2025-01-01 00:00:30+00"]);
}

#[test]
fn time_has_an_end_and_a_beginning() {
    let mut db = db();
    assert!(runs(&mut db, "* * * * *", "Europe/Paris", "infinity", 2).is_empty());
    assert_eq!(runs(&mut db, "@yearly", "UTC", "294275-01-01", 9), ["294276-01-01 00:00:00+00"]);
    assert_eq!(runs(&mut db, "@daily", "UTC", "-infinity", 1), ["4714-11-24 00:00:00+00 BC"]);
    assert!(runs(&mut db, "@daily", "UTC", "2025-01-01", 0).is_empty());
    assert_eq!(text(&mut db, "select count(*)::text from kongtask.next_runs(null)"), "0");
}

/// What clocks skip and what they show twice.
#[test]
fn clocks_that_change_fire_a_fixed_time_once_and_leave_wildcards_to_the_clock() {
    let mut db = db();
    for (cron, zone, after, expected) in [
        // The two dates of the documentation.
        ("30 2 * * *", "Europe/Paris", "2025-03-29 12:00+01", &["2025-03-30 03:00:00+02", "2025-03-31 02:30:00+02"][..]),
        ("30 2 * * *", "Europe/Paris", "2024-10-26 12:00+02", &["2024-10-27 02:30:00+02", "2024-10-28 02:30:00+01"]),
        // From between the two.
        ("30 2 * * *", "Europe/Paris", "2024-10-27 02:30+02", &["2024-10-28 02:30:00+01"]),
        ("30 2 * * *", "Europe/Paris", "2024-10-27 02:10+01", &["2024-10-28 02:30:00+01"]),
        // Lists are fixed times as well, and several in one gap fire once.
        ("15,30 2,14 * * *", "Europe/Paris", "2025-03-30 01:00+01", &["2025-03-30 03:00:00+02", "2025-03-30 14:15:00+02"]),
        ("30 2,14 * * *", "Europe/Paris", "2024-10-27 00:00+02", &["2024-10-27 02:30:00+02", "2024-10-27 14:30:00+01"]),
        // Wildcards.
        ("*/30 * * * *", "Europe/Paris", "2025-03-30 01:15+01", &["2025-03-30 01:30:00+01", "2025-03-30 03:00:00+02"]),
        ("30 * * * *", "Europe/Paris", "2024-10-27 02:15+02", &["2024-10-27 02:30:00+02", "2024-10-27 02:30:00+01", "2024-10-27 03:30:00+01"]),
        ("*/30 2 * * *", "Europe/Paris", "2025-03-29 02:15+01", &["2025-03-29 02:30:00+01", "2025-03-31 02:00:00+02"]),
        // An interval does not look at clocks.
        ("45 minutes", "Europe/Paris", "2025-03-30 00:30+01", &["2025-03-30 01:00:00+01", "2025-03-30 01:45:00+01", "2025-03-30 03:30:00+02"]),
        ("30 2 * * *", "America/New_York", "2025-03-08 12:00-05", &["2025-03-09 03:00:00-04", "2025-03-10 02:30:00-04"]),
        ("30 1 * * *", "America/New_York", "2025-11-01 12:00-04", &["2025-11-02 01:30:00-04", "2025-11-03 01:30:00-05"]),
        // Half an hour: 02:00 becomes 02:30 in spring, and 01:30 in autumn.
        ("15 2 * * *", "Australia/Lord_Howe", "2025-10-04 12:00+1030", &["2025-10-05 02:30:00+11", "2025-10-06 02:15:00+11"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2025-04-05 12:00+11", &["2025-04-06 01:45:00+11", "2025-04-07 01:45:00+10:30"]),
        ("*/30 * * * *", "Australia/Lord_Howe", "2025-04-06 01:15+11", &["2025-04-06 01:30:00+11", "2025-04-06 01:30:00+10:30", "2025-04-06 02:00:00+10:30"]),
        // 45 minutes from whole hours: 02:45 becomes 03:45.
        ("0 3 * * *", "Pacific/Chatham", "2025-09-27 12:00+1245", &["2025-09-28 03:45:00+13:45", "2025-09-29 03:00:00+13:45"]),
        ("0 3 * * *", "Pacific/Chatham", "2025-04-05 12:00+1345", &["2025-04-06 03:00:00+13:45", "2025-04-07 03:00:00+12:45"]),
        // Midnight itself is skipped; and since 2019 no clock changes there.
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-03 12:00-03", &["2018-11-04 01:00:00-02", "2018-11-05 00:00:00-02"]),
        ("0 0 * * *", "America/Sao_Paulo", "2019-11-02 12:00-03", &["2019-11-03 00:00:00-03", "2019-11-04 00:00:00-03"]),
        // Summer time but for Ramadan: 03:00 becomes 02:00 before it, and 02:00 becomes 03:00 after it.
        ("30 2 * * *", "Africa/Casablanca", "2025-02-22 12:00+01", &["2025-02-23 02:30:00+01", "2025-02-24 02:30:00+00"]),
        ("30 2 * * *", "Africa/Casablanca", "2025-04-05 12:00+00", &["2025-04-06 03:00:00+01", "2025-04-07 02:30:00+01"]),
        // The gap ends with the day: Saturday's run is on Sunday.
        ("30 23 * * SAT", "America/Nuuk", "2024-03-25 00:00-02", &["2024-03-31 00:00:00-01", "2024-04-06 23:30:00-01"]),
        // A day that was skipped whole.
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-01 00:00-10", &["2011-12-31 00:00:00+14", "2012-12-30 12:00:00+14"]),
        // The last changes of the table that Postgres has, and those after it.
        ("30 2 * 10 *", "Europe/Paris", "2437-10-24 12:00+02", &["2437-10-25 02:30:00+02", "2437-10-26 02:30:00+01"]),
        ("30 2 * 3 *", "Europe/Paris", "2441-03-30 12:00+01", &["2441-03-31 03:00:00+02", "2442-03-01 02:30:00+01"]),
    ] {
        assert_eq!(runs(&mut db, cron, zone, after, expected.len() as i32), expected, "{cron} in {zone} after {after}");
    }
}
