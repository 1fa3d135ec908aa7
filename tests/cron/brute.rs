//! The matcher that looks at each minute. It knows expressions as they were made, rather than as they were written, and clocks as
//! AT TIME ZONE tells them.

use super::{db, random};
use postgres::Client;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::HashMap;

/// An item of a field.
#[derive(Clone, Debug)]
enum Item {
    All,
    Step(i64),
    Range(i64, i64, i64),
    Last,
    LastWeekday,
    Nearest(i64),
    /// A day of the week, and which of the month it is; 0 is the last.
    Nth(i64, i64),
}

#[derive(Clone, Debug)]
struct Expression {
    minute: Vec<Item>,
    hour: Vec<Item>,
    day: Vec<Item>,
    month: Vec<Item>,
    weekday: Vec<Item>,
    both: bool,
}

impl Item {
    fn text(&self) -> String {
        match self {
            Item::All => "*".into(),
            Item::Step(step) => format!("*/{step}"),
            Item::Range(first, last, 1) if first == last => first.to_string(),
            Item::Range(first, last, 1) => format!("{first}-{last}"),
            Item::Range(first, last, step) => format!("{first}-{last}/{step}"),
            Item::Last => "L".into(),
            Item::LastWeekday => "LW".into(),
            Item::Nearest(day) => format!("{day}W"),
            Item::Nth(day, 0) => format!("{day}L"),
            Item::Nth(day, nth) => format!("{day}#{nth}"),
        }
    }

    fn has(&self, value: i64, least: i64) -> bool {
        match self {
            Item::All => true,
            Item::Step(step) => (value - least) % step == 0,
            Item::Range(first, last, step) => (*first..=*last).contains(&value) && (value - first) % step == 0,
            _ => false,
        }
    }
}

fn text(items: &[Item]) -> String {
    items.iter().map(Item::text).collect::<Vec<_>>().join(",")
}

/// A day of the calendar.
#[derive(Clone, Copy)]
struct Date {
    month: i64,
    day: i64,
    length: i64,
    /// 0 is Sunday.
    weekday: i64,
}

impl Expression {
    fn text(&self) -> String {
        let Expression { minute, hour, day, month, weekday, both } = self;
        let [minute, hour, day, month, weekday] = [minute, hour, day, month, weekday].map(|items| text(items));
        format!("{minute} {hour} {day} {month} {}{weekday}", if *both { "+" } else { "" })
    }

    fn follows_clocks(&self) -> bool {
        let is_full =
            |items: &[Item], values: i64| (0..values).all(|value| items.iter().any(|item| item.has(value, 0)));
        text(&self.minute).contains('*')
            || text(&self.hour).contains('*')
            || is_full(&self.minute, 60)
            || is_full(&self.hour, 24)
    }

    fn matches_time(&self, minute_of_day: i64) -> bool {
        let [hour, minute] = [minute_of_day / 60, minute_of_day % 60];
        self.hour.iter().any(|item| item.has(hour, 0)) && self.minute.iter().any(|item| item.has(minute, 0))
    }

    fn matches_date(&self, date: Date) -> bool {
        let weekday_of = |day: i64| (date.weekday + day - date.day).rem_euclid(7);
        let works = |day: i64| (1..=5).contains(&weekday_of(day));
        let near = |to: i64| (1..=date.length).filter(|&day| works(day)).min_by_key(|day| (day - to).abs());
        let by_day = self.day.iter().any(|item| match item {
            Item::Last => date.day == date.length,
            Item::LastWeekday => (1..=date.length).rev().find(|&day| works(day)) == Some(date.day),
            Item::Nearest(to) => *to <= date.length && near(*to) == Some(date.day),
            item => item.has(date.day, 1),
        });
        let by_weekday = self.weekday.iter().any(|item| match item {
            Item::Nth(weekday, 0) => weekday % 7 == date.weekday && date.day + 7 > date.length,
            Item::Nth(weekday, nth) => weekday % 7 == date.weekday && (date.day - 1) / 7 == nth - 1,
            item => {
                item.has(date.weekday, 0) || (date.weekday == 0 && matches!(item, Item::Range(..)) && item.has(7, 0))
            }
        });
        let all_days = (1..=31).all(|day| self.day.iter().any(|item| item.has(day, 1)));
        let all_weekdays = (0..7).all(|day| {
            self.weekday
                .iter()
                .any(|item| item.has(day, 0) || (day == 0 && matches!(item, Item::Range(..)) && item.has(7, 0)))
        });
        let days = if all_days || all_weekdays || self.both { by_day && by_weekday } else { by_day || by_weekday };
        days && self.month.iter().any(|item| item.has(date.month, 1))
    }
}

