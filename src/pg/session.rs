//! Resets what user code leaves in its session.

use super::catch::{PgError, catch};
use super::{background, dblink, version};
use pgrx::pg_sys::{self, Datum};
use std::cell::RefCell;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn PortalHashTableDeleteAll();
    fn DropAllPreparedStatements();
    fn Async_UnlistenAll();
    fn LockReleaseSession(method: u16);
    fn ResetTempTableNamespace();
    fn ResetSequenceCaches();
    fn SetPGVariable(name: *const std::ffi::c_char, values: *mut pg_sys::List, is_local: bool);
    fn ResetAllOptions();
    fn setseed(call: pg_sys::FunctionCallInfo) -> Datum;
    fn DirectFunctionCall1Coll(function: pg_sys::PGFunction, collation: pg_sys::Oid, argument: Datum) -> Datum;
}

/// Resets what a handler may have left in its transaction: cursors, LISTENs, temporary objects. Within that
/// transaction, so that other jobs that share it do not find it either. A rollback does the same.
pub fn forget() -> Result<(), PgError> {
    // SAFETY: the closure makes C calls only.
    unsafe { catch(|| forget_unguarded()) }
}

/// Resets the session as DISCARD ALL does, but for plans, which show nothing, and session locks, which [`transaction_ended`] releases. To be called
/// within a transaction. If that is rolled back, settings are nevertheless as when the session began; temporary tables
/// are there again.
pub fn reset() -> Result<(), PgError> {
    // SAFETY: the closure makes C calls only. The settings' own level, which is 1, is closed and opened again.
    unsafe {
        catch(|| {
            SetPGVariable(c"session_authorization".as_ptr(), std::ptr::null_mut(), false);
            SetPGVariable(c"role".as_ptr(), std::ptr::null_mut(), false);
            ResetAllOptions();
            pg_sys::AtEOXact_GUC(true, 1);
            pg_sys::NewGUCNestLevel();
            forget_unguarded();
            ResetTempTableNamespace();
        })
    }
}

/// Does what [`forget`] does as the transaction commits, for what deferred triggers leave.
///
/// # Safety
/// It raises by a jump, and needs a transaction that can still fail.
pub(super) unsafe fn forget_before_commit() {
    // SAFETY: the caller vouches for the transaction, which has no snapshot any more; dropping tables may read TOAST.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        forget_unguarded();
        pg_sys::PopActiveSnapshot();
    }
    dblink::disconnect();
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

/// Resets what outlives a transaction whether it commits or not: prepared statements, currval, temporary replication
/// slots, and the seed of random(). To be called after each call, as others may share its transaction.
pub fn forget_what_no_rollback_does() {
    // SAFETY: these look at this process's own memory, and raise nothing; also after an error. The seed is from -1 to
    // 1.
    unsafe {
        DropAllPreparedStatements();
        ResetSequenceCaches();
        let seed = random_bits() as i64 as f64 / i64::MIN as f64;
        DirectFunctionCall1Coll(Some(setseed), pg_sys::InvalidOid, Datum::from(seed.to_bits()));
        if has_replication_slot() {
            version::drop_temporary_replication_slots();
        }
    }
}

/// Returns true if this process has acquired a replication slot: outside a walsender's commands, a temporary one that
/// it created.
fn has_replication_slot() -> bool {
    // SAFETY: as many slots as that; which are this process's, only it changes.
    unsafe {
        let slots = usize::try_from(pg_sys::max_replication_slots).unwrap_or(0);
        let first = (&raw const (*pg_sys::ReplicationSlotCtl).replication_slots).cast::<pg_sys::ReplicationSlot>();
        (0..slots).any(|i| (&raw const (*first.add(i)).active_pid).read_volatile() == pg_sys::MyProcPid)
    }
}

/// Returns unpredictable bits. They are drawn many at a time, so that a call takes a few nanoseconds.
fn random_bits() -> u64 {
    thread_local! {
        static DRAWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    const AT_ONCE: usize = 64;
    DRAWN.with_borrow_mut(|drawn| {
        drawn.pop().unwrap_or_else(|| {
            drawn.extend(background::random::<AT_ONCE>());
            drawn.pop().unwrap_or_default()
        })
    })
}

/// Resets what user code has left once its transaction has ended, as triggers that fire at commit may leave as much as
/// a call. Session advisory locks are released only here: handlers take them to see what others have committed, and to
/// have others wait for what is committed here.
pub(super) fn transaction_ended() {
    const USER_LOCKMETHOD: u16 = 2;
    // SAFETY: as above.
    unsafe { LockReleaseSession(USER_LOCKMETHOD) }
    forget_what_no_rollback_does();
}
