//! Transactions of a background worker, and what every backend does at the end of one.

use super::catch::{PgError, catch};
use super::{dblink, latch, session};
use pgrx::pg_sys;
use std::cell::Cell;

unsafe extern "C-unwind" {
    fn CommitTransactionCommand();
}

/// Begins a transaction of ours, with a snapshot for what only reads.
pub fn begin() {
    begin_at(None);
}

/// Begins a transaction for a statement of the queue's, whatever defaults the role or the database has set.
pub fn begin_for_queue() {
    begin_at(Some(pg_sys::XACT_READ_COMMITTED));
    allow_writes();
    wait_for_locks();
}

/// As [`begin_for_queue`], but nobody's lock is waited for any longer than `lock_timeout`: 55P03. That works as a cancel does,
/// so that a cancel works too.
pub fn begin_for_queue_within(lock_timeout: &std::ffi::CStr) {
    latch::let_cancel();
    begin_at(Some(pg_sys::XACT_READ_COMMITTED));
    allow_writes();
    set_local(c"lock_timeout", lock_timeout);
}

/// Lets the current transaction wait for locks as long as it takes, whatever lock_timeout the server or the role has set: our
/// statements wait for short transactions only.
pub fn wait_for_locks() {
    // SAFETY: reads a variable.
    if unsafe { pg_sys::LockTimeout } > 0 {
        set_local(c"lock_timeout", c"0");
    }
}