/// Ten years of a zone, minute by minute; minutes are counted from 2016-01-01 00:00, by UTC and by the zone's clocks.
struct TenYears {
    zone: &'static str,
    /// What the clocks show at each minute of UTC.
    shown: Vec<i64>,
    /// When the clocks first show a minute, or, if they skip it, the next that they show.
    first: Vec<usize>,
    dates: Vec<Date>,
}

const FROM: &str = "2016-01-01 00:00Z";
const UNTIL: &str = "2025-12-31 23:45Z";

impl TenYears {
    fn of(db: &mut Client, zone: &'static str) -> TenYears {
        let offsets: Vec<i32> = db
            .query_one(
                &format!(
                    "select array_agg((extract(epoch from (t at time zone $1) - (t at time zone 'UTC')) / 60)::int order by t)
                     from generate_series(timestamptz '{FROM}', timestamptz '{UNTIL}', interval '15 minutes') as t"
                ),
                &[&zone],
            )
            .expect("offsets")
            .get(0);
        let shown: Vec<i64> =
            (0..offsets.len() * 15).map(|minute| minute as i64 + i64::from(offsets[minute / 15])).collect();
        let mut seen = HashMap::new();
        for (minute, shown) in shown.iter().enumerate() {
            seen.entry(*shown).or_insert(minute);
        }
        let mut next = shown.len();
        let mut first: Vec<usize> = (0..shown.len() as i64)
            .rev()
            .map(|minute| {
                next = seen.get(&minute).copied().unwrap_or(next);
                next
            })
            .collect();
        first.reverse();
        TenYears { zone, shown, first, dates: dates() }
    }

    fn date(&self, minute: i64) -> Option<Date> {
        usize::try_from(minute.div_euclid(24 * 60)).ok().and_then(|day| self.dates.get(day)).copied()
    }

    fn matches(&self, expression: &Expression, minute: i64) -> bool {
        expression.matches_time(minute.rem_euclid(24 * 60))
            && self.date(minute).is_some_and(|date| expression.matches_date(date))
    }

    /// Up to `count` minutes of UTC after `after` and before `until` at which it fires.
    fn runs(&self, expression: &Expression, after: usize, until: usize, count: usize) -> Vec<usize> {
        if expression.follows_clocks() {
            return (after + 1..until).filter(|&at| self.matches(expression, self.shown[at])).take(count).collect();
        }
        let mut runs: Vec<usize> = Vec::new();
        let start = (self.shown[after] - 2 * 24 * 60).max(0) as usize;
        for minute in (start..self.first.len()).filter(|&minute| self.matches(expression, minute as i64)) {
            let run = self.first[minute];
            if run >= until || runs.len() == count {
                break;
            }
            if run > after && runs.last() != Some(&run) {
                runs.push(run);
            }
        }
        runs
    }

    /// The same, as kongtask.next_runs has it.
    fn runs_of_ours(&self, db: &mut Client, cron: &str, after: usize, until: usize, count: usize) -> Vec<usize> {
        let after_minutes = after as i32;
        let rows = db.query(
            &format!(
                "select extract(epoch from run - timestamptz '{FROM}')::float8
                 from kongtask.next_runs($1, $2, timestamptz '{FROM}' + $3::int * interval '1 minute', $4) as run"
            ),
            &[&cron, &self.zone, &after_minutes, &(count as i32)],
        );
        let seconds: Vec<f64> =
            rows.unwrap_or_else(|error| panic!("{cron}: {error}")).iter().map(|row| row.get(0)).collect();
        assert!(seconds.iter().all(|second| second % 60.0 == 0.0), "{cron} fires between minutes");
        seconds.iter().map(|second| (second / 60.0) as usize).filter(|&run| run < until).collect()
    }

    /// The minutes at which the offset changes.
    fn changes(&self) -> Vec<usize> {
        (1..self.shown.len()).filter(|&minute| self.shown[minute] != self.shown[minute - 1] + 1).collect()
    }
}

