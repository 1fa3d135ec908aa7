//! Interrupts for PL/Python, whose interpreter checks only its own interrupts and not Postgres's. To end a call, this
//! sets one of the interpreter's, so that the running code raises KeyboardInterrupt, in a loop, a sleep or a read.
//!
//! The interpreter's own SIGINT handler cannot be used, as Postgres needs that signal. The interpreter is told of a
//! handler, so that it knows what to raise, and then Postgres's handler is restored. From then on [`interrupt`], which
//! a signal handler may call, stands for the signal.

use super::catch::catch;
use super::{latch, libraries, xact};
use pgrx::pg_sys::{self, Datum};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr};

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn load_external_function(
        library: *const c_char,
        function: *const c_char,
        must_be_there: bool,
        handle: *mut *mut c_void,
    ) -> pg_sys::PGFunction;
    fn DirectFunctionCall1Coll(function: pg_sys::PGFunction, collation: pg_sys::Oid, argument: Datum) -> Datum;
}

/// The language's name.
pub const LANGUAGE: &CStr = c"plpython3u";

const LIBRARY: &CStr = c"plpython3.so";

/// `PyErr_SetInterrupt`, once the interpreter knows what to raise.
static SET_INTERRUPT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static LOADED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that a library was loaded: it may be Python's.
pub fn look_for_it() {
    LOADED.set(LOADED.get() || libraries::has(LIBRARY));
}

/// Prepares the interpreter before a call, if the handler `is_python` or the interpreter is loaded already. To be
/// called within a transaction.
pub fn prepare(is_python: bool) {
    if (is_python || LOADED.get()) && SET_INTERRUPT.load(Relaxed).is_null() {
        // If this fails, the call fails too and says why.
        let told = xact::in_subtransaction(|| latch::keeping_sigint(|| run(TELL)));
        if told.is_ok() {
            SET_INTERRUPT.store(libraries::symbol(c"PyErr_SetInterrupt"), SeqCst);
        }
    }
}

const TELL: &CStr = c"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)";

/// Runs a DO block.
fn run(code: &CStr) -> Result<(), super::catch::PgError> {
    // SAFETY: the handler of DO of its language, with what it is called with; the closures make C calls only.
    unsafe {
        let function = catch(|| {
            load_external_function(
                c"$libdir/plpython3".as_ptr(),
                c"plpython3_inline_handler".as_ptr(),
                true,
                std::ptr::null_mut(),
            )
        })?;
        let mut block = pg_sys::InlineCodeBlock {
            type_: pg_sys::NodeTag::T_InlineCodeBlock,
            source_text: code.as_ptr().cast_mut(),
            atomic: true,
            ..Default::default()
        };
        let block = Datum::from(&raw mut block);
        catch(|| DirectFunctionCall1Coll(function, pg_sys::InvalidOid, block))?;
    }
    Ok(())
}

/// Has the interpreter raise KeyboardInterrupt as soon as it can. For signal handlers, while a call runs.
pub(super) fn interrupt() {
    let function = SET_INTERRUPT.load(SeqCst);
    if !function.is_null() {
        INTERRUPTED.store(true, SeqCst);
        // SAFETY: that is its signature; Python's documentation allows it in a signal handler.
        unsafe { transmute::<*mut c_void, extern "C" fn()>(function)() }
    }
}

/// Returns true if an error may be the KeyboardInterrupt of [`interrupt`].
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(SeqCst)
}

/// Clears an interrupt that was not raised, as the call that it was meant for has ended.
pub(super) fn forget_interrupt() {
    if !INTERRUPTED.swap(false, SeqCst) {
        return;
    }
    let (check, clear) = (libraries::symbol(c"PyErr_CheckSignals"), libraries::symbol(c"PyErr_Clear"));
    if check.is_null() || clear.is_null() {
        return;
    }
    // SAFETY: those are their signatures. This thread is the interpreter's main one, and outside of its code it has the
    // lock.
    unsafe {
        let check = transmute::<*mut c_void, extern "C" fn() -> c_int>(check);
        let clear = transmute::<*mut c_void, extern "C" fn()>(clear);
        while check() != 0 {
            clear();
        }
    }
}
