//! Adding a row without the executor: for one table whose shape is known, where starting the executor, which parses the
//! conditions of its constraints and triggers each time, takes three times as long as the row.

use super::catch::{PgError, catch};
use super::spi::Value;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn index_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn index_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn heap_form_tuple(descriptor: pg_sys::TupleDesc, values: *const Datum, nulls: *const bool) -> pg_sys::HeapTuple;
    fn heap_insert(
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        options: c_int,
        bulk: pg_sys::BulkInsertState,
    );
    fn index_insert(
        index: pg_sys::Relation,
        values: *const Datum,
        nulls: *const bool,
        tuple: pg_sys::ItemPointer,
        heap: pg_sys::Relation,
        unique: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
    fn heap_copy_tuple_as_datum(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Datum;
    fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
    fn LockRelationOid(relation: Oid, lock: pg_sys::LOCKMODE);
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn CommandCounterIncrement();
}

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// A btree index that is not deferrable.
pub struct Index<const KEYS: usize> {
    pub oid: Oid,
    pub is_unique: bool,
    /// The attributes that it is on.
    pub attributes: [i16; KEYS],
}

/// Whether rows may be added now, and as if by a session's own statement.
pub fn may_insert() -> bool {
    // SAFETY: reads two variables.
    unsafe { !pg_sys::XactReadOnly && pg_sys::SessionReplicationRole as u32 == pg_sys::SESSION_REPLICATION_ROLE_ORIGIN }
}

/// Locks a table as an INSERT does: from here on it stays what it is, and what is known of it is up to date.
pub fn lock(table: Oid) -> Result<(), PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| LockRelationOid(table, LOCK)) }
}

/// The next number of a sequence, whoever asks.
pub fn next_value(sequence: Oid) -> Result<i64, PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| nextval_internal(sequence, false)) }
}

/// Adds a row to a table and to its indexes, and returns it as a composite, in the current memory context. Fires no trigger
/// and checks neither constraints nor rights: its caller knows that there is nothing to fire and to check, that `values`
/// are of the table's types, and that the indexes are all that it is to be in. The table is [`lock`]ed; locks the indexes
/// as an INSERT does.
pub fn insert<const COLUMNS: usize>(
    table: Oid,
    values: &[Value; COLUMNS],
    wide: &[Index<4>],
    narrow: &[Index<1>],
) -> Result<Datum, PgError> {
    /// Until the transaction ends.
    const KEPT: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;
    let nulls = values.map(|value| value.is_none());
    let values = values.map(|value| value.unwrap_or(Datum::from(0)));
    // SAFETY: in the closure are C calls, plain arrays and references only; a relation that is open when one of them raises is
    // closed by the transaction's end.
    unsafe {
        catch(|| {
            let relation = table_open(table, LOCK);
            let descriptor = (*relation).rd_att;
            let tuple = heap_form_tuple(descriptor, values.as_ptr(), nulls.as_ptr());
            heap_insert(relation, tuple, GetCurrentCommandId(true), 0, std::ptr::null_mut());
            let enter = |oid, is_unique, attributes: &[i16]| {
                let (mut keys, mut are_null) = ([Datum::from(0); 4], [true; 4]);
                for (at, &attribute) in attributes.iter().enumerate() {
                    let column = attribute as usize - 1;
                    (keys[at], are_null[at]) = (values[column], nulls[column]);
                }
                let unique = if is_unique {
                    pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
                } else {
                    pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
                };
                let mut info = std::mem::zeroed::<pg_sys::IndexInfo>();
                let index = index_open(oid, LOCK);
                let (keys, are_null, at) = (keys.as_ptr(), are_null.as_ptr(), &raw mut (*tuple).t_self);
                index_insert(index, keys, are_null, at, relation, unique, false, &mut info);
                index_close(index, KEPT);
            };
            for index in narrow {
                enter(index.oid, index.is_unique, &index.attributes);
            }
            for index in wide {
                enter(index.oid, index.is_unique, &index.attributes);
            }
            let row = heap_copy_tuple_as_datum(tuple, descriptor);
            table_close(relation, KEPT);
            CommandCounterIncrement();
            row
        })
    }
}
