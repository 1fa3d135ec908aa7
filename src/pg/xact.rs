//! Transactions of background workers, and callbacks at the end of any transaction. pgrx's register_xact_callback calls
//! back before locks are released, and once only.

use super::catch::{PgError, catch};
use super::{dblink, latch, session};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

unsafe extern "C-unwind" {
    fn CommitTransactionCommand();
}

/// How far a handler that may end transactions has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    None,
    /// It runs: commits are its own.
    Running,
    /// It has returned. What it did last is not committed yet, nor is it final that its session is reset.
    Ending,
}

thread_local! {
    static STEPS: Cell<Steps> = const { Cell::new(Steps::None) };
    static IS_SPOILT: Cell<bool> = const { Cell::new(false) };
    /// The session's lock_timeout, in a transaction that may change it.
    static SESSION_LOCK_TIMEOUT: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Begins a transaction, with a snapshot for statements that only read.
pub fn begin() {
    begin_at(None);
}

/// Begins a transaction for the queue's own statements, whatever the defaults of the role or the database are.
pub fn begin_for_queue() {
    begin_at(Some(pg_sys::XACT_READ_COMMITTED));
    allow_writes();
    wait_for_locks();
}

/// Begins one as [`begin_for_queue`] does, in which no lock is waited for longer than `lock_timeout`, in milliseconds
/// (55P03). As that works like a cancel, a cancel works too.
pub fn begin_for_queue_within(lock_timeout: i32) {
    latch::let_cancel();
    begin_at(Some(pg_sys::XACT_READ_COMMITTED));
    allow_writes();
    wait_for_locks_within(lock_timeout);
}

/// Commits, and begins a transaction without a snapshot, in which user code may end transactions and begin others. They
/// commit as `synchronous_commit` says, where that is given. [`end_steps`] or [`abort`] follows.
pub fn begin_steps(synchronous_commit: Option<&std::ffi::CStr>) -> Result<(), PgError> {
    commit()?;
    STEPS.set(Steps::Running);
    // SAFETY: as in `begin_at`.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
    if let Some(value) = synchronous_commit {
        set_config(c"synchronous_commit", value, pg_sys::GucAction::GUC_ACTION_SET);
    }
    Ok(())
}

/// Resets the session that user code leaves, within its last transaction. That becomes one as [`begin`] begins it, for
/// what is to be committed together with what user code did last.
pub fn end_steps() -> Result<(), PgError> {
    // SAFETY: within a transaction, without a snapshot.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) }
    session::reset()?;
    note_lock_timeout();
    STEPS.set(Steps::Ending);
    Ok(())
}

/// Returns true if the session could not be reset after user code that ended transactions. It must end then.
pub fn is_spoilt() -> bool {
    IS_SPOILT.get()
}

/// Lets the current transaction wait for locks without limit, whatever the lock_timeout of the server or the role is:
/// the queue's own statements wait for short transactions only.
pub fn wait_for_locks() {
    // SAFETY: reads a variable.
    if unsafe { pg_sys::LockTimeout } > 0 {
        wait_for_locks_within(0);
    }
}

/// Lets statements of the current transaction wait for a lock for so many milliseconds at most; 0: without limit.
///
/// Not by a SET: from the first one of a transaction on, the end of each [`Settings`] looks at all settings there are, which
/// takes a twentieth of the time of a small job in a batch (before PostgreSQL 16).
pub fn wait_for_locks_within(lock_timeout: i32) {
    // SAFETY: the variable of a setting. The session's value is put back once the transaction has ended.
    unsafe { pg_sys::LockTimeout = lock_timeout }
}

/// Notes the session's lock_timeout, before anything in the transaction changes it, or once the session was reset.
fn note_lock_timeout() {
    // SAFETY: reads a variable.
    SESSION_LOCK_TIMEOUT.set(Some(unsafe { pg_sys::LockTimeout }));
}

/// Puts the session's lock_timeout back. To be called once Postgres has undone what was SET in the transaction: what was SET
/// after a [`wait_for_locks_within`] is undone to its value.
fn put_lock_timeout_back() {
    if let Some(lock_timeout) = SESSION_LOCK_TIMEOUT.take() {
        // SAFETY: sets the variable of a setting.
        unsafe { pg_sys::LockTimeout = lock_timeout }
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
    note_lock_timeout();
}

/// Lets the current transaction write, even if the role, the database or a handler made it read-only.
pub fn allow_writes() {
    // SAFETY: sets a variable; the next transaction starts from the default again.
    unsafe { pg_sys::XactReadOnly = false }
}

/// Returns true if transactions are READ COMMITTED and read-write by default.
pub fn defaults_are_plain() -> bool {
    // SAFETY: reads two variables.
    unsafe { pg_sys::DefaultXactIsoLevel == pg_sys::XACT_READ_COMMITTED as i32 && !pg_sys::DefaultXactReadOnly }
}

/// Returns true if each statement of the current transaction sees what was committed before it.
pub fn is_read_committed() -> bool {
    // SAFETY: reads a variable.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_READ_COMMITTED as i32 }
}

/// Returns true if the current transaction is in no subtransaction.
pub fn is_at_top() -> bool {
    // SAFETY: within a transaction.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() == 1 }
}

/// Returns true for the current transaction and its subtransactions that were not rolled back.
pub fn is_mine(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: looks at the state of the transaction.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xid) }
}

