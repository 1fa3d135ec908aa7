//! Cron expressions and intervals.

use super::calendar::Calendar;

/// A parsed cron expression, or an interval.
#[derive(Clone, Debug)]
pub struct Cron(());

/// Why a text is no cron expression (or no crontab).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    pub message: String,
    /// The character that is wrong, counted from 1; in a crontab, within its line.
    pub position: usize,
    pub hint: String,
}

impl Cron {
    /// Reads five fields (minute, hour, day of month, month, day of week), six with the second first, `@hourly` and the like, or an
    /// interval such as `30 seconds`.
    pub fn parse(_text: &str) -> Result<Cron, CronError> {
        unimplemented!()
    }

    /// Returns the first instant after `after` (exclusive, microseconds as [`crate::pg::clock::Timestamp`]); `None` if there is none
    /// that a timestamptz can hold.
    pub fn next_after(&self, _zone: &impl Calendar, _after: i64) -> Option<i64> {
        unimplemented!()
    }

    /// Says in English when it fires.
    pub fn describe(&self) -> String {
        unimplemented!()
    }

    /// Returns the expression that means here what `text` means to pg_cron: where a day field starts with `*`, Vixie's cron joins the
    /// two day fields by AND.
    pub fn from_pg_cron(_text: &str) -> Result<String, CronError> {
        unimplemented!()
    }
}