/// The days from 2016-01-01, a Friday, to the end of 2026.
fn dates() -> Vec<Date> {
    let mut dates = Vec::new();
    for year in 2016..2027 {
        for month in 1..=12 {
            let length = match month {
                2 => 28 + i64::from(year % 4 == 0),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            for day in 1..=length {
                dates.push(Date { month, day, length, weekday: (dates.len() as i64 + 5) % 7 });
            }
        }
    }
    dates
}

fn field(least: i64, most: i64) -> BoxedStrategy<Vec<Item>> {
    let value = least..=most;
    let item = prop_oneof![
        1 => Just(Item::All),
        2 => (1..=most).prop_map(Item::Step),
        5 => value.clone().prop_map(|value| Item::Range(value, value, 1)),
        2 => (value.clone(), value, 1..=5i64).prop_map(|(a, b, step)| Item::Range(a.min(b), a.max(b), step)),
    ];
    prop_oneof![2 => Just(vec![Item::All]), 5 => vec(item, 1..4)].boxed()
}

fn expressions() -> impl Strategy<Value = Expression> {
    let days = vec(prop_oneof![Just(Item::Last), Just(Item::LastWeekday), (1..=31i64).prop_map(Item::Nearest)], 1..3);
    let weekdays = vec((0..=7i64, 0..=5i64).prop_map(|(day, nth)| Item::Nth(day, nth)), 1..3);
    // The hours in which clocks change, more often than others.
    let hour = prop_oneof![field(0, 23), vec((0..=4i64).prop_map(|hour| Item::Range(hour, hour, 1)), 1..3)];
    let day = prop_oneof![4 => field(1, 31), 1 => days];
    let weekday = prop_oneof![4 => field(0, 7), 1 => weekdays];
    (field(0, 59), hour, day, field(1, 12), weekday, any::<bool>())
        .prop_map(|(minute, hour, day, month, weekday, both)| Expression { minute, hour, day, month, weekday, both })
}

#[test]
fn next_runs_are_those_of_a_matcher_that_looks_at_each_minute_of_ten_years() {
    let mut db = db();
    for zone in [
        "Europe/Paris",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "America/Sao_Paulo",
        "America/Nuuk",
    ] {
        let years = TenYears::of(&mut db, zone);
        let changes = years.changes();
        assert!(!changes.is_empty(), "{zone} has no changes");
        let end = years.shown.len() - 3 * 24 * 60;
        let near = proptest::sample::select(changes).prop_flat_map(|change| change.saturating_sub(2000)..change + 100);
        let after = prop_oneof![near, 0..end];
        let run = std::cell::RefCell::new(&mut db);
        let outcome = random(150).run(&(expressions(), after), |(expression, after)| {
            let cron = expression.text();
            let after = after.min(end - 1);
            // An expression with an impossible day is refused: no day of 28 years matches it, so none of these.
            let is_possible = run.borrow_mut().query("select kongtask.describe_cron($1)", &[&cron]).is_ok();
            let expected = years.runs(&expression, after, end, 12);
            if !is_possible {
                prop_assert!(expected.is_empty(), "{cron} is refused, and fires at {expected:?}");
                return Ok(());
            }
            let got = years.runs_of_ours(&mut run.borrow_mut(), &cron, after, end, 12);
            if got != expected {
                return Err(TestCaseError::fail(format!(
                    "{cron} in {zone} after minute {after}: {got:?}, expected {expected:?}"
                )));
            }
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
    }
}

/// A single value, or all of them.
fn one(value: i64) -> Vec<Item> {
    vec![Item::Range(value, value, 1)]
}

#[test]
fn ten_crontabs_fire_as_the_matcher_says_on_the_days_that_clocks_change() {
    let all = || vec![Item::All];
    let every_day = |minute: Vec<Item>, hour: Vec<Item>| Expression {
        minute,
        hour,
        day: all(),
        month: all(),
        weekday: all(),
        both: false,
    };
    let expressions = [
        every_day(all(), all()),
        every_day(vec![Item::Step(5)], all()),
        every_day(one(0), all()),
        every_day(one(30), one(2)),
        every_day(one(45), one(1)),
        every_day(one(15), vec![Item::Range(2, 3, 1)]),
        every_day(vec![Item::Range(0, 30, 10)], vec![Item::Step(2)]),
        every_day(all(), one(2)),
        every_day(one(0), one(0)),
        Expression { weekday: one(7), ..every_day(one(30), one(2)) },
    ];
    let mut db = db();
    for zone in ["Europe/Paris", "America/New_York", "Australia/Lord_Howe"] {
        let years = TenYears::of(&mut db, zone);
        let changes = years.changes();
        for &change in &changes[changes.len() - 2..] {
            let (after, until) = (change - 12 * 60, change + 12 * 60);
            for expression in &expressions {
                let cron = expression.text();
                let expected = years.runs(expression, after, until, 2000);
                let got = years.runs_of_ours(&mut db, &cron, after, until, 2000);
                assert_eq!(got, expected, "{cron} in {zone} around minute {change}");
                assert!(cron != "* * * * *" || got.len() == 24 * 60 - 1);
            }
        }
    }
}