fn begin_at(isolation: Option<u32>) {
    // SAFETY: called by a background worker outside a transaction; no snapshot is taken yet when the level is set.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        if let Some(level) = isolation {
            pg_sys::XactIsoLevel = level as i32;
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

/// Lets the current transaction write, even if the role, the database or a handler made it read-only.
pub fn allow_writes() {
    // SAFETY: sets a variable; the next transaction starts from the default again.
    unsafe { pg_sys::XactReadOnly = false }
}

/// Whether transactions begin READ COMMITTED and may write, unless told otherwise.
pub fn defaults_are_plain() -> bool {
    // SAFETY: reads two variables.
    unsafe { pg_sys::DefaultXactIsoLevel == pg_sys::XACT_READ_COMMITTED as i32 && !pg_sys::DefaultXactReadOnly }
}

/// Lets this transaction's commit return before its WAL is flushed: for what may be lost in a crash.
pub fn commit_lazily() {
    set_local(c"synchronous_commit", c"off");
}

/// Lets this transaction's commit wait for no standby: for a process that others wait for.
pub fn commit_here() {
    // SAFETY: reads a variable.
    if unsafe { pg_sys::synchronous_commit } > pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_LOCAL_FLUSH as i32 {
        set_local(c"synchronous_commit", c"local");
    }
}

/// SET LOCAL.
pub fn set_local(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: GUC_ACTION_LOCAL is undone at the end of the transaction.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// Whether CREATE FUNCTION checks bodies: dumps, and hardly anybody else, turn that off for their session.
pub fn checks_function_bodies() -> bool {
    // SAFETY: reads a variable.
    unsafe { pg_sys::check_function_bodies }
}

/// Commits. On an error (a deferred constraint, say) the transaction is still to be [`abort`]ed.
pub fn commit() -> Result<(), PgError> {
    // SAFETY: pairs the snapshot of `begin`; the closure is one C call.
    unsafe {
        pg_sys::PopActiveSnapshot();
        catch(|| CommitTransactionCommand())?;
    }
    latch::hold_cancels();
    session::transaction_ended();
    Ok(())
}

/// Rolls back.
pub fn abort() {
    dblink::disconnect();
    // SAFETY: valid in any state of a transaction.
    unsafe { pg_sys::AbortCurrentTransaction() }
    latch::hold_cancels();
    session::transaction_ended();
}

/// While it lives, settings can be changed; all of them are put back when it is dropped, plain SET included.
pub struct Settings(i32);

impl Settings {
    pub fn keep() -> Settings {
        // SAFETY: opens a nest level, closed in `drop`.
        Settings(unsafe { pg_sys::NewGUCNestLevel() })
    }

    /// Opens one with a setting changed.
    pub fn with(name: &std::ffi::CStr, value: &std::ffi::CStr) -> Settings {
        let settings = Settings::keep();
        set_local(name, value);
        settings
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // SAFETY: closes our level and any above it; "not committed" is what puts plain SETs back too.
        unsafe { pg_sys::AtEOXact_GUC(false, self.0) }
    }
}

thread_local! {
    static END: Cell<Option<fn(committed: bool)>> = const { Cell::new(None) };
    static COMMITTED: Cell<bool> = const { Cell::new(false) };
}

/// Has `end` called at the end of every transaction of this backend, committed or not (PREPARE TRANSACTION is not). It
/// must not raise: at that point an error takes the server down.
///
/// After a commit this is later than the commit callback: what was done is visible, others have been sent its
/// invalidation messages, and its locks are released. Whoever is woken finds all of it.
pub fn at_end(end: fn(committed: bool)) {
    if END.replace(Some(end)).is_none() {
        // SAFETY: registered once for the life of the backend.
        unsafe {
            pg_sys::RegisterXactCallback(Some(xact_event), std::ptr::null_mut());
            pg_sys::RegisterResourceReleaseCallback(Some(resources_released), std::ptr::null_mut());
        }
    }
}

/// Has every transaction of this process forget, as it commits, what was left in its session, and put back all that was SET: by
/// a trigger that is fired then, say.
pub fn forget_before_commit() {
    unsafe extern "C-unwind" fn before_commit(event: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
        if event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
            return;
        }
        const KEPT: &std::ffi::CStr = c"synchronous_commit";
        // SAFETY: the transaction can still fail. Closes its own level, which is 1, and opens it again. What the commit itself
        // goes by stays: its name is one of a few words that Postgres has.
        unsafe {
            session::forget_before_commit();
            let (before, name) = (pg_sys::synchronous_commit, pg_sys::GetConfigOption(KEPT.as_ptr(), false, false));
            pg_sys::AtEOXact_GUC(false, 1);
            pg_sys::NewGUCNestLevel();
            if pg_sys::synchronous_commit != before {
                set_local(KEPT, std::ffi::CStr::from_ptr(name));
            }
        }
    }
    // SAFETY: called once in a process.
    unsafe { pg_sys::RegisterXactCallback(Some(before_commit), std::ptr::null_mut()) }
}

unsafe extern "C-unwind" fn xact_event(event: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
    COMMITTED.set(event == pg_sys::XactEvent::XACT_EVENT_COMMIT);
}

unsafe extern "C-unwind" fn resources_released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _: *mut std::ffi::c_void,
) {
    if phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS
        && is_top_level
        && let Some(end) = END.get()
    {
        end(COMMITTED.replace(false));
    }
}

/// While it lives, what only reads sees everything committed so far, even in a REPEATABLE READ transaction.
pub struct LatestSnapshot(());

impl LatestSnapshot {
    pub fn take() -> LatestSnapshot {
        // SAFETY: within a transaction; popped in `drop`.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        LatestSnapshot(())
    }
}

impl Drop for LatestSnapshot {
    fn drop(&mut self) {
        // SAFETY: ours is the one on top: what is pushed above it is popped, or the transaction fails, first.
        unsafe {
            if pg_sys::ActiveSnapshotSet() {
                pg_sys::PopActiveSnapshot();
            }
        }
    }
}

/// How many subtransactions of the current transaction everybody is told of: those that have written, and were not rolled
/// back. Past [`MOST_SUBTRANSACTIONS`], every session has to look up whose they are.
pub fn subtransactions() -> usize {
    // SAFETY: this process's own entry, which only it changes.
    unsafe { usize::from((*pg_sys::MyProc).subxidStatus.count) }
}

/// PGPROC_MAX_CACHED_SUBXIDS.
pub const MOST_SUBTRANSACTIONS: usize = 64;

/// Runs `f` in a subtransaction, rolled back if it fails. What a [`PgError`] says is gone by then: `f` reads it.
pub fn in_subtransaction<T, E>(f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // SAFETY: begin is paired with release or rollback, and context and owner are put back, as plpgsql does.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = f();
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}
