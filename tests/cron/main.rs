//! Cron expressions: what kongtask.next_runs and describe_cron say, held against a matcher that looks at each minute, and
//! graphile-worker's own. The offsets of zones come from AT TIME ZONE, which the library does not use.

mod brute;
mod graphile;

// The reader of crontabs is tested as it is, without a server: it depends on none.
#[allow(dead_code)]
#[path = "../../src/schedules/calendar.rs"]
mod calendar;
#[allow(dead_code)]
#[path = "../../src/schedules/cron.rs"]
mod cron;
#[path = "../../src/schedules/crontab.rs"]
mod crontab;
#[path = "../../src/schedules/json5.rs"]
mod json5;
#[allow(dead_code)]
#[path = "../../src/schedules/parse.rs"]
mod parse;
#[path = "../../src/schedules/pg_cron.rs"]
mod pg_cron;

use kongtask_tests::{Cluster, text};
use postgres::Client;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Runs so many random cases, from SEED in the environment or always the same.
fn random(cases: u32) -> TestRunner {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_250_101);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn db() -> Client {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::with_extension(&["kongtask.workers = 0", "timezone = 'UTC'"])).connect()
}

/// The next runs, as the clocks of the zone show them with their offset.
fn runs(db: &mut Client, cron: &str, zone: &str, after: &str, count: i32) -> Vec<String> {
    db.batch_execute(&format!("set timezone = '{zone}'")).expect("a zone");
    let rows = db
        .query(
            "select run::text from kongtask.next_runs($1, $2, $3::text::timestamptz, $4) as run",
            &[&cron, &zone, &after, &count],
        )
        .unwrap_or_else(|error| panic!("{cron} in {zone}: {error}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// SQLSTATE, message, detail and hint.
fn failure(db: &mut Client, statement: &str) -> (String, String, String, String) {
    parts(&db.batch_execute(statement).expect_err(statement))
}

fn parts(error: &postgres::Error) -> (String, String, String, String) {
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
        (
            "30 2 * * *",
            "Europe/Paris",
            "2025-03-29 12:00+01",
            &["2025-03-30 03:00:00+02", "2025-03-31 02:30:00+02"][..],
        ),
        ("30 2 * * *", "Europe/Paris", "2024-10-26 12:00+02", &["2024-10-27 02:30:00+02", "2024-10-28 02:30:00+01"]),
        // From between the two.
        ("30 2 * * *", "Europe/Paris", "2024-10-27 02:30+02", &["2024-10-28 02:30:00+01"]),
        ("30 2 * * *", "Europe/Paris", "2024-10-27 02:10+01", &["2024-10-28 02:30:00+01"]),
        // Lists are fixed times as well, and several in one gap fire once.
        (
            "15,30 2,14 * * *",
            "Europe/Paris",
            "2025-03-30 01:00+01",
            &["2025-03-30 03:00:00+02", "2025-03-30 14:15:00+02"],
        ),
        ("30 2,14 * * *", "Europe/Paris", "2024-10-27 00:00+02", &["2024-10-27 02:30:00+02", "2024-10-27 14:30:00+01"]),
        // Wildcards.
        ("*/30 * * * *", "Europe/Paris", "2025-03-30 01:15+01", &["2025-03-30 01:30:00+01", "2025-03-30 03:00:00+02"]),
        (
            "30 * * * *",
            "Europe/Paris",
            "2024-10-27 02:15+02",
            &["2024-10-27 02:30:00+02", "2024-10-27 02:30:00+01", "2024-10-27 03:30:00+01"],
        ),
        ("*/30 2 * * *", "Europe/Paris", "2025-03-29 02:15+01", &["2025-03-29 02:30:00+01", "2025-03-31 02:00:00+02"]),
        // An interval does not look at clocks.
        (
            "45 minutes",
            "Europe/Paris",
            "2025-03-30 00:30+01",
            &["2025-03-30 01:00:00+01", "2025-03-30 01:45:00+01", "2025-03-30 03:30:00+02"],
        ),
        (
            "30 2 * * *",
            "America/New_York",
            "2025-03-08 12:00-05",
            &["2025-03-09 03:00:00-04", "2025-03-10 02:30:00-04"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2025-11-01 12:00-04",
            &["2025-11-02 01:30:00-04", "2025-11-03 01:30:00-05"],
        ),
        // Half an hour: 02:00 becomes 02:30 in spring, and 01:30 in autumn.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2025-10-04 12:00+1030",
            &["2025-10-05 02:30:00+11", "2025-10-06 02:15:00+11"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2025-04-05 12:00+11",
            &["2025-04-06 01:45:00+11", "2025-04-07 01:45:00+10:30"],
        ),
        (
            "*/30 * * * *",
            "Australia/Lord_Howe",
            "2025-04-06 01:15+11",
            &["2025-04-06 01:30:00+11", "2025-04-06 01:30:00+10:30", "2025-04-06 02:00:00+10:30"],
        ),
        // 45 minutes from whole hours: 02:45 becomes 03:45.
        (
            "0 3 * * *",
            "Pacific/Chatham",
            "2025-09-27 12:00+1245",
            &["2025-09-28 03:45:00+13:45", "2025-09-29 03:00:00+13:45"],
        ),
        (
            "0 3 * * *",
            "Pacific/Chatham",
            "2025-04-05 12:00+1345",
            &["2025-04-06 03:00:00+13:45", "2025-04-07 03:00:00+12:45"],
        ),
        // Midnight itself is skipped; and since 2019 no clock changes there.
        (
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03 12:00-03",
            &["2018-11-04 01:00:00-02", "2018-11-05 00:00:00-02"],
        ),
        (
            "0 0 * * *",
            "America/Sao_Paulo",
            "2019-11-02 12:00-03",
            &["2019-11-03 00:00:00-03", "2019-11-04 00:00:00-03"],
        ),
        // Summer time but for Ramadan: 03:00 becomes 02:00 before it, and 02:00 becomes 03:00 after it.
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2025-02-22 12:00+01",
            &["2025-02-23 02:30:00+01", "2025-02-24 02:30:00+00"],
        ),
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2025-04-05 12:00+00",
            &["2025-04-06 03:00:00+01", "2025-04-07 02:30:00+01"],
        ),
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

#[test]
fn an_interval_has_fixed_slots() {
    let mut db = db();
    for (cron, interval) in [
        ("30 seconds", "30 seconds"),
        ("1 second", "1 second"),
        ("7 minutes", "7 minutes"),
        ("5 Hours", "5 hours"),
        ("1 day", "1 day"),
        ("2 weeks", "14 days"),
        ("90000 SECONDS", "90000 seconds"),
    ] {
        let wrong = db
            .query(
                "select run::text, slot::text
                 from (
                   select run, row_number() over (order by run) as n
                   from kongtask.next_runs($1, 'Pacific/Chatham', timestamptz '2025-04-05 03:00:01.5Z', 100) as run
                 ) as runs
                 inner join generate_series(1, 100) as n using (n)
                 cross join lateral (
                   select date_bin($2::text::interval, timestamptz '2025-04-05 03:00:01.5Z', timestamptz '2000-01-01 00:00Z')
                     + n * $2::text::interval as slot
                 ) as slots
                 where run <> slot",
                &[&cron, &interval],
            )
            .expect("an interval");
        assert!(wrong.is_empty(), "{cron}: {wrong:?}");
        assert_eq!(runs(&mut db, cron, "UTC", "2025-01-01", 100).len(), 100, "{cron}");
    }
}

#[test]
fn an_expression_that_is_wrong_says_where_and_what_would_be_right() {
    let mut db = db();
    for (cron, message, position, hint) in [
        ("", "the cron expression is empty", 1, "Write five fields"),
        ("  ", "the cron expression is empty", 1, "Write five fields"),
        ("* * * *", "the cron expression has 4 fields", 8, "Write five fields"),
        ("* *", "the cron expression has 2 fields", 4, "Write five fields"),
        ("0 0 * * * * 2025", "the cron expression has 7 fields", 13, "Write five fields"),
        ("61 * * * *", "minute 61 is out of range", 1, "A minute is a number from 0 to 59."),
        ("0  24 * * *", "hour 24 is out of range", 4, "An hour is a number from 0 to 23."),
        ("0 0 0 * *", "day of month 0 is out of range", 5, "A day of month is"),
        ("0 0 1,32 * *", "day of month 32 is out of range", 7, "A day of month is"),
        ("0 0 * 13 *", "month 13 is out of range", 7, "A month is"),
        ("0 0 * * 8", "day of week 8 is out of range", 9, "A day of week is"),
        ("99999999999999999999 * * * *", "minute 99999999999999999999 is out of range", 1, "A minute is"),
        ("0 0 * * MONDAY", "\"MONDAY\" is not understood in the day of week field", 9, "A day of week is"),
        ("1MON * * * *", "\"MON\" is not understood in the minute field", 2, "A minute is"),
        ("0 0 * * MON+", "\"+\" is not understood in the day of week field", 12, "A day of week is"),
        ("0 0 15W9 * *", "\"W9\" is not understood in the day of month field", 7, "A day of month is"),
        ("0 0 1-5W * *", "\"W\" is not understood in the day of month field", 8, "A day of month is"),
        ("0 0 ? * *", "\"?\" is not understood in the day of month field", 5, "A day of month is"),
        ("0 0 * * MON#6", "a month does not have a weekday 6 times", 13, "After # comes"),
        ("0 0 * * MON#", "a value of the day of week field is missing", 13, "A day of week is"),
        ("0 0 * * +", "a value of the day of week field is missing", 10, "A day of week is"),
        (", * * * *", "a value of the minute field is missing", 1, "A minute is"),
        ("1,,2 * * * *", "a value of the minute field is missing", 3, "A minute is"),
        ("5/15 * * * *", "a step follows * or a range only", 2, "Write 5-59/15, or */n."),
        ("*/0 * * * *", "a step must not be 0", 3, "Write a number from 1 on."),
        ("* 22-6 * * *", "the range \"22-6\" ends before it begins", 3, "Write 22-23,0-6."),
        ("0 0 * * FRI-MON", "the range \"FRI-MON\" ends before it begins", 9, "Write 5-6,0-1."),
        ("0 0 31 2 *", "there is no such day in any year", 5, "A month has a day 31"),
        ("0 0 31 4,6,9,11 *", "there is no such day in any year", 5, "A month has a day 31"),
        ("0 0 30 2 +MON", "there is no such day in any year", 5, "A month has a day 31"),
        ("@reboot", "\"@reboot\" is not a schedule", 1, "The names are @yearly"),
        ("30 fortnights", "\"fortnights\" is not a unit of time", 4, "An interval is"),
        ("0 seconds", "\"0\" is not the number of an interval", 1, "An interval is"),
        ("-5 minutes", "\"-5\" is not the number of an interval", 1, "An interval is"),
        ("367 days", "\"367\" is not the number of an interval", 1, "An interval is"),
        ("9223372036854775807 weeks", "\"9223372036854775807\" is not the number of an interval", 1, "An interval is"),
        ("* * * * \u{661f}", "a cron expression has ASCII characters only", 9, "Write five fields"),
    ] {
        let statement = format!("select kongtask.describe_cron('{cron}')");
        let (code, said, detail, hinted) = failure(&mut db, &statement);
        assert_eq!((code.as_str(), detail), ("22023", format!("At character {position}.")), "{cron}: {said}");
        assert_eq!(said, message, "{cron}");
        assert!(hinted.starts_with(hint), "{cron}: {hinted}");
        let (code, ..) = failure(&mut db, &format!("select kongtask.next_runs('{cron}')"));
        assert_eq!(code, "22023", "{cron}");
    }
    let (code, message, ..) = failure(&mut db, "select kongtask.next_runs('@daily', count := -1)");
    assert_eq!((code.as_str(), message.as_str()), ("22023", "count must not be negative"));
}

/// How long a statement takes, the best of three times as others use the machine too; and its error.
fn quickest(db: &mut Client, statement: &str) -> (Duration, Option<(String, String, String, String)>) {
    let runs = (0..3).map(|_| {
        let begun = Instant::now();
        let outcome = db.batch_execute(statement);
        (begun.elapsed(), outcome.err().map(|error| parts(&error)))
    });
    runs.min_by_key(|(took, _)| *took).expect("three")
}

/// What is hostile, or merely far away, takes milliseconds, and is told where it is wrong and what would be right.
#[test]
fn the_worst_input_takes_milliseconds() {
    let mut db = db();
    for (cron, is_valid) in [
        ("'0 0 31 2 *'", false),
        ("'0 0 31 2 +1-7'", false),
        ("'0 0 30-31 2 +MON#1'", false),
        ("repeat('* ', 500)", false),
        ("repeat('1,', 50000) || '1 * * * *'", false),
        ("repeat('\u{661f}', 50000)", false),
        ("repeat('-', 900)", false),
        ("repeat('9', 50000) || ' seconds'", false),
        ("'* * * * ' || repeat('MON#1,', 150) || 'x'", false),
        ("'*/' || repeat('9', 900) || ' * * * *'", true),
        ("'0 0 29 2 +MON'", true),
        ("(select string_agg(n::text, ',') from generate_series(0, 59) as n) || ' * * * *'", true),
        ("'0-58 0-58 0-22 * * *'", true),
    ] {
        for after in ["2025-01-01", "200000-01-01", "294200-01-01"] {
            let runs = format!("select count(*) from kongtask.next_runs({cron}, 'Europe/Paris', '{after}', 50)");
            let description = format!("select kongtask.describe_cron({cron})");
            for statement in [runs, description] {
                let (took, error) = quickest(&mut db, &statement);
                assert!(took < Duration::from_millis(20), "{statement} took {took:?}");
                assert_eq!(error.is_none(), is_valid, "{statement}: {error:?}");
                if let Some((code, _, detail, hint)) = error {
                    assert!(
                        code == "22023" && detail.starts_with("At character ") && !hint.is_empty(),
                        "{detail} {hint}"
                    );
                }
            }
        }
    }
    // A long list can be cancelled.
    let begun = Instant::now();
    let (code, ..) = failure(
        &mut db,
        "set statement_timeout = 200; select count(*) from kongtask.next_runs('1 second', count := 2000000000)",
    );
    assert_eq!(code, "57014");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_zone_is_one_of_pg_timezone_names() {
    let mut db = db();
    let unlike = "select coalesce(string_agg(zone.name, ' '), 'none') from pg_timezone_names as zone
        cross join lateral kongtask.next_runs('0 12 * * *', zone.name, '2025-07-01', 1) as run
        where (run at time zone zone.name)::time <> '12:00'
          -- AT TIME ZONE takes these for abbreviations, with no daylight saving.
          and zone.name not in ('CET', 'EET', 'MET', 'WET')";
    assert_eq!(text(&mut db, unlike), "none");
    assert_eq!(runs(&mut db, "0 12 * * *", "europe/paris", "2025-07-01", 1), ["2025-07-01 12:00:00+02"]);
    for zone in [
        "CEST",
        "PDT",
        "+02",
        "CET-1CEST",
        "<+03>-3",
        "XYZ5",
        "Europe",
        "zone.tab",
        "../zoneinfo/UTC",
        "",
        "right/Europe/Paris",
        "Mars/Phobos",
    ] {
        let (code, message, _, hint) = failure(&mut db, &format!("select kongtask.next_runs('@daily', '{zone}')"));
        assert_eq!((code.as_str(), message), ("22023", format!("time zone \"{zone}\" is not known")));
        assert!(hint.starts_with("Give a full name of pg_timezone_names"), "{hint}");
    }
}

#[test]
fn an_expression_is_described_in_english() {
    let mut db = db();
    for (cron, english) in [
        ("* * * * *", "Every minute"),
        ("*/5 * * * *", "Every 5 minutes"),
        ("*/7 * * * *", "At minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("0 * * * *", "At minute 0 of every hour"),
        ("15,45 * * * *", "At minutes 15 and 45 of every hour"),
        ("30 2 * * *", "At 02:30, every day"),
        ("30 2,14 * * *", "At 02:30 and 14:30, every day"),
        ("15 30 2 * * *", "At 02:30:15, every day"),
        ("*/10 * * * * *", "Every 10 seconds"),
        ("* 0-4 * * * *", "Every second of minutes 0 through 4 of every hour"),
        ("*/5 9-17 * * 1-5", "Every 5 minutes from 09:00 through 17:59, on Monday through Friday"),
        ("*/20 */6 * * *", "Every 20 minutes of hours 0, 6, 12 and 18"),
        ("0 0 1,15 * *", "At 00:00, on days 1 and 15 of the month"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month and on Friday"),
        ("0 0 13 * +5", "At 00:00, on day 13 of the month if that is Friday"),
        ("0 0 L * *", "At 00:00, on the last day of the month"),
        (
            "0 0 LW 1-3,12 *",
            "At 00:00, on the last weekday (Monday to Friday) of the month, in January, February, March and December",
        ),
        ("0 0 15W 6-8 *", "At 00:00, on the weekday nearest to day 15 of the month, in June through August"),
        ("0 0 * * 1#1,5L", "At 00:00, on the first Monday of the month and the last Friday of the month"),
        ("0 0 * * SAT,SUN", "At 00:00, on Sunday and Saturday"),
        ("0 0 * * FRI-SUN", "At 00:00, on Friday through Sunday"),
        ("@daily", "At 00:00, every day"),
        ("30 seconds", "Every 30 seconds"),
        ("60 minutes", "Every hour"),
        ("90 minutes", "Every 90 minutes"),
    ] {
        assert_eq!(text(&mut db, &format!("select kongtask.describe_cron('{cron}')")), english, "{cron}");
    }
}

/// What the documentation says of AT TIME ZONE, beside which it puts ours.
#[test]
fn at_time_zone_differs_where_clocks_change() {
    let mut db = db();
    db.batch_execute("set timezone = 'Europe/Paris'").expect("a zone");
    for (shown, instant) in
        [("2025-03-30 02:30", "2025-03-30 03:30:00+02"), ("2024-10-27 02:30", "2024-10-27 02:30:00+01")]
    {
        let query = format!("select (timestamp '{shown}' at time zone 'Europe/Paris')::text");
        assert_eq!(text(&mut db, &query), instant);
    }
}

#[test]
fn a_schedule_of_pg_cron_becomes_the_expression_that_means_the_same_here() {
    for (theirs, ours) in [
        ("* * * * *", "* * * * *"),
        ("30 seconds", "30 seconds"),
        ("@daily", "@daily"),
        ("0 0 1 * MON", "0 0 1 * MON"),
        // Both must match where one of them begins with a star and restricts.
        ("0 0 */2 * MON", "0 0 */2 * +MON"),
        ("0 0 1 * */2", "0 0 1 * +*/2"),
        // A field with all values restricts there unless it begins with a star: any day matches.
        ("0 0 1-31 * MON", "0 0 * * *"),
        ("0 0 13 * 0-6", "0 0 * * *"),
    ] {
        assert_eq!(cron::Cron::from_pg_cron(theirs).as_deref(), Ok(ours), "{theirs}");
    }
    assert!(cron::Cron::from_pg_cron("@reboot").is_err());
}
