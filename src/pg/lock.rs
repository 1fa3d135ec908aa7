//! Locks: lightweight ones, for shared memory, for as long as a few instructions take; and heavyweight ones, until a
//! transaction ends.

use super::catch::{PgError, catch};
use pgrx::pg_sys;
use std::ffi::CStr;

// Not pgrx's binding: see `catch`.
unsafe extern "C-unwind" {
    fn LockAcquire(
        tag: *const pg_sys::LOCKTAG,
        mode: pg_sys::LOCKMODE,
        for_session: bool,
        or_give_up: bool,
    ) -> pg_sys::LockAcquireResult::Type;
}

/// Takes the lock of a number in this database until the transaction ends, unless another transaction has it; whether
/// it was taken. Errors: 53200 if the server's table of locks is full.
pub fn try_until_end(number: u64) -> Result<bool, PgError> {
    /// pg_advisory_lock uses 1 and 2.
    const KIND: u16 = 3;
    const USER_LOCKMETHOD: u8 = 2;
    // SAFETY: a tag as pg_advisory_lock makes it; the closure is one C call.
    let result = unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: (number >> 32) as u32,
            locktag_field3: number as u32,
            locktag_field4: KIND,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: USER_LOCKMETHOD,
        };
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        catch(|| LockAcquire(&tag, mode, false, true))?
    };
    Ok(result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL)
}

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
