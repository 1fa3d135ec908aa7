//! Trigger functions. Not pgrx's PgTrigger, which copies each row.

use super::catch::{Failure, Raise};
use super::function::Call;
use super::spi::Value;
use super::text::Read;
use pgrx::pg_sys::{self, Datum, HeapTuple};

/// One firing of a trigger.
pub struct Trigger(*mut pg_sys::TriggerData);

impl Trigger {
    /// Returns the firing that `call` is for. Errors: 39P01 if it was not called as a trigger.
    pub fn of(call: &Call) -> Result<Trigger, Failure> {
        let context = call.context();
        // SAFETY: a Node, if anything.
        if context.is_null() || unsafe { (*context).type_ } != pg_sys::NodeTag::T_TriggerData {
            return Err(not_ours("this function can only be called as a trigger"));
        }
        Ok(Trigger(context.cast()))
    }

    /// Returns true if it is fired for a row rather than for a statement.
    pub fn is_for_row(&self) -> bool {
        // SAFETY: a valid firing.
        unsafe { (*self.0).tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 }
    }

    /// Returns the row: before an UPDATE, or the one that is deleted or inserted.
    pub fn row(&self) -> TriggerRow {
        // SAFETY: a firing for a row.
        unsafe { TriggerRow { tuple: (*self.0).tg_trigtuple, descriptor: (*(*self.0).tg_relation).rd_att } }
    }

    /// Returns the row after an UPDATE; `None` for other events.
    pub fn updated_row(&self) -> Option<TriggerRow> {
        // SAFETY: a firing for a row.
        unsafe {
            let tuple = (*self.0).tg_newtuple;
            (!tuple.is_null()).then(|| TriggerRow { tuple, descriptor: (*(*self.0).tg_relation).rd_att })
        }
    }

    /// Returns true if an INSERT fired it.
    pub fn is_insert(&self) -> bool {
        // SAFETY: a valid firing.
        let event = unsafe { (*self.0).tg_event };
        event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_INSERT
    }

    /// Returns the table's OID.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: a valid firing.
        unsafe { (*(*self.0).tg_relation).rd_id }
    }
}

/// Returns the error of a trigger function that was called otherwise.
pub fn not_ours(message: &str) -> Failure {
    let (detail, hint, context) = (None, None, None);
    Failure::Ours(Raise { sqlstate: *b"39P01", message: message.into(), detail, hint, context })
}

/// Returns the value that an AFTER trigger returns.
pub fn nothing() -> Value {
    Some(Datum::from(0))
}

/// A row that a trigger is fired for.
pub struct TriggerRow {
    tuple: HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl TriggerRow {
    /// Returns an attribute, by its number in the table (from 1).
    pub fn value(&self, attribute: i16) -> Value {
        let mut is_null = false;
        // SAFETY: the tuple is of this descriptor.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, i32::from(attribute), &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// Returns an attribute as a Rust type that fits it.
    pub fn get<T: Read>(&self, attribute: i16) -> Option<T> {
        // SAFETY: callers name the attribute's type.
        self.value(attribute).and_then(|datum| unsafe { T::read(datum) })
    }

    /// Returns a copy with some attributes changed, as a BEFORE trigger returns it.
    pub fn with(&self, changes: &[(i16, Value)]) -> Value {
        // SAFETY: the tuple is of this descriptor.
        Some(Datum::from(unsafe { changed(self.tuple, self.descriptor, changes) }))
    }
}

/// Returns a copy of a tuple with some attributes changed.
///
/// # Safety
/// The tuple is of this descriptor, and the values are of the attributes' types.
pub(super) unsafe fn changed(tuple: HeapTuple, descriptor: pg_sys::TupleDesc, changes: &[(i16, Value)]) -> HeapTuple {
    let mut columns: Vec<i32> = changes.iter().map(|&(attribute, _)| i32::from(attribute)).collect();
    let mut values: Vec<Datum> = changes.iter().map(|&(_, value)| value.unwrap_or(Datum::from(0))).collect();
    let mut nulls: Vec<bool> = changes.iter().map(|(_, value)| value.is_none()).collect();
    let (count, columns, values, nulls) =
        (columns.len() as i32, columns.as_mut_ptr(), values.as_mut_ptr(), nulls.as_mut_ptr());
    // SAFETY: by the caller's word; three arrays of as many columns.
    unsafe { pg_sys::heap_modify_tuple_by_cols(tuple, descriptor, count, columns, values, nulls) }
}
