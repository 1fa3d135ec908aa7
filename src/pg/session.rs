//! What a session keeps beyond its transactions, and forgetting it.

use super::catch::{PgError, catch};
use pgrx::pg_sys;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn PortalHashTableDeleteAll();
    fn DropAllPreparedStatements();
    fn Async_UnlistenAll();
    fn LockReleaseSession(method: u16);
    fn ResetTempTableNamespace();
    fn ResetSequenceCaches();
}

/// Forgets what a handler may have left in its transaction: cursors, LISTENs, temporary objects. Within it, so that what
/// shares the transaction meets nothing of it either; a rollback does the same.
pub fn forget() -> Result<(), PgError> {
    // SAFETY: the closure makes C calls only.
    unsafe { catch(|| forget_unguarded()) }
}

/// The same as the transaction commits, for what deferred triggers leave.
///
/// # Safety
/// What it raises is a jump; it needs a transaction that can still fail.
pub(super) unsafe fn forget_before_commit() {
    // SAFETY: the caller vouches for the transaction, which has no snapshot any more; dropping tables may read TOAST.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        forget_unguarded();
        pg_sys::PopActiveSnapshot();
    }
}

unsafe fn forget_unguarded() {
    // SAFETY: DISCARD's own calls, within a transaction.
    unsafe {
        PortalHashTableDeleteAll();
        Async_UnlistenAll();
        if pg_sys::MyXactFlags as u32 & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE != 0 {
            ResetTempTableNamespace();
        }
    }
}

/// Forgets what is no transaction's, whether it commits or not: prepared statements, and what currval says. To be called
/// after each call, as others may share its transaction.
pub fn forget_what_no_rollback_does() {
    // SAFETY: these look at this process's own memory, and raise nothing; also after an error.
    unsafe {
        DropAllPreparedStatements();
        ResetSequenceCaches();
    }
}

/// Forgets what users' code has left once its transaction has ended: what the commit itself had them run may have left as much
/// as a call. Advisory locks of the session are released only now: they are taken to see what others have committed, and to
/// have others wait for what is committed here.
pub(super) fn transaction_ended() {
    const USER_LOCKMETHOD: u16 = 2;
    // SAFETY: as above.
    unsafe { LockReleaseSession(USER_LOCKMETHOD) }
    forget_what_no_rollback_does();
}
