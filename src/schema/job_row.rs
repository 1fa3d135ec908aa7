//! A job's row.

use crate::pg::args::{Row, Text};
use crate::pg::clock::Timestamp;
use crate::pg::heap::RowAddress;
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::shared::ready_list::Position;
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::time::Duration;

/// The attribute numbers of the columns of `jobs`.
pub mod attribute {
    pub const ID: i16 = 1;
    pub const QUEUE_NAME: i16 = 2;
    pub const TASK_IDENTIFIER: i16 = 3;
    pub const PAYLOAD: i16 = 4;
    pub const PRIORITY: i16 = 5;
    pub const RUN_AT: i16 = 6;
    pub const ATTEMPTS: i16 = 7;
    pub const MAX_ATTEMPTS: i16 = 8;
    pub const LAST_ERROR: i16 = 9;
    pub const CREATED_AT: i16 = 10;
    pub const UPDATED_AT: i16 = 11;
    pub const KEY: i16 = 12;
    pub const LOCKED_AT: i16 = 13;
    pub const LOCKED_BY: i16 = 14;
    pub const REVISION: i16 = 15;
    pub const FLAGS: i16 = 16;
}

/// A job that a worker has taken. Valid as long as the memory context to which its row was copied.
pub struct Job {
    row: Row,
    pub id: i64,
    /// Where the row was when the worker claimed it, if that is known.
    pub address: Option<RowAddress>,
    /// When it had been added and was due.
    due: Timestamp,
    attempts: i32,
    pub is_in_queue: bool,
    times: Cell<Times>,
    result: Cell<Value>,
}

/// How an attempt went.
#[derive(Default, Clone, Copy)]
pub struct Times {
    /// When it began, by the wall clock; 0: its handler was not called.
    pub began_at: Timestamp,
    pub took: Duration,
    /// True if it took longer than its task allows.
    pub timed_out: bool,
}

impl Job {
    /// Wraps a row of `jobs`. To be called within a transaction, as whatever reads the row.
    pub fn new(row: Datum) -> Job {
        use attribute::{ATTEMPTS, CREATED_AT, ID, QUEUE_NAME, RUN_AT};
        let row = Row::new(row);
        let [id, run_at, created_at, attempts, queue_name] = row.values([ID, RUN_AT, CREATED_AT, ATTEMPTS, QUEUE_NAME]);
        let number = |value: Option<Datum>| value.map_or(0, |datum| datum.value() as i64);
        Job {
            row,
            id: number(id),
            address: None,
            due: number(run_at).max(number(created_at)),
            attempts: number(attempts) as i32,
            is_in_queue: queue_name.is_some(),
            times: Cell::default(),
            result: Cell::new(None),
        }
    }

    /// Wraps a row that lies at this address.
    pub fn at(row: Datum, address: RowAddress) -> Job {
        Job { address: Some(address), ..Job::new(row) }
    }

    /// Returns the name of its task.
    pub fn task(&self) -> DbText {
        self.row.get(attribute::TASK_IDENTIFIER).unwrap_or_default()
    }

    /// Returns the payload, a `json`.
    pub fn payload(&self) -> Option<Datum> {
        self.row.value(attribute::PAYLOAD)
    }

    /// Returns the row as it was when the worker took it.
    pub fn row(&self) -> Datum {
        self.row.datum()
    }

    /// Returns true for a job of this task that has no key, was never tried, is due, and is in this queue, or in none.
    pub fn is_first_and_due(&self, task: &DbText, queue: Option<&DbText>, now: Timestamp) -> bool {
        use attribute::{KEY, LOCKED_AT, MAX_ATTEMPTS, QUEUE_NAME, RUN_AT, TASK_IDENTIFIER};
        let [run_at, max_attempts, key, queue_name, locked_at, identifier] =
            self.row.values([RUN_AT, MAX_ATTEMPTS, KEY, QUEUE_NAME, LOCKED_AT, TASK_IDENTIFIER]);
        timestamp(run_at).is_some_and(|run_at| run_at <= now)
            && self.attempts == 0
            && max_attempts.is_some_and(|most| most.value() as i32 > 0)
            && [key, locked_at].iter().all(Option::is_none)
            && match (queue_name, queue) {
                (Some(its), Some(queue)) => Text::new(its).is(queue),
                (its, queue) => its.is_none() && queue.is_none(),
            }
            && identifier.is_some_and(|datum| Text::new(datum).is(task))
    }

    /// Returns columns of the row.
    pub fn columns<const N: usize>(&self, attributes: [i16; N]) -> [Value; N] {
        self.row.values(attributes)
    }

    pub fn queue_name(&self) -> Option<Datum> {
        self.row.value(attribute::QUEUE_NAME)
    }

    /// Returns how many attempts have begun, this one included.
    pub fn attempts(&self) -> i32 {
        self.attempts.max(1)
    }

    pub fn max_attempts(&self) -> i32 {
        self.number(attribute::MAX_ATTEMPTS)
    }

    /// Notes when the current attempt began.
    pub fn begins(&self, began_at: Timestamp) {
        self.times.set(Times { began_at, ..Times::default() });
    }

    /// Returns when it had been added and was due.
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// Notes what the handler has returned, a `jsonb`. It is valid in the transaction of the call.
    pub fn returned(&self, result: Value) {
        self.result.set(result);
    }

    /// Returns what the handler has returned.
    pub fn result(&self) -> Value {
        self.result.get()
    }

    /// Notes how the current attempt went.
    pub fn ran(&self, times: Times) {
        self.times.set(times);
    }

    /// Returns how the current attempt went.
    pub fn times(&self) -> Times {
        self.times.get()
    }

    /// Returns how long it had waited, since it was added and due, before its attempt began.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.times().began_at.saturating_sub(self.due)).unwrap_or(0))
    }

    fn number(&self, attribute: i16) -> i32 {
        self.row.get(attribute).unwrap_or(0)
    }

    pub fn position(&self) -> Position {
        Position {
            priority: self.number(attribute::PRIORITY),
            run_at: timestamp(self.row.value(attribute::RUN_AT)).unwrap_or(0),
            id: self.id,
        }
    }
}

/// Returns the row with the current attempt counted. Where a job runs in place, the row in the table does not count it
/// yet.
pub fn begun(row: Datum) -> Datum {
    let row = Row::new(row);
    match row.get(attribute::ATTEMPTS) {
        Some(0) => row.with(&[(attribute::ATTEMPTS, 1.into_datum())]),
        _ => row.datum(),
    }
}

/// Reads a `timestamptz`.
pub fn timestamp(value: Option<Datum>) -> Option<Timestamp> {
    value.map(|datum| datum.value() as Timestamp)
}
