//! Schedules: which instants a cron expression stands for in a time zone.

pub mod calendar;
pub mod cron;
pub mod crontab;
mod entries;
pub mod fire;
pub mod import_pg_cron;
mod plan;
pub mod status;
pub mod table;
mod describe;
mod json5;
mod parse;
mod pg_cron;

pub use crate::pg::zone::Zone;
pub use cron::{Cron, CronError};
pub use crontab::CrontabEntry;

use crate::error::Error;
use crate::pg::text::{self, DbText};
use calendar::{Calendar, Change};

impl Calendar for Zone {
    fn offset_at(&self, utc: i64) -> (i64, Option<Change>) {
        let (offset, next) = self.clocks_at(utc);
        (offset, next.map(|(at, offset)| Change { at, offset }))
    }
}

impl From<CronError> for Error {
    fn from(CronError { message, position, hint, .. }: CronError) -> Error {
        Error::InvalidCron { message, detail: format!("At character {position}."), hint }
    }
}

/// Reads a crontab of graphile-worker's.
///
/// Errors: 22023.
pub fn crontab(text: &DbText) -> Result<Vec<CrontabEntry>, Error> {
    let text = text.to_string();
    crontab::parse(&text).map_err(|CronError { message, line, position, hint }| {
        let before = text.split('\n').nth(line - 1).and_then(|line| line.get(..position - 1)).unwrap_or_default();
        let position = text::characters(before) + 1;
        Error::InvalidCron { message, detail: format!("In line {line}, at character {position}."), hint }
    })
}

/// Returns the zone of this full name, in upper or lower case.
///
/// Errors: 22023, also for abbreviations and POSIX strings.
pub fn zone(name: &DbText) -> Result<Zone, Error> {
    Zone::named(name).ok_or_else(|| Error::UnknownZone(name.clone()))
}
