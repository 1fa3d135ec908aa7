//! Values that Postgres passes to us. Not pgrx's FromDatum, which copies each value and decodes text as UTF-8.

use super::text::{AsText, DbText, Read};
use pgrx::pg_sys::{self, Datum};
use pgrx::varlena;

/// A `text` argument, detoasted, borrowed where it need not be.
pub struct Text(*mut pg_sys::varlena);

impl Text {
    /// Wraps a `text`.
    pub fn new(datum: Datum) -> Text {
        // SAFETY: by the caller's word a varlena; the detoasted copy, if any, is palloc'd.
        Text(unsafe { pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()) })
    }

    /// Returns its length in characters, as SQL's length(text).
    pub fn characters(&self) -> i32 {
        // SAFETY: a detoasted varlena.
        unsafe {
            let bytes = varlena::varsize_any_exhdr(self.0);
            pg_sys::pg_mbstrlen_with_len(varlena::vardata_any(self.0).cast(), bytes as i32)
        }
    }

    /// Returns its bytes, in the database's encoding.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a detoasted varlena.
        unsafe {
            std::slice::from_raw_parts(varlena::vardata_any(self.0).cast::<u8>(), varlena::varsize_any_exhdr(self.0))
        }
    }

    pub fn read(&self) -> DbText {
        DbText::new(self.bytes())
    }

    pub fn is(&self, text: &(impl AsText + ?Sized)) -> bool {
        self.bytes() == &*text.encoded()
    }
}

/// Releases a descriptor that lookup_rowtype_tupdesc has returned.
///
/// # Safety
/// It is not used any more.
unsafe fn release(descriptor: pg_sys::TupleDesc) {
    // SAFETY: as the macro ReleaseTupleDesc does.
    unsafe {
        if (*descriptor).tdrefcount >= 0 {
            pg_sys::DecrTupleDescRefCount(descriptor);
        }
    }
}

/// Returns true if a value with a header of its own is stored in another table, so that to read it may take long, and fail.
pub fn is_stored_apart(datum: Datum) -> bool {
    // SAFETY: by the caller's word a varlena.
    unsafe { varlena::varatt_is_1b_e(datum.cast_mut_ptr()) }
}

/// A composite value: a row of a table.
#[derive(Clone, Copy)]
pub struct Row(Datum);

impl Row {
    /// Wraps a composite, which must live as long as this.
    pub fn new(datum: Datum) -> Row {
        Row(datum)
    }

    pub fn datum(&self) -> Datum {
        self.0
    }

    /// Returns an attribute, by its number in the table (from 1). By-reference values live as long as the row.
    pub fn value(&self, attribute: i16) -> Option<Datum> {
        let mut is_null = false;
        // SAFETY: a flat composite, as SPI returned it.
        let datum = unsafe { pg_sys::GetAttributeByNum(self.0.cast_mut_ptr(), attribute, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// Returns several attributes of a table that has no more than 64. Asks for the row's type once, which takes longer
    /// than to read them.
    pub fn values<const N: usize>(&self, attributes: [i16; N]) -> [Option<Datum>; N] {
        const MOST: usize = 64;
        // SAFETY: a flat composite of a registered type; its descriptor is released after use. `heap_deform_tuple` writes
        // as many values as the descriptor has attributes.
        unsafe {
            let header = self.0.cast_mut_ptr::<pg_sys::HeapTupleHeaderData>();
            let (kind, modifier) = ((*header).t_choice.t_datum.datum_typeid, (*header).t_choice.t_datum.datum_typmod);
            let descriptor = pg_sys::lookup_rowtype_tupdesc(kind, modifier);
            if (*descriptor).natts as usize > MOST {
                release(descriptor);
                return attributes.map(|attribute| self.value(attribute));
            }
            let mut tuple = pg_sys::HeapTupleData {
                t_len: varlena::varsize_any(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            let (mut values, mut nulls) = ([Datum::null(); MOST], [false; MOST]);
            pg_sys::heap_deform_tuple(&mut tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            release(descriptor);
            attributes.map(|attribute| {
                let at = attribute as usize - 1;
                (!nulls[at]).then(|| values[at])
            })
        }
    }

    /// Returns a copy with some attributes changed, in the current memory context.
    pub fn with(&self, changes: &[(i16, Option<Datum>)]) -> Datum {
        // SAFETY: a flat composite of a registered type; its descriptor is released after use.
        unsafe {
            let header = self.0.cast_mut_ptr::<pg_sys::HeapTupleHeaderData>();
            let (kind, modifier) = ((*header).t_choice.t_datum.datum_typeid, (*header).t_choice.t_datum.datum_typmod);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(kind, modifier);
            let mut tuple = pg_sys::HeapTupleData {
                t_len: varlena::varsize_any(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            let changed = super::trigger::changed(&mut tuple, descriptor, changes);
            pg_sys::heap_copy_tuple_as_datum(changed, descriptor)
        }
    }

    /// Returns an attribute as a Rust type that fits it.
    pub fn get<T: Read>(&self, attribute: i16) -> Option<T> {
        // SAFETY: callers name the attribute's type.
        self.value(attribute).and_then(|datum| unsafe { T::read(datum) })
    }
}

/// An `interval` of so many milliseconds, in the current memory context.
pub fn interval(milliseconds: i64) -> Datum {
    // SAFETY: a fresh palloc of an interval's size, filled in.
    unsafe {
        let interval = pg_sys::palloc0(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
        (*interval).time = milliseconds.saturating_mul(1000);
        Datum::from(interval)
    }
}

/// Converts an `interval` to milliseconds, counting a month as 30 days and a day as 24 hours.
pub fn milliseconds(interval: Datum) -> i64 {
    const DAY: i64 = 24 * 3600 * 1000;
    // SAFETY: by the caller's word an interval.
    let interval = unsafe { &*interval.cast_mut_ptr::<pg_sys::Interval>() };
    let days = i64::from(interval.month) * 30 + i64::from(interval.day);
    (days * DAY).saturating_add(interval.time / 1000)
}
