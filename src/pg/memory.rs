//! Memory contexts. Not pgrx's PgMemoryContexts, which must be borrowed mutably to switch to it.

use pgrx::pg_sys;

/// A memory context of our own, below TopMemoryContext: it outlives transactions, and is emptied by hand.
pub struct Arena(pg_sys::MemoryContext);

impl Arena {
    pub fn new(name: &'static std::ffi::CStr) -> Arena {
        // SAFETY: plain creation; `name` is static, as the context keeps the pointer.
        Arena(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                name.as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs `f` with this as the current memory context.
    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as `self`; the former one is put back. If `f` unwinds, the transaction's
        // abort sets the current context anew.
        unsafe {
            let former = pg_sys::MemoryContextSwitchTo(self.0);
            let result = f();
            pg_sys::MemoryContextSwitchTo(former);
            result
        }
    }

    /// Frees everything in it.
    pub fn empty(&mut self) {
        // SAFETY: `&mut self`, and nothing handed out by `within` is kept past this by its callers.
        unsafe { pg_sys::MemoryContextReset(self.0) }
    }
}
