//! What a cron expression needs to know of a time zone: how far its clocks are from UTC, and when they change.
//! Times are whole seconds since 2000-01-01 00:00, by UTC or by the clocks of the zone.

/// The clocks of a time zone.
pub trait Calendar {
    /// Returns the offset from UTC in force at an instant, and the first change after it; `None` if there is none.
    fn offset_at(&self, utc: i64) -> (i64, Option<Change>);
}

/// A change of a zone's offset from UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The first instant with the new offset.
    pub at: i64,
    /// The new offset.
    pub offset: i64,
}
