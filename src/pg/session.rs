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

/// Forgets what a handler may have left: cursors, prepared statements, LISTENs, temporary objects, and what currval says.
/// Within its transaction, so that what shares the transaction meets nothing of it either.
pub fn forget() -> Result<(), PgError> {
    // SAFETY: the closure makes C calls only.
    unsafe {
        catch(|| {
            PortalHashTableDeleteAll();
            DropAllPreparedStatements();
            Async_UnlistenAll();
            if pg_sys::MyXactFlags as u32 & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE != 0 {
                ResetTempTableNamespace();
            }
            ResetSequenceCaches();
        })
    }
}

/// Releases advisory locks that were taken for the session: they are no transaction's, whether it committed or not.
pub fn release_advisory_locks() {
    const USER_LOCKMETHOD: u16 = 2;
    // SAFETY: looks at the locks of this process.
    unsafe { LockReleaseSession(USER_LOCKMETHOD) }
}
