//! Lightweight locks: for shared memory, for as long as a few instructions take.

use pgrx::pg_sys;
use std::ffi::CStr;

const TRANCHE: &CStr = c"kongtask";

/// One of our locks, released when dropped. Nothing that can raise may be called while it is held.
pub struct Lock(*mut pg_sys::LWLock);

impl Lock {
    /// Asks for locks. To be called while shared memory is asked for.
    pub fn request(count: usize) {
        // SAFETY: as its caller says.
        unsafe { pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), count as i32) }
    }

    /// Takes a lock, by its number.
    pub fn take(number: usize) -> Lock {
        // SAFETY: as many were requested.
        unsafe {
            let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr()).add(number)).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            Lock(lock)
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: taken in `take`.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}
