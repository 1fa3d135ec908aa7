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
    unsafe {
        catch(|| {
            PortalHashTableDeleteAll();
            Async_UnlistenAll();
            if pg_sys::MyXactFlags as u32 & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE != 0 {
                ResetTempTableNamespace();
            }
        })
    }
}

/// Forgets what is no transaction's, whether it commits or not: advisory locks of the session, prepared statements, and what
/// currval says.
pub fn forget_what_no_rollback_does() {
    const USER_LOCKMETHOD: u16 = 2;
    // SAFETY: these look at this process's own memory, and raise nothing; also after an error.
    unsafe {
        LockReleaseSession(USER_LOCKMETHOD);
        DropAllPreparedStatements();
        ResetSequenceCaches();
    }
}
