//! A database, as its scheduler and those who add jobs see it.

use super::{Restores, SharedOid};
use crate::pg::clock::{NEVER, Timestamp};
use crate::pg::latch::LatchOf;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64};

/// A database that is served, or about to be, or that must be left alone for a while.
pub struct Database {
    pub oid: SharedOid,
    /// The scheduler's pid; 0 while there is none.
    pub scheduler_pid: AtomicI32,
    pub scheduler: LatchOf,
    /// Set by whoever wants it looked at: the extension was created, say.
    pub wanted: AtomicBool,
    /// How many statements need it empty: while there are any, nobody may connect.
    pub holds: AtomicI32,
    /// The dumps that are being loaded: nobody may connect either.
    pub restores: Restores,
    /// Since when, by the wall clock, the scheduler has known that a subscription feeds the queue; 0: none does.
    pub fed_since: AtomicI64,
    /// Set by the launcher: the database is no longer to be served.
    pub leave: AtomicBool,
    /// Set by the scheduler once it has found the extension.
    pub serving: AtomicBool,
    /// Set by the scheduler when it ends because it should, not because it failed: it found no extension, was told to
    /// leave, or the server stops.
    pub left: AtomicBool,
    /// Set by the scheduler when it found no extension.
    pub absent: AtomicBool,
    /// Set by the scheduler while it could do something about a role that has too few idle workers.
    pub elastic: AtomicBool,
    /// Set by the scheduler while a role that is short, or has no worker, waits for another's worker to become idle.
    pub short: AtomicBool,
    /// Set by a worker that could not take a job as somebody's transaction had it locked.
    pub skipped: AtomicBool,
    /// When the scheduler is to look for jobs that fall due. Lowered by whoever schedules an earlier one.
    pub next_due: AtomicI64,
}

impl Database {
    /// Whether the scheduler and the workers must stay away for now.
    pub fn is_held(&self) -> bool {
        self.holds.load(SeqCst) > 0 || self.restores.is_active()
    }

    /// Lowers the time of the next look; whether it was lowered.
    pub fn lower_due(&self, when: Timestamp) -> bool {
        self.next_due.fetch_min(when, SeqCst) > when
    }

    pub(super) fn reset(&self, oid: Oid) {
        self.scheduler_pid.store(0, SeqCst);
        self.scheduler.is_nobodys();
        self.wanted.store(false, SeqCst);
        self.holds.store(0, SeqCst);
        self.restores.reset();
        self.fed_since.store(0, SeqCst);
        self.leave.store(false, SeqCst);
        self.serving.store(false, SeqCst);
        self.left.store(false, SeqCst);
        self.absent.store(false, SeqCst);
        self.elastic.store(false, SeqCst);
        self.short.store(false, SeqCst);
        self.skipped.store(false, SeqCst);
        self.next_due.store(NEVER, SeqCst);
        self.oid.set(oid);
    }
}
