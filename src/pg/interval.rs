//! Intervals. pgrx's Interval goes through text for arrays, which IntervalStyle writes in a way that nothing may read.

use super::catch::{PgError, catch};
use super::spi::Value;
use super::text::Read;
use super::{clock, procedure};
use pgrx::pg_sys::{self, Datum, INTERVALOID, Oid};
use std::ffi::{c_char, c_int};

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn timestamptz_pl_interval(call: pg_sys::FunctionCallInfo) -> Datum;
    fn DirectFunctionCall2Coll(function: pg_sys::PGFunction, collation: Oid, first: Datum, second: Datum) -> Datum;
}

/// An interval, in the parts that Postgres keeps it in: neither months nor days have a fixed length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval {
    months: i32,
    days: i32,
    microseconds: i64,
}

const DAY_MS: i64 = 24 * 3600 * 1000;
const MONTH_MS: i64 = 30 * DAY_MS;

impl Interval {
    /// Reads an `interval`.
    pub fn read(datum: Datum) -> Interval {
        // SAFETY: by the caller's word an interval, which is never toasted.
        let interval = unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() };
        Interval { months: interval.month, days: interval.day, microseconds: interval.time }
    }

    /// Returns how long it is in seconds, as `date_part('epoch', ...)` does: a year has 365.25 days, a month beyond years 30.
    pub fn seconds(&self) -> f64 {
        const DAY: f64 = 86_400.0;
        let (years, months) = (f64::from(self.months / 12), f64::from(self.months % 12));
        self.microseconds as f64 / 1e6 + (years * 365.25 + months * 30.0 + f64::from(self.days)) * DAY
    }

    /// Makes an `interval` value in the current memory context.
    pub fn datum(&self) -> Datum {
        // SAFETY: a fresh palloc of an interval's size, filled in.
        unsafe {
            let interval = pg_sys::palloc0(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
            *interval = pg_sys::Interval { time: self.microseconds, day: self.days, month: self.months };
            Datum::from(interval)
        }
    }

    /// Returns true if the interval takes between one millisecond and so many days. So does each of its parts by
    /// itself, so that no date is too late to add it to. A month counts as 30 days.
    pub fn is_positive_within(&self, days: i64) -> bool {
        let parts = [i64::from(self.months) * MONTH_MS, i64::from(self.days) * DAY_MS, self.microseconds / 1000];
        let most = days * DAY_MS;
        let fits = |ms: i64| (-most..=most).contains(&ms);
        parts.iter().all(|&part| fits(part)) && (1..=most).contains(&parts.iter().sum())
    }

    /// Returns true if it is less than zero, by the order of intervals: a month has 30 days, a day 24 hours.
    pub fn is_negative(&self) -> bool {
        const DAY: i128 = 24 * 3600 * 1_000_000;
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * DAY + i128::from(self.microseconds) < 0
    }

    /// Returns true for the infinite intervals of PostgreSQL 17 and later.
    pub fn is_infinite(&self) -> bool {
        (self.months, self.days, self.microseconds) == (i32::MAX, i32::MAX, i64::MAX)
            || (self.months, self.days, self.microseconds) == (i32::MIN, i32::MIN, i64::MIN)
    }

    /// Errors: 22008 if the time so long after now is none that Postgres has.
    pub fn check_from_now(&self) -> Result<(), PgError> {
        let (now, interval) = (Datum::from(clock::now()), self.datum());
        // SAFETY: the closure is one C call, with a timestamptz and an interval.
        unsafe {
            catch(|| DirectFunctionCall2Coll(Some(timestamptz_pl_interval), pg_sys::InvalidOid, now, interval))?;
        }
        Ok(())
    }
}

impl Read for Interval {
    unsafe fn read(value: Datum) -> Option<Self> {
        Some(Interval::read(value))
    }
}

impl Read for Vec<Interval> {
    unsafe fn read(value: Datum) -> Option<Self> {
        Some(elements(value).into_iter().flatten().collect())
    }
}

/// Returns the elements of an `interval[]`, in order, whatever its dimensions are.
pub fn elements(array: Datum) -> Vec<Option<Interval>> {
    let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    let (length, alignment) = (size_of::<pg_sys::Interval>() as c_int, pg_sys::TYPALIGN_DOUBLE as c_char);
    // SAFETY: by the caller's word an interval[]; two arrays of `count` are made of it.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        pg_sys::deconstruct_array(array, INTERVALOID, length, false, alignment, &mut elements, &mut nulls, &mut count);
        (0..usize::try_from(count).unwrap_or(0))
            .map(|at| (!*nulls.add(at)).then(|| Interval::read(*elements.add(at))))
            .collect()
    }
}

/// Makes an `interval[]` value in the current memory context; NULL if there are no elements.
pub fn array(intervals: &[Interval]) -> Result<Value, PgError> {
    if intervals.is_empty() {
        return Ok(None);
    }
    let elements: Vec<Datum> = intervals.iter().map(Interval::datum).collect();
    procedure::array(&elements, INTERVALOID).map(Some)
}

#[cfg(test)]
mod tests {
    use super::Interval;

    #[test]
    fn an_interval_is_as_long_as_its_epoch_says() {
        let interval = Interval { months: 14, days: -1, microseconds: 1_500_000 };
        // select date_part('epoch', '14 months -1 day 1.5 s'::interval)
        assert_eq!(interval.seconds(), 36_655_201.5);
    }

    #[test]
    fn an_interval_is_in_range_as_a_whole_and_in_its_parts() {
        let interval = |months, days, microseconds| Interval { months, days, microseconds };
        for inside in [interval(0, 0, 1000), interval(1, 0, 0), interval(0, 1, -1000), interval(120, 0, 0)] {
            assert!(inside.is_positive_within(3650), "{inside:?}");
        }
        for outside in [
            interval(0, 0, 0),
            interval(0, 0, 999),
            interval(0, 0, -1000),
            interval(0, 1, -86_400_000_000),
            interval(122, 0, 0),
            interval(i32::MAX, i32::MIN, 0),
            interval(0, 0, i64::MAX),
            interval(i32::MIN, i32::MIN, i64::MIN),
        ] {
            assert!(!outside.is_positive_within(3650), "{outside:?}");
        }
    }
}