/// Lets this transaction's commit return before its WAL is flushed, for changes that a crash may lose.
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

/// Sets a setting as SET LOCAL does.
pub fn set_local(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    set_config(name, value, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

fn set_config(name: &std::ffi::CStr, value: &std::ffi::CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: as SET does; within a transaction, whose rollback undoes it.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Returns false if CREATE FUNCTION does not check bodies: dumps turn the check off, and hardly any other session does.
pub fn checks_function_bodies() -> bool {
    // SAFETY: reads a variable.
    unsafe { pg_sys::check_function_bodies }
}

/// Commits. After an error (of a deferred constraint, for example) the caller must still [`abort`].
pub fn commit() -> Result<(), PgError> {
    // SAFETY: pairs the snapshot of `begin`; the closure is one C call.
    unsafe {
        pg_sys::PopActiveSnapshot();
        catch(|| CommitTransactionCommand())?;
    }
    put_lock_timeout_back();
    STEPS.set(Steps::None);
    latch::hold_cancels();
    session::transaction_ended();
    Ok(())
}

/// Rolls back.
pub fn abort() {
    dblink::disconnect();
    let had_steps = STEPS.replace(Steps::None) != Steps::None;
    // SAFETY: valid in any state of a transaction. User code may have left an explicit block, and cursors that it held
    // over a commit.
    unsafe {
        if had_steps {
            pg_sys::AbortOutOfAnyTransaction();
            pg_sys::PortalErrorCleanup();
        } else {
            pg_sys::AbortCurrentTransaction();
        }
    }
    put_lock_timeout_back();
    latch::hold_cancels();
    session::transaction_ended();
    if had_steps {
        begin();
        // What it has committed is no part of what was rolled back.
        let reset = session::reset();
        note_lock_timeout();
        if reset.and_then(|()| commit()).is_err() {
            IS_SPOILT.set(true);
            abort();
        }
    }
}

/// While it exists, settings can be changed. Dropping it restores all of them, plain SET included.
pub struct Settings(i32);

impl Settings {
    pub fn keep() -> Settings {
        // SAFETY: opens a nest level, closed in `drop`.
        Settings(unsafe { pg_sys::NewGUCNestLevel() })
    }

    /// Opens one and changes a setting.
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
    static ENDS: RefCell<Vec<fn(committed: bool)>> = const { RefCell::new(Vec::new()) };
    static COMMITTED: Cell<bool> = const { Cell::new(false) };
}

/// Calls `end` at the end of every transaction of this backend, committed or not, but not at PREPARE TRANSACTION. It
/// must not raise, as an error at that point takes the server down.
///
/// After a commit, it is called later than commit callbacks are: the changes are visible, the invalidation messages
/// sent, and the locks released. A process that is woken sees all of it.
///
/// A function that is registered again is called once. Several are called in the order in which they were registered.
pub fn at_end(end: fn(committed: bool)) {
    let is_first = ENDS.with_borrow_mut(|ends| {
        let is_first = ends.is_empty();
        if !ends.iter().any(|&known| std::ptr::fn_addr_eq(known, end)) {
            ends.push(end);
        }
        is_first
    });
    if is_first {
        // SAFETY: registered once for the life of the backend.
        unsafe {
            pg_sys::RegisterXactCallback(Some(xact_event), std::ptr::null_mut());
            pg_sys::RegisterResourceReleaseCallback(Some(resources_released), std::ptr::null_mut());
        }
    }
}

/// Resets, in each transaction of this process as it commits, what was left in its session and everything that was SET:
/// by a deferred trigger, for example.
pub fn forget_before_commit() {
    unsafe extern "C-unwind" fn before_commit(event: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
        if event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT || STEPS.get() == Steps::Running {
            return;
        }
        const KEPT: &std::ffi::CStr = c"synchronous_commit";
        // SAFETY: the transaction can still fail. Closes its own level, which is 1, and opens it again. What the commit
        // itself goes by stays: its name is one of a few words that Postgres has.
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
    if phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && is_top_level {
        let committed = COMMITTED.replace(false);
        // None of these functions registers another.
        ENDS.with_borrow(|ends| ends.iter().for_each(|end| end(committed)));
    }
}

/// While it exists, statements that only read see everything committed so far, even in a REPEATABLE READ transaction.
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

/// Returns how many subtransactions of the current transaction the server shows to all sessions: those that have
/// written and were not rolled back. With more than [`MOST_SUBTRANSACTIONS`], every session has to look up to whom they
/// belong.
pub fn subtransactions() -> usize {
    // SAFETY: this process's own entry, which only it changes.
    unsafe { usize::from((*pg_sys::MyProc).subxidStatus.count) }
}

/// PGPROC_MAX_CACHED_SUBXIDS.
pub const MOST_SUBTRANSACTIONS: usize = 64;

/// Runs `f` in a subtransaction, which is rolled back if it fails. `f` must read a [`PgError`] itself, as its text is
/// freed by the rollback.
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
