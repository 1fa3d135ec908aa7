//! What becomes of the instants that a schedule has fallen due for: which are run, which are missed, and how far it has
//! come by then.
//!
//! ```text
//!               the former scheduler was alive                this one began
//!   ─────────────┬─────────────────────────────┬────────────────┬──────────────────► now
//!     missed     │        late: it runs        │     missed     │  late: it runs
//! ```
//!
//! What the former scheduler was about to fire as it was killed is late. Missed is what fell due while no scheduler was
//! alive, or before the times of the schedule were set (an imported crontab goes on from its last run): a table that was
//! restored into a running server goes on from what its dump says of an older time.

use super::Cron;
use super::calendar::Calendar;
use crate::pg::clock::Timestamp;
use std::collections::VecDeque;

/// What a schedule does about runs that it missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missed {
    Skip,
    Once,
    All,
}

impl Missed {
    /// Reads the option as SQL spells it.
    pub fn parse(text: &[u8]) -> Option<Missed> {
        match text {
            b"skip" => Some(Missed::Skip),
            b"once" => Some(Missed::Once),
            b"all" => Some(Missed::All),
            _ => None,
        }
    }
}

/// When a schedule fires.
pub struct Times<'a, C: Calendar> {
    pub cron: &'a Cron,
    pub zone: &'a C,
    pub ends_at: Timestamp,
}

impl<C: Calendar> Times<'_, C> {
    /// Returns the first instant after this one.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.next_after(self.zone, after).filter(|&next| next <= self.ends_at)
    }

    /// The instants after `after`, up to and with `to`.
    fn within(&self, after: Timestamp, to: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |&instant| self.next_after(instant))
            .take_while(move |&instant| instant <= to)
    }

    /// The latest `most` of them, found without a look at all earlier ones.
    fn latest(&self, after: Timestamp, to: Timestamp, most: usize) -> Vec<Timestamp> {
        let mut window = SECOND;
        loop {
            let from = after.max(to.saturating_sub(window));
            let mut found = VecDeque::new();
            for instant in self.within(from, to) {
                found.push_back(instant);
                if found.len() > most {
                    found.pop_front();
                }
            }
            if found.len() == most || from == after {
                return found.into();
            }
            window = window.saturating_mul(2);
        }
    }

    /// How many there are: [`COUNTED`] stands for as many or more.
    fn count(&self, after: Timestamp, to: Timestamp) -> u64 {
        self.within(after, to).take(COUNTED).count() as u64
    }
}

const SECOND: i64 = 1_000_000;

/// How many runs of a schedule are added at once, and how many at most of those that it is late with.
pub const MOST: usize = 60;

/// How far missed runs are counted.
const COUNTED: usize = 1000;

/// What is known of the time before now.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// When this scheduler began, or heard of the schedule.
    pub begun: Timestamp,
    /// When the former scheduler was last alive.
    pub former: Timestamp,
    /// From when on the former scheduler was alive, and the times of the schedule were what they are.
    pub known_since: Timestamp,
    pub now: Timestamp,
}

impl Past {
    /// True if no scheduler ran at this instant, or none that knew of the schedule.
    fn is_missed(&self, instant: Timestamp) -> bool {
        instant < self.begun && !(instant <= self.former && instant >= self.known_since)
    }
}

/// What is to be done at once about a schedule that has fallen due.
#[derive(PartialEq, Eq, Debug)]
pub struct Round {
    /// The instants that jobs are added for, in order.
    pub run: Vec<Timestamp>,
    pub backfilled: bool,
    /// How many are not made up for.
    pub missed: u64,
    /// Nothing up to here is due any more.
    pub done: Timestamp,
}

/// What to do about a schedule whose first instant that is not done with is `due`, which is not later than now. Older
/// missed runs than `within` are not made up for.
pub fn round<C: Calendar>(
    times: &Times<'_, C>,
    (missed, within): (Missed, Option<i64>),
    due: Timestamp,
    past: Past,
) -> Round {
    let before = due - 1;
    if !past.is_missed(due) {
        let end = if due >= past.begun { past.now } else { past.former.min(past.now) };
        let first: Vec<_> = times.within(before, end).take(MOST + 1).collect();
        if missed == Missed::All || first.len() <= MOST {
            let run: Vec<_> = first.into_iter().take(MOST).collect();
            let done = run.last().copied().unwrap_or(end);
            return Round { run, backfilled: false, missed: 0, done };
        }
        let run = times.latest(before, end, MOST);
        return Round { missed: times.count(before, run[0] - 1), done: end, run, backfilled: false };
    }
    let end = if due <= past.former { past.known_since.min(past.begun) - 1 } else { past.begun - 1 }.min(past.now);
    let oldest = within.map_or(i64::MIN, |within| past.now.saturating_sub(within));
    let nothing = |missed| Round { run: Vec::new(), backfilled: true, missed, done: end };
    match missed {
        Missed::Skip => nothing(times.count(before, end)),
        Missed::Once => {
            let count = times.count(before, end);
            let run = times.latest(before, end, 1);
            match run.first().is_some_and(|&latest| latest >= oldest) {
                true => Round { run, missed: count.saturating_sub(1), ..nothing(0) },
                false => nothing(count),
            }
        }
        Missed::All => {
            let after = before.max(oldest.saturating_sub(1));
            let too_old = if after > before { times.count(before, after.min(end)) } else { 0 };
            let run: Vec<_> = times.within(after, end).take(MOST).collect();
            let done = if run.len() == MOST { run[MOST - 1] } else { end };
            Round { run, missed: too_old, done, backfilled: true }
        }
    }
}

