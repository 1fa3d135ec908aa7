//! Time as Postgres counts it, in microseconds since 2000-01-01 00:00 UTC, and a monotonic clock that all processes
//! share. pgrx's TimestampWithTimeZone converts on each use, and has no clock.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::time::Duration;

pub type Timestamp = i64;

/// Later than any other time.
pub const NEVER: Timestamp = i64::MAX;

/// Returns the wall clock's time.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// A time of the monotonic clock, in microseconds. The same for all processes, and never set.
pub type Tick = i64;

/// Returns the monotonic clock's time.
pub fn tick() -> Tick {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in what it is given; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// Returns the time at which the current transaction began: SQL's now().
pub fn transaction_start() -> Timestamp {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// Returns a time as log lines have it.
pub fn written(when: Timestamp) -> String {
    // SAFETY: the text is in a static buffer, and copied at once.
    unsafe { CStr::from_ptr(pg_sys::timestamptz_to_str(when)).to_string_lossy().into_owned() }
}

/// Returns a time (or tick) `length` later than `when`; `NEVER` if that overflows.
pub fn after(when: Timestamp, length: Duration) -> Timestamp {
    i64::try_from(length.as_micros()).map_or(NEVER, |us| when.saturating_add(us))
}

/// Returns a time `length` earlier than `when`.
pub fn before(when: Timestamp, length: Duration) -> Timestamp {
    i64::try_from(length.as_micros()).map_or(i64::MIN, |us| when.saturating_sub(us))
}

/// Returns how long it is until `when` by the wall clock: zero if that has passed, `None` if it never comes.
pub fn until(when: Timestamp) -> Option<Duration> {
    between(now(), when)
}

/// Returns how long it is until a tick.
pub fn until_tick(when: Tick) -> Option<Duration> {
    between(tick(), when)
}

/// Returns how long ago a tick was.
pub fn since_tick(tick: Tick) -> Duration {
    Duration::from_micros(u64::try_from(self::tick().saturating_sub(tick)).unwrap_or(0))
}

/// Returns how long it is from one time, or tick, to another: zero if that is earlier, `None` if it never comes.
pub fn between(from: i64, to: i64) -> Option<Duration> {
    (to != NEVER).then(|| Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0)))
}
