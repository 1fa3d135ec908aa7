//! Reading all rows of a table, and who holds a row, without the executor: that takes twice as long for each row.

use super::catch::{PgError, catch};
use super::spi::Value;
use super::text::Read;
use pgrx::pg_sys::{self, Datum, Oid, TransactionId};
use pgrx::varlena;
use std::ffi::c_int;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn table_slot_create(relation: pg_sys::Relation, list: *mut *mut pg_sys::List) -> *mut pg_sys::TupleTableSlot;
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attribute: c_int);
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    fn jsonb_exists(call: pg_sys::FunctionCallInfo) -> Datum;
    fn jsonb_exists_any(call: pg_sys::FunctionCallInfo) -> Datum;
    fn DirectFunctionCall2Coll(function: pg_sys::PGFunction, collation: Oid, one: Datum, two: Datum) -> Datum;
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// A row of a table that is being read, valid until the next one is.
pub struct ScannedRow(*mut pg_sys::TupleTableSlot);

impl ScannedRow {
    /// Returns an attribute, by its number (from 1): one of those that were asked for.
    pub fn value(&self, attribute: i16) -> Value {
        let at = usize::from(attribute.unsigned_abs()) - 1;
        // SAFETY: the slot has a row, of which so many values have been read.
        unsafe {
            assert!(attribute <= (*self.0).tts_nvalid);
            (!*(*self.0).tts_isnull.add(at)).then(|| *(*self.0).tts_values.add(at))
        }
    }

    /// Returns an attribute as a Rust type that fits it.
    pub fn get<T: Read>(&self, attribute: i16) -> Option<T> {
        // SAFETY: by the caller's word the attribute is of such a type.
        self.value(attribute).and_then(|value| unsafe { T::read(value) })
    }

    /// Returns the bytes of a `text`, which is not null, where they lie in the row as they are. Raises nothing.
    pub fn text_in_place(&self, attribute: i16) -> Option<&[u8]> {
        let text: *const pg_sys::varlena = self.value(attribute)?.cast_mut_ptr();
        // SAFETY: by the caller's word a varlena. One that is neither compressed nor elsewhere is what its header says.
        unsafe {
            let is_in_place = !varlena::varatt_is_1b_e(text) && !varlena::varatt_is_4b_c(text);
            is_in_place.then(|| {
                std::slice::from_raw_parts(varlena::vardata_any(text).cast(), varlena::varsize_any_exhdr(text))
            })
        }
    }

    /// Returns the transaction that has deleted or locked the row, or tried to; 0: none.
    pub fn deleter(&self) -> TransactionId {
        // SAFETY: a row of a heap is in such a slot, with its header.
        unsafe {
            let tuple = (*self.0.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            (*(*tuple).t_data).t_choice.t_heap.t_xmax
        }
    }
}

/// Hands the first attributes of each row of a table that the active snapshot shows to `is_done`, in no order, and to
/// `f` where that returns false. `is_done` must not raise, nor allocate: then it spares a row the guard that `f` needs,
/// which takes as long as the row. Checks no privileges.
pub fn each_row<E: From<PgError>>(
    table: Oid,
    attributes: i16,
    mut is_done: impl FnMut(&ScannedRow) -> bool,
    mut f: impl FnMut(&ScannedRow) -> Result<(), E>,
) -> Result<(), E> {
    const FLAGS: u32 = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
        | pg_sys::ScanOptions::SO_ALLOW_STRAT
        | pg_sys::ScanOptions::SO_ALLOW_SYNC
        | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
    // SAFETY: in the closures are C calls, and `is_done`, which has nothing to drop when the next call raises; table and
    // scan are open until the end, or the transaction's failure closes them.
    unsafe {
        let (relation, slot, scan) = catch(|| {
            let relation = table_open(table, LOCK);
            let slot = table_slot_create(relation, std::ptr::null_mut());
            let begin = (*(*relation).rd_tableam).scan_begin;
            let snapshot = pg_sys::GetActiveSnapshot();
            let no_keys = std::ptr::null_mut();
            let scan = begin.map(|begin| begin(relation, snapshot, 0, no_keys, std::ptr::null_mut(), FLAGS));
            (relation, slot, scan)
        })?;
        let (next, end) = ((*(*relation).rd_tableam).scan_getnextslot, (*(*relation).rd_tableam).scan_end);
        let mut result = Ok(());
        if let (Some(scan), Some(next), Some(end)) = (scan, next, end) {
            while result.is_ok() {
                let next_to_look_at = || {
                    while next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
                        slot_getsomeattrs_int(slot, attributes.into());
                        if !is_done(&ScannedRow(slot)) {
                            return true;
                        }
                    }
                    false
                };
                match catch(next_to_look_at) {
                    Ok(true) => result = f(&ScannedRow(slot)),
                    Ok(false) => break,
                    Err(error) => result = Err(error.into()),
                }
            }
            catch(|| end(scan))?;
        }
        catch(|| {
            ExecDropSingleTupleTableSlot(slot);
            table_close(relation, LOCK);
        })?;
        result
    }
}

/// Who holds a row that the active snapshot shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// No transaction, or this one.
    None,
    /// One that was in progress when the snapshot was taken, and still is.
    Holds,
    /// One that was in progress when the snapshot was taken, and has ended since.
    HasHeld,
}

/// Returns who holds a row, by the [deleter](ScannedRow::deleter) in its header. Where several transactions share a
/// lock on the row, that is no transaction, and nobody is taken to hold the row.
pub fn holder(deleter: TransactionId) -> Holder {
    if deleter == pg_sys::InvalidTransactionId {
        return Holder::None;
    }
    // SAFETY: reads shared memory; within a statement, which has a snapshot.
    unsafe {
        let next = pg_sys::ReadNextFullTransactionId().value as u32;
        let is_xid = pg_sys::TransactionIdPrecedes(deleter, TransactionId::from(next));
        if !is_xid
            || pg_sys::TransactionIdIsCurrentTransactionId(deleter)
            || !pg_sys::XidInMVCCSnapshot(deleter, pg_sys::GetActiveSnapshot())
        {
            Holder::None
        } else if pg_sys::TransactionIdIsInProgress(deleter) {
            Holder::Holds
        } else {
            Holder::HasHeld
        }
    }
}

/// Returns true if an object, a `jsonb`, has a key, a `text`.
pub fn has_key(object: Datum, key: Datum) -> Result<bool, PgError> {
    // SAFETY: the closure is one C call, with values of these types.
    unsafe { Ok(catch(|| DirectFunctionCall2Coll(Some(jsonb_exists), pg_sys::InvalidOid, object, key))?.value() != 0) }
}

/// Returns true if an object, a `jsonb`, has any of some keys, a `text[]`.
pub fn has_any_key(object: Datum, keys: Datum) -> Result<bool, PgError> {
    let function: pg_sys::PGFunction = Some(jsonb_exists_any);
    // SAFETY: as in `has_key`.
    unsafe { Ok(catch(|| DirectFunctionCall2Coll(function, pg_sys::InvalidOid, object, keys))?.value() != 0) }
}
