//! Time zones, as Postgres knows them.

use super::text::DbText;
use pgrx::pg_sys;

/// A time zone of pg_timezone_names.
#[derive(Clone, Copy)]
pub struct Zone(*const pg_sys::pg_tz);

impl Zone {
    /// Returns the zone of this full name, in upper or lower case; `None` if pg_timezone_names has none.
    pub fn named(_name: &DbText) -> Option<Zone> {
        unimplemented!()
    }

    /// Returns its name as pg_timezone_names spells it.
    pub fn name(&self) -> DbText {
        unimplemented!()
    }

    /// Returns the offset from UTC at an instant (seconds since 2000-01-01 00:00 UTC), and the first change after it: when, and
    /// the offset from then on.
    pub fn clocks_at(&self, _utc: i64) -> (i64, Option<(i64, i64)>) {
        unimplemented!()
    }
}
