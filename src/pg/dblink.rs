//! Closes the connections that dblink keeps for a session, so that the next job does not find them.

use super::catch::catch;
use super::libraries;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn load_external_function(
        library: *const c_char,
        function: *const c_char,
        must_be_there: bool,
        handle: *mut *mut c_void,
    ) -> pg_sys::PGFunction;
}

const LIBRARY: &CStr = c"dblink.so";

thread_local! {
    static LOADED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that a library was loaded: it may be dblink.
pub fn look_for_it() {
    LOADED.set(LOADED.get() || libraries::has(LIBRARY));
}

/// Disconnects all. To be called within a transaction, which may have failed.
pub fn disconnect() {
    // SAFETY: reads a variable; errors are copied to that context.
    if !LOADED.get() || unsafe { pg_sys::CurTransactionContext.is_null() } {
        return;
    }
    let _held = Held::keep();
    let names = call(c"dblink_get_connections", None).flatten();
    for &name in names.map(elements).unwrap_or_default() {
        call(c"dblink_disconnect", Some(name));
    }
    // The unnamed connection, if there is one.
    call(c"dblink_disconnect", None);
}

/// While it exists, interrupts can be held or allowed; an ERROR allows all. Dropping it restores both counters.
struct Held(u32, u32);

impl Held {
    fn keep() -> Held {
        // SAFETY: reads two variables of this process.
        unsafe { Held(pg_sys::InterruptHoldoffCount, pg_sys::QueryCancelHoldoffCount) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: sets them.
        unsafe {
            pg_sys::InterruptHoldoffCount = self.0;
            pg_sys::QueryCancelHoldoffCount = self.1;
        }
    }
}

/// Returns the elements of a text[] that has no NULLs.
fn elements(array: Datum) -> &'static [Datum] {
    let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: text is a varlena, aligned as an int; the elements live until the current memory context is emptied,
    // which is after they are used here.
    unsafe {
        let array = array.cast_mut_ptr();
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            -1,
            false,
            b'i' as c_char,
            &mut values,
            &mut nulls,
            &mut count,
        );
        std::slice::from_raw_parts(values, usize::try_from(count).unwrap_or(0))
    }
}

/// Calls one of dblink's functions. Returns `None` if it raised: these functions leave nothing to roll back.
fn call(function: &CStr, argument: Option<Datum>) -> Option<Option<Datum>> {
    // SAFETY: the call's frame is palloc'd and zeroed, with room for the argument; the closures make C calls only.
    unsafe {
        let entry = catch(|| {
            load_external_function(c"$libdir/dblink".as_ptr(), function.as_ptr(), false, std::ptr::null_mut())
        });
        let entry = entry.ok().flatten()?;
        let info = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
        (*info).fn_mcxt = pg_sys::CurrentMemoryContext;
        let frame: FunctionCallInfo =
            pg_sys::palloc0(size_of::<pg_sys::FunctionCallInfoBaseData>() + size_of::<pg_sys::NullableDatum>()).cast();
        (*frame).flinfo = info;
        if let Some(argument) = argument {
            (*frame).nargs = 1;
            (*(*frame).args.as_mut_ptr()).value = argument;
        }
        let result = catch(|| entry(frame)).ok()?;
        Some((!(*frame).isnull).then_some(result))
    }
}
