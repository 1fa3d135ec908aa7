//! A job's row.

use crate::pg::args::Row;
use crate::pg::clock::Timestamp;
use pgrx::pg_sys::Datum;

/// The attributes of `jobs`, by their numbers.
pub mod attribute {
    pub const ID: i16 = 1;
    pub const QUEUE_NAME: i16 = 2;
    pub const TASK_IDENTIFIER: i16 = 3;
    pub const PAYLOAD: i16 = 4;
    pub const RUN_AT: i16 = 6;
    pub const ATTEMPTS: i16 = 7;
    pub const MAX_ATTEMPTS: i16 = 8;
    pub const UPDATED_AT: i16 = 11;
    pub const KEY: i16 = 12;
    pub const LOCKED_AT: i16 = 13;
    pub const LOCKED_BY: i16 = 14;
    pub const REVISION: i16 = 15;
}

/// A job that a worker holds. Lives as long as the memory its row was copied to.
pub struct Job {
    pub row: Row,
    pub id: i64,
    pub task: String,
    pub queue_name: Option<Datum>,
    pub attempts: i32,
    pub max_attempts: i32,
}

impl Job {
    /// `row` is a row of `jobs`.
    pub fn new(row: Datum) -> Job {
        let row = Row::new(row);
        Job {
            row,
            id: row.get(attribute::ID).unwrap_or(0),
            task: row.get(attribute::TASK_IDENTIFIER).unwrap_or_default(),
            queue_name: row.value(attribute::QUEUE_NAME),
            attempts: row.get(attribute::ATTEMPTS).unwrap_or(0),
            max_attempts: row.get(attribute::MAX_ATTEMPTS).unwrap_or(0),
        }
    }

    /// What the handler gets: a `json`.
    pub fn payload(&self) -> Option<Datum> {
        self.row.value(attribute::PAYLOAD)
    }
}

/// A time as SQL has it.
pub fn timestamp(value: Option<Datum>) -> Option<Timestamp> {
    value.map(|datum| datum.value() as Timestamp)
}
