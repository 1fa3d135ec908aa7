//! Cron expressions and intervals: `30 2 * * MON-FRI`, `@daily`, `30 seconds`.
//!
//! An expression says what the clocks of a zone show when it fires. Where clocks are set forward, a time that they skip
//! fires at the first instant after the gap; where they are set back, a time that they show twice fires the first time.
//! An expression with a wildcard among its times of day follows the clocks instead: it does not fire for what they
//! skip, and fires again for what they show again. An interval counts seconds from 2000-01-01 00:00 UTC, whatever
//! clocks show.

use super::calendar::{Calendar, DAY, LENGTHS, Month, weekday};

/// A parsed cron expression, or an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cron {
    /// So many seconds.
    Interval(i64),
    Fields(Fields),
}

/// Why a text is not a cron expression, or not a crontab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    pub message: String,
    /// The line of a crontab, counted from 1.
    pub line: usize,
    /// The character of the line that is wrong, counted from 1.
    pub position: usize,
    pub hint: String,
}

/// Six fields, each a set of bits: bit `n` stands for the value `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    pub seconds: u64,
    pub minutes: u64,
    pub hours: u64,
    pub days: Days,
    pub months: u64,
    pub weekdays: Weekdays,
    /// A day must match both day fields, rather than one of them.
    pub both_days: bool,
    /// A wildcard is among the seconds, minutes or hours.
    pub follows_clocks: bool,
}

/// Days of the month.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Days {
    pub set: u64,
    /// `15W`: the weekday (Monday to Friday) that is nearest to the day, in the same month.
    pub nearest: u64,
    /// `L` or `$`.
    pub last: bool,
    /// `LW`: the last Monday to Friday.
    pub last_weekday: bool,
}

/// Days of the week; 0 is Sunday.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Weekdays {
    pub every: u64,
    /// `MON#2`: the second of the month is at index 1.
    pub nth: [u64; 5],
    /// `5L`: the last of the month.
    pub last: u64,
}

pub const ALL_DAYS: u64 = 0xffff_fffe;
pub const ALL_WEEKDAYS: u64 = 0x7f;

const SECOND: i64 = 1_000_000;
/// The first and the last second that a timestamptz can hold: 4714-11-24 BC and 294276-12-31.
const TIME_BEGINS: i64 = -211_813_488_000;
const TIME_ENDS: i64 = 9_223_371_331_199;
/// Clocks are never set back by more.
const LONGEST_FOLD: i64 = 2 * DAY;

impl Cron {
    /// Returns the first instant after `after` (exclusive) at which it fires; `None` if that is later than a
    /// timestamptz can be. Both in microseconds since 2000-01-01 00:00 UTC.
    pub fn next_after(&self, zone: &impl Calendar, after: i64) -> Option<i64> {
        let from = (after.div_euclid(SECOND) + 1).max(TIME_BEGINS);
        let next = match self {
            Cron::Interval(seconds) => Some((from + seconds - 1).div_euclid(*seconds) * seconds),
            Cron::Fields(fields) if fields.follows_clocks => fields.next_shown(zone, from),
            Cron::Fields(fields) => fields.next_first_shown(zone, from),
        };
        next.filter(|&next| next <= TIME_ENDS).map(|next| next * SECOND)
    }
}

impl Fields {
    /// Returns the first instant from `from` on at which the clocks show a time that matches.
    fn next_shown(&self, zone: &impl Calendar, from: i64) -> Option<i64> {
        let mut from = from;
        while from <= TIME_ENDS {
            let (offset, change) = zone.offset_at(from);
            let end = change.map_or(TIME_ENDS, |change| change.at - 1);
            if let Some(time) = self.next_time(from + offset, end + offset) {
                return Some(time - offset);
            }
            from = end + 1;
        }
        None
    }

    /// Returns the first instant from `from` on at which the clocks, for the first time, show a time that matches or a
    /// later one than one that matches.
    fn next_first_shown(&self, zone: &impl Calendar, from: i64) -> Option<i64> {
        // The latest time that the clocks have shown is known only by where they have been set back from.
        let mut start = from - LONGEST_FOLD;
        let mut shown = None;
        while start <= TIME_ENDS {
            let (offset, change) = zone.offset_at(start);
            let end = change.map_or(TIME_ENDS, |change| change.at - 1);
            let latest = shown.unwrap_or(start + offset - 1);
            // What the clocks skipped falls due at `start`: too early, if that is before `from`.
            let unseen = if start < from { latest.max(from + offset - 1) } else { latest };
            if end >= from
                && let Some(time) = self.next_time(unseen + 1, end + offset)
            {
                return Some((time - offset).max(start));
            }
            shown = Some(latest.max(end + offset));
            start = end + 1;
        }
        None
    }

