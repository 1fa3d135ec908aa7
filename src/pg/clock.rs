//! Time as Postgres counts it: microseconds since 2000-01-01 00:00 UTC.

use pgrx::pg_sys;
use std::time::Duration;

pub type Timestamp = i64;

/// Later than any other time.
pub const NEVER: Timestamp = i64::MAX;

/// The time now, by the wall clock.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// When the current transaction began: SQL's now().
pub fn transaction_start() -> Timestamp {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// `when` and `length` later; `NEVER` where that is past the end of time.
pub fn after(when: Timestamp, length: Duration) -> Timestamp {
    i64::try_from(length.as_micros()).map_or(NEVER, |us| when.saturating_add(us))
}

/// `when` and `length` earlier.
pub fn before(when: Timestamp, length: Duration) -> Timestamp {
    i64::try_from(length.as_micros()).map_or(i64::MIN, |us| when.saturating_sub(us))
}

/// How long it is until `when`; zero if that has passed, `None` if it never comes.
pub fn until(when: Timestamp) -> Option<Duration> {
    (when != NEVER).then(|| Duration::from_micros(u64::try_from(when.saturating_sub(now())).unwrap_or(0)))
}
