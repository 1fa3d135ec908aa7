//! The row of a queue's lock, read and written without the executor. It repeats what the statements of [`super::queues`] would
//! do, where `job_queues` is exactly as the extension installs it: see [`super::table_shape`].
//!
//! Nothing here waits for another transaction, and nothing fires the triggers of the table: that is left to the caller.

use super::lock_table;
use super::table_shape::Shape;
use crate::error::Error;
use crate::pg::args::{Row, Text};
use crate::pg::clock::Timestamp;
use crate::pg::definition::{self, Definition};
use crate::pg::heap::{self, FirstColumn, Index, RowAddress, Version};
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::pg::xact::{self, LatestSnapshot};
use crate::schema;
use crate::schema::job_row::timestamp;
use pgrx::IntoDatum;
use pgrx::pg_sys::{self, Datum, INT4OID, INT8OID, Oid, TEXTOID, TIMESTAMPTZOID};
use std::cell::Cell;

/// How many columns `job_queues` has, and their numbers.
const COLUMNS: usize = 5;
const QUEUE_NAME: i16 = 1;
const JOB_COUNT: i16 = 2;
const LOCKED_AT: i16 = 3;
const LOCKED_BY: i16 = 4;
const JOB_ID: i16 = 5;

/// The table, as installed, and the index of its primary key.
#[derive(Clone, Copy)]
pub(super) struct QueueTable {
    table: Oid,
    names: Oid,
    collation: Oid,
}

/// Returns the table, locked, if it is as installed and this transaction may write it without the executor.
pub(super) fn table() -> Result<Option<QueueTable>, Error> {
    static SHAPE: Shape = Shape::new();
    thread_local! {
        static INSTALLED: Cell<Option<QueueTable>> = const { Cell::new(None) };
    }
    let queue = schema::queue()?;
    if !queue.is_0_3 || !xact::is_read_committed() || !heap::may_write() {
        return Ok(None);
    }
    // In the order in which all lock both.
    lock_table()?;
    SHAPE.of(queue.queues, &INSTALLED, installed)
}

/// Returns the table if it is as installed.
fn installed(table: Oid, found: &Definition) -> Option<QueueTable> {
    const OF_QUEUES: [(&str, Oid); COLUMNS] = [
        ("queue_name", TEXTOID),
        ("job_count", INT4OID),
        ("locked_at", TIMESTAMPTZOID),
        ("locked_by", TEXTOID),
        ("job_id", INT8OID),
    ];
    // Those of foreign keys would be among them.
    const FIRED: [(&str, &str); 2] =
        [("_900_released", "tg_job_queues__released"), ("_900_released_update", "tg_job_queues__released")];
    let privileges = pg_sys::ACL_SELECT | pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE | pg_sys::ACL_DELETE;
    let [names] = &found.indexes[..] else { return None };
    let is_installed = found.is_plain()
        && found.has_columns(&OF_QUEUES)
        && found.checks.is_empty()
        && found.fires(u32::MAX, &FIRED)
        && definition::may(found.owner, table, privileges)
        && names.is_btree
        && names.is_unique
        && names.is_valid
        && names.is_in_use
        && names.columns == [QUEUE_NAME]
        && names.predicate.is_none();
    is_installed.then_some(QueueTable { table, names: names.oid, collation: names.collation })
}

/// A queue's row.
pub(super) struct QueueRow {
    version: Version,
    locked_at: Option<Timestamp>,
    locked_by: Option<DbText>,
}

impl QueueTable {
    /// Finds a queue's row, of which it is known where it was, among what was committed so far and what this transaction has
    /// done.
    pub(super) fn find(&self, name: Datum, address: Option<RowAddress>) -> Result<Option<QueueRow>, Error> {
        heap::end_command()?;
        let _snapshot = LatestSnapshot::take();
        let at_address = match address {
            Some(address) => heap::version_at(self.table, address)?.map(read).filter(|(its, _)| is_same(*its, name)),
            None => None,
        };
        if let Some((_, row)) = at_address {
            return Ok(Some(row));
        }
        let version = heap::find_version_by(self.table, self.names, &FirstColumn::text(name, self.collation))?;
        Ok(version.map(read).map(|(_, row)| row))
    }

    /// Locks a queue that has no row. Returns where its row is; `None` if another transaction has added one.
    pub(super) fn insert(
        &self,
        name: Datum,
        worker_id: Value,
        now: Value,
        job: i64,
    ) -> Result<Option<RowAddress>, Error> {
        let values = [Some(name), 1_i32.into_datum(), now, worker_id, job.into_datum()];
        Ok(heap::insert_if_new::<COLUMNS>(self.table, &values, &self.index())?)
    }

    /// Locks a queue whose row is no lock, or a dead one. Returns where the row is now; `None` if another transaction has
    /// locked or changed it.
    pub(super) fn relock(
        &self,
        row: &QueueRow,
        worker_id: Value,
        now: Value,
        job: i64,
    ) -> Result<Option<RowAddress>, Error> {
        let changes =
            [(JOB_COUNT, 1_i32.into_datum()), (LOCKED_AT, now), (LOCKED_BY, worker_id), (JOB_ID, job.into_datum())];
        self.update(row, &changes)
    }

    /// Releases a queue and keeps its row. Returns as [`QueueTable::relock`] does.
    pub(super) fn unlock(&self, row: &QueueRow) -> Result<Option<RowAddress>, Error> {
        self.update(row, &[(LOCKED_AT, None), (LOCKED_BY, None), (JOB_ID, None)])
    }

    fn update(&self, row: &QueueRow, changes: &[(i16, Value)]) -> Result<Option<RowAddress>, Error> {
        let found = heap::update::<COLUMNS>(self.table, &row.version, changes, &[self.index()], &[])?;
        Ok(found.map(|found| found.address()))
    }

    /// Deletes a queue's row. Returns false if another transaction has locked or changed it.
    pub(super) fn delete(&self, row: &QueueRow) -> Result<bool, Error> {
        Ok(heap::delete(self.table, &row.version.found())?)
    }

    fn index(&self) -> Index<1> {
        Index { oid: self.names, is_unique: true, attributes: [QUEUE_NAME] }
    }
}

impl QueueRow {
    pub(super) fn is_lock(&self) -> bool {
        self.locked_at.is_some()
    }

    pub(super) fn is_held_by(&self, worker_id: Datum) -> bool {
        self.locked_by.as_ref().is_some_and(|its| Text::new(worker_id).is(its))
    }

    /// Returns true if it is no lock, or a dead one: of before `expired`, and of no worker that lives.
    pub(super) fn is_free(&self, expired: Timestamp, living: impl FnOnce() -> Vec<DbText>) -> bool {
        match (self.locked_at, &self.locked_by) {
            (None, _) => true,
            (Some(at), Some(its)) => at < expired && !living().contains(its),
            (Some(_), None) => false,
        }
    }
}

/// Reads a row, and the name of its queue, which is as the table has it.
fn read(version: Version) -> (Value, QueueRow) {
    let [name, locked_at, locked_by] = Row::new(version.row).values([QUEUE_NAME, LOCKED_AT, LOCKED_BY]);
    let locked_by = locked_by.map(|its| Text::new(its).read());
    (name, QueueRow { version, locked_at: timestamp(locked_at), locked_by })
}

fn is_same(its: Value, name: Datum) -> bool {
    its.is_some_and(|its| Text::new(its).bytes() == Text::new(name).bytes())
}
