//! Lengths of time as SQL gives them: months, days and microseconds. Not pgrx's Interval, which is a datum that its
//! memory context frees.

use super::catch::{PgError, catch};
use super::clock;
use pgrx::pg_sys::{self, Datum, Oid};

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn timestamptz_pl_interval(call: pg_sys::FunctionCallInfo) -> Datum;
    fn DirectFunctionCall2Coll(function: pg_sys::PGFunction, collation: Oid, first: Datum, second: Datum) -> Datum;
}

/// An `interval` that outlives the call that it was an argument of.
#[derive(Clone, Copy)]
pub struct Interval {
    months: i32,
    days: i32,
    microseconds: i64,
}

impl Interval {
    /// Reads an `interval`.
    pub fn read(datum: Datum) -> Interval {
        // SAFETY: by the caller's word an interval.
        let interval = unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() };
        Interval { months: interval.month, days: interval.day, microseconds: interval.time }
    }

    /// Makes an `interval` in the current memory context.
    pub fn datum(&self) -> Datum {
        // SAFETY: a fresh palloc of an interval's size, filled in.
        unsafe {
            let interval = pg_sys::palloc0(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
            (*interval).month = self.months;
            (*interval).day = self.days;
            (*interval).time = self.microseconds;
            Datum::from(interval)
        }
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