/// An instant as JavaScript's toISOString has it, to the millisecond.
pub fn iso(instant: Timestamp) -> String {
    const DAY: i64 = 86_400_000;
    // From 2000-01-01 to the era that begins on 0000-03-01: whole days.
    const SHIFT: i64 = 730_425;
    let milliseconds = instant.div_euclid(1000);
    let (days, of_day) = (milliseconds.div_euclid(DAY) + SHIFT, milliseconds.rem_euclid(DAY));
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, millisecond) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedules::calendar::Change;

    struct Utc;

    impl Calendar for Utc {
        fn offset_at(&self, _: i64) -> (i64, Option<Change>) {
            (0, None)
        }
    }

    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;

    /// A round of `* * * * *`, with times in minutes.
    fn minutes(
        missed: Missed,
        within: Option<i64>,
        due: i64,
        [former, begun, now]: [i64; 3],
    ) -> (Vec<i64>, bool, u64, i64) {
        let cron = Cron::parse("* * * * *").expect("a cron expression");
        let times = Times { cron: &cron, zone: &Utc, ends_at: i64::MAX };
        let past =
            Past { begun: begun * MINUTE + 1, former: former * MINUTE, known_since: i64::MIN, now: now * MINUTE + 2 };
        let round = round(&times, (missed, within.map(|minutes| minutes * MINUTE)), due * MINUTE, past);
        let run = round.run.iter().map(|instant| instant / MINUTE).collect();
        (run, round.backfilled, round.missed, round.done.div_euclid(MINUTE))
    }

    #[test]
    fn what_it_is_late_with_runs_and_no_more_than_sixty() {
        assert_eq!(minutes(Missed::Skip, None, 5, [0, 4, 5]), (vec![5], false, 0, 5));
        assert_eq!(minutes(Missed::Skip, None, 5, [0, 4, 8]), (vec![5, 6, 7, 8], false, 0, 8));
        let (run, _, missed, done) = minutes(Missed::Once, None, 5, [0, 4, 105]);
        assert_eq!((run.len(), run[0], run[59], missed, done), (60, 46, 105, 41, 105));
        let (run, _, missed, done) = minutes(Missed::All, None, 5, [0, 4, 105]);
        assert_eq!((run.len(), run[0], run[59], missed, done), (60, 5, 64, 0, 64));
    }

    #[test]
    fn what_the_former_scheduler_was_killed_amidst_is_late() {
        assert_eq!(minutes(Missed::Skip, None, 5, [6, 9, 10]), (vec![5, 6], false, 0, 6));
        assert_eq!(minutes(Missed::Skip, None, 7, [6, 9, 10]), (vec![], true, 3, 9));
    }

    #[test]
    fn what_fell_due_before_the_former_scheduler_began_is_missed() {
        let cron = Cron::parse("* * * * *").expect("a cron expression");
        let times = Times { cron: &cron, zone: &Utc, ends_at: i64::MAX };
        let past = Past { begun: 9 * MINUTE + 1, former: 7 * MINUTE, known_since: 6 * MINUTE, now: 9 * MINUTE + 2 };
        let first = round(&times, (Missed::Skip, None), 3 * MINUTE, past);
        assert_eq!((first.run.len(), first.missed, first.done), (0, 3, 6 * MINUTE - 1));
        let late = round(&times, (Missed::Skip, None), 6 * MINUTE, past);
        assert_eq!((late.run, late.missed, late.done), (vec![6 * MINUTE, 7 * MINUTE], 0, 7 * MINUTE));
        let then = round(&times, (Missed::Skip, None), 8 * MINUTE, past);
        assert_eq!((then.run.len(), then.missed, then.done), (0, 2, 9 * MINUTE));
    }

    #[test]
    fn what_was_missed_is_skipped_or_made_up_for() {
        assert_eq!(minutes(Missed::Skip, None, 5, [0, 9, 12]), (vec![], true, 5, 9));
        assert_eq!(minutes(Missed::Once, None, 5, [0, 9, 12]), (vec![9], true, 4, 9));
        assert_eq!(minutes(Missed::Once, Some(2), 5, [0, 9, 12]), (vec![], true, 5, 9));
        assert_eq!(minutes(Missed::All, None, 5, [0, 9, 12]), (vec![5, 6, 7, 8, 9], true, 0, 9));
        assert_eq!(minutes(Missed::All, Some(5), 5, [0, 9, 12]), (vec![8, 9], true, 3, 9));
        let (run, _, missed, done) = minutes(Missed::All, None, 5, [0, 100, 102]);
        assert_eq!((run.len(), run[59], missed, done), (60, 64, 0, 64));
    }

    #[test]
    fn a_long_past_is_not_looked_at_instant_by_instant() {
        let cron = Cron::parse("* * * * * *").expect("a cron expression");
        let times = Times { cron: &cron, zone: &Utc, ends_at: i64::MAX };
        let year = 365 * 24 * HOUR;
        let past = Past { begun: year, former: 0, known_since: i64::MIN, now: year };
        let begun = std::time::Instant::now();
        let skipped = round(&times, (Missed::Skip, None), SECOND, past);
        assert_eq!((skipped.missed, skipped.done), (1000, year - 1));
        let once = round(&times, (Missed::Once, None), SECOND, past);
        assert_eq!(once.run, [year - SECOND]);
        assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
    }

    #[test]
    fn instants_are_written_as_javascript_does() {
        for (instant, text) in [
            (0, "2000-01-01T00:00:00.000Z"),
            (-1000, "1999-12-31T23:59:59.999Z"),
            (5_097_600 * SECOND, "2000-02-29T00:00:00.000Z"),
            (SECOND * 848_880_000 + 1_234_567, "2026-11-25T00:00:01.234Z"),
        ] {
            assert_eq!(iso(instant), text);
        }
    }
}
