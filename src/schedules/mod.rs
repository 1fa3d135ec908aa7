//! Schedules: which instants a cron expression stands for in a time zone.

pub mod calendar;
pub mod cron;
pub mod crontab;
mod entries;
pub mod fire;
mod plan;
pub mod status;
pub mod table;
pub mod uptime;

pub use crate::pg::zone::Zone;
pub use cron::{Cron, CronError};
pub use crontab::{CrontabEntry, crontab};

use crate::error::Error;
use crate::pg::text::DbText;
use calendar::{Calendar, Change};

impl Calendar for Zone {
    fn offset_at(&self, utc: i64) -> (i64, Option<Change>) {
        let (offset, next) = self.clocks_at(utc);
        (offset, next.map(|(at, offset)| Change { at, offset }))
    }
}

impl From<CronError> for Error {
    fn from(CronError { message, position, hint }: CronError) -> Error {
        Error::InvalidCron { message, position, hint }
    }
}

/// Returns the zone of this full name, in upper or lower case.
///
/// Errors: 22023, also for abbreviations and POSIX strings.
pub fn zone(name: &DbText) -> Result<Zone, Error> {
    Zone::named(name).ok_or_else(|| Error::UnknownZone(name.clone()))
}