    /// Returns the first time that matches, from `from` to `until`, both included, as clocks show them.
    fn next_time(&self, from: i64, until: i64) -> Option<i64> {
        let (mut month, mut day) = Month::of_day(from.div_euclid(DAY));
        let mut second = from.rem_euclid(DAY);
        // A Monday 29 February comes after 40 years at most, and all other days that can match sooner.
        while month.first_day() <= until.div_euclid(DAY) {
            let days = self.days_of(month);
            while let Some(next) = at_or_after(days, day) {
                if next > day {
                    second = 0;
                }
                if let Some(second) = self.next_second(second) {
                    let time = (month.first_day() + i64::from(next) - 1) * DAY + second;
                    return Some(time).filter(|&time| time <= until);
                }
                (day, second) = (next + 1, 0);
            }
            (month, day, second) = (month.next(), 1, 0);
        }
        None
    }

    /// Returns the first second of a day that matches, from `from` on.
    fn next_second(&self, from: i64) -> Option<i64> {
        let [hour, minute, second] = [from / 3600, from / 60 % 60, from % 60].map(|part| part as u32);
        let time =
            |hour: u32, minute: u32, second: u32| i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let first = |set: u64| at_or_after(set, 0).unwrap_or(0);
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = at_or_after(self.seconds, second)
            {
                return Some(time(hour, minute, second));
            }
            if let Some(minute) = at_or_after(self.minutes, minute + 1) {
                return Some(time(hour, minute, first(self.seconds)));
            }
        }
        at_or_after(self.hours, hour + 1).map(|hour| time(hour, first(self.minutes), first(self.seconds)))
    }

    /// Returns the days of a month that match, as bits 1 to 31.
    fn days_of(&self, month: Month) -> u64 {
        if !has(self.months, month.number) {
            return 0;
        }
        self.days_among(month.length(), weekday(month.first_day()))
    }

    /// Returns the days that match, of a month that matches, is so long, and begins with that weekday.
    fn days_among(&self, length: u32, first: u32) -> u64 {
        let (days, weekdays) = (self.days.of(length, first), self.weekdays.of(length, first));
        if self.days.restrict() && self.weekdays.restrict() && !self.both_days {
            days | weekdays
        } else {
            days & weekdays
        }
    }

    /// True if there is no day in any year that matches.
    pub fn are_impossible(&self) -> bool {
        let has_days = |length: u32| (0..7).any(|first| self.days_among(length, first) != 0);
        !(1..=12).any(|month| {
            has(self.months, month) && (has_days(LENGTHS[month as usize - 1]) || (month == 2 && has_days(29)))
        })
    }
}

impl Days {
    /// True if they leave out some day of a month with 31.
    pub fn restrict(&self) -> bool {
        self.set != ALL_DAYS
    }

    fn of(&self, length: u32, first: u32) -> u64 {
        let mut days = self.set & ((2 << length) - 1);
        if self.last {
            days |= 1 << length;
        }
        if self.last_weekday {
            days |= 1 << nearest_weekday(length, length, first);
        }
        for day in (1..=length).filter(|&day| has(self.nearest, day)) {
            days |= 1 << nearest_weekday(day, length, first);
        }
        days
    }
}

/// Returns the Monday to Friday nearest to a day, in the same month.
fn nearest_weekday(day: u32, length: u32, first: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == length => day - 2,
        0 => day + 1,
        _ => day,
    }
}

impl Weekdays {
    /// True if they leave out some day.
    pub fn restrict(&self) -> bool {
        self.every != ALL_WEEKDAYS
    }

    fn of(&self, length: u32, first: u32) -> u64 {
        let matches = |day: &u32| {
            let weekday = (first + day - 1) % 7;
            let nth = self.nth[(*day as usize - 1) / 7];
            has(self.every | nth, weekday) || (day + 7 > length && has(self.last, weekday))
        };
        (1..=length).filter(matches).map(|day| 1 << day).sum()
    }
}

pub fn has(set: u64, value: u32) -> bool {
    set >> value & 1 == 1
}

/// Returns the first value of a set that is not less than `least`.
pub fn at_or_after(set: u64, least: u32) -> Option<u32> {
    let rest = set.checked_shr(least)?;
    (rest != 0).then(|| least + rest.trailing_zeros())
}
