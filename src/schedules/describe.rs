//! Cron expressions in English.

use super::calendar::DAY;
use super::cron::{ALL_DAYS, ALL_WEEKDAYS, Cron, Days, Fields, Weekdays, at_or_after, has};

const ALL_SIXTY: u64 = (1 << 60) - 1;
const ALL_HOURS: u64 = (1 << 24) - 1;
const ALL_MONTHS: u64 = 0b1_1111_1111_1110;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 13] = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const PLACES: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// More times of day than this are not listed one by one.
const MOST_TIMES: u32 = 6;

impl Cron {
    /// Says in English when it fires.
    pub fn describe(&self) -> String {
        match self {
            Cron::Interval(seconds) => every(*seconds),
            Cron::Fields(fields) => [fields.times(), fields.day(), fields.month()].concat(),
        }
    }
}

/// An interval, in the largest unit that divides it.
fn every(seconds: i64) -> String {
    let units = [("week", 7 * DAY), ("day", DAY), ("hour", 3600), ("minute", 60), ("second", 1)];
    let (unit, length) = units.into_iter().find(|(_, length)| seconds % length == 0).unwrap_or(("second", 1));
    match seconds / length {
        1 => format!("Every {unit}"),
        number => format!("Every {number} {unit}s"),
    }
}

impl Fields {
    fn times(&self) -> String {
        if self.lists_times() {
            return format!("At {}", and(self.times_of_day()));
        }
        let (start, from) = match (self.seconds, self.minutes) {
            (1, minutes) => (unit(minutes, "minute"), None),
            (seconds, ALL_SIXTY) => (unit(seconds, "second"), None),
            (seconds, minutes) => (unit(seconds, "second"), Some(minutes)),
        };
        let minutes = from.map_or(String::new(), |minutes| format!(" of {}", numbers(minutes, "minute")));
        let goes_on = start.starts_with("Every") && from.is_none();
        start + &minutes + &self.hours(goes_on)
    }

    fn lists_times(&self) -> bool {
        [self.hours, self.minutes, self.seconds].map(u64::count_ones).iter().product::<u32>() <= MOST_TIMES
    }

    /// Each time of day.
    fn times_of_day(&self) -> Vec<String> {
        let mut times = Vec::new();
        for (hour, minute, second) in values(self.hours)
            .flat_map(|hour| values(self.minutes).map(move |minute| (hour, minute)))
            .flat_map(|(hour, minute)| values(self.seconds).map(move |second| (hour, minute, second)))
        {
            times.push(match second {
                0 => format!("{hour:02}:{minute:02}"),
                second => format!("{hour:02}:{minute:02}:{second:02}"),
            });
        }
        times
    }

    /// `goes_on`: what is repeated goes on through the hour.
    fn hours(&self, goes_on: bool) -> String {
        match (self.hours, as_range(self.hours)) {
            (ALL_HOURS, _) if goes_on => String::new(),
            (ALL_HOURS, _) => " of every hour".into(),
            (_, Some((first, last))) if goes_on => format!(" from {first:02}:00 through {last:02}:59"),
            (hours, _) => format!(" of {}", numbers(hours, "hour")),
        }
    }

    fn day(&self) -> String {
        let (days, weekdays) = (self.days.describe(), self.weekdays.describe());
        match (days, weekdays) {
            (None, None) if self.lists_times() => ", every day".into(),
            (None, None) => String::new(),
            (Some(days), None) => format!(", on {days} of the month"),
            (None, Some(weekdays)) => format!(", on {weekdays}"),
            (Some(days), Some(weekdays)) if self.both_days => format!(", on {days} of the month if that is {weekdays}"),
            (Some(days), Some(weekdays)) => format!(", on {days} of the month and on {weekdays}"),
        }
    }

    fn month(&self) -> String {
        match self.months {
            ALL_MONTHS => String::new(),
            months => format!(", in {}", names(months, &MONTHS)),
        }
    }
}

impl Days {
    fn describe(&self) -> Option<String> {
        if self.set == ALL_DAYS {
            return None;
        }
        let mut parts = Vec::new();
        if self.set != 0 {
            parts.push(numbers(self.set, "day"));
        }
        parts.extend(values(self.nearest).map(|day| format!("the weekday nearest to day {day}")));
        if self.last_weekday {
            parts.push("the last weekday (Monday to Friday)".into());
        }
        if self.last {
            parts.push("the last day".into());
        }
        Some(and(parts))
    }
}

impl Weekdays {
    fn describe(&self) -> Option<String> {
        if self.every == ALL_WEEKDAYS {
            return None;
        }
        let mut parts = Vec::new();
        if self.every != 0 {
            // A range goes from Monday to Sunday.
            let from_monday = (self.every & !1) | (self.every & 1) << 7;
            let range = as_range(from_monday).filter(|(first, last)| last - first > 1);
            parts.push(range.map_or_else(
                || names(self.every, &WEEKDAYS),
                |(first, last)| format!("{} through {}", WEEKDAYS[first as usize], WEEKDAYS[last as usize % 7]),
            ));
        }
        for (place, &set) in PLACES.iter().zip(&self.nth).chain([(&"last", &self.last)]) {
            parts.extend(values(set).map(|day| format!("the {place} {} of the month", WEEKDAYS[day as usize])));
        }
        Some(and(parts))
    }
}

/// What comes with each value of a unit: "Every 5 minutes", or "At minutes 5 and 35".
fn unit(set: u64, unit: &str) -> String {
    match step(set) {
        Some(1) => format!("Every {unit}"),
        Some(step) => format!("Every {step} {unit}s"),
        None => format!("At {}", numbers(set, unit)),
    }
}

/// The distance between the values of a set of minutes or seconds, if it is the same all the time.
fn step(set: u64) -> Option<u32> {
    let step = 60 / set.count_ones();
    let all = (0..60).step_by(step as usize).fold(0, |set, value| set | 1 << value);
    (set == all && 60 % step == 0 && step < 60).then_some(step)
}

/// "minute 5", "minutes 0 through 9", "minutes 5 and 35".
fn numbers(set: u64, unit: &str) -> String {
    match as_range(set) {
        Some((first, last)) if first == last => format!("{unit} {first}"),
        Some((first, last)) if last - first > 1 => format!("{unit}s {first} through {last}"),
        _ => format!("{unit}s {}", and(values(set).map(|value| value.to_string()).collect())),
    }
}

/// "June through August", "January and July".
fn names(set: u64, names: &[&str]) -> String {
    let name = |value: u32| names[value as usize].to_string();
    match as_range(set) {
        Some((first, last)) if last - first > 1 => format!("{} through {}", name(first), name(last)),
        _ => and(values(set).map(name).collect()),
    }
}

/// The first and the last value, if all between them are there.
fn as_range(set: u64) -> Option<(u32, u32)> {
    let first = at_or_after(set, 0)?;
    let count = set.count_ones();
    (set >> first == (1 << count) - 1).then_some((first, first + count - 1))
}

fn values(set: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |&value| has(set, value))
}

/// "a, b and c".
fn and(mut parts: Vec<String>) -> String {
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) }
}
