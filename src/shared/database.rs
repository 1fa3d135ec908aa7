//! A database, as its scheduler and those who add jobs see it.

use super::{Restores, SharedOid};
use crate::pg::clock::{NEVER, Timestamp};
use crate::pg::latch::LatchOf;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64};

/// A database that is served, or about to be, or that must be left alone for a while.
///
/// An entry is taken and freed under the board's lock. What keeps it from being freed is set under that lock, in the same go as
/// the entry is found or taken, and read under it by [`super::Board::forget`]: so nobody's word is left on an entry that is freed
/// meanwhile.
///
/// | what keeps it | set by | cleared by |
/// |---|---|---|
/// | `scheduler_pid` | the scheduler as it begins | the scheduler as it ends, last of all; the launcher is woken after that |
/// | `holds` | a session whose statement needs the database empty, or that restores a dump | that session, which sets `wanted` first |
/// | `wanted` | a session that has committed CREATE EXTENSION or a task; one that ends a hold; the scheduler, before it ends as its extension is gone | the launcher, before it starts a scheduler |
///
/// So nothing that is committed before a scheduler begins is missed by it, and what is committed later finds `wanted` cleared, and
/// sets it: if that scheduler has seen no extension and is about to end, the launcher, woken after its end, starts another. A
/// scheduler that serves the database needs no `wanted`: it is woken, and reads the catalog. That the flag stays set until the
/// next start costs one look more, once.
///
/// All else is a hint for whoever has the entry, or the scheduler's own word while its pid is there.
pub struct DatabaseEntry {
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
    pub must_leave: AtomicBool,
    /// Set by the scheduler once it has found the extension.
    pub serving: AtomicBool,
    /// Set by the scheduler when it ends because it should, not because it failed: it found no extension, was told to
    /// leave, or the server stops.
    pub ended_in_order: AtomicBool,
    /// Set by the scheduler when it found no extension.
    pub lacks_extension: AtomicBool,
    /// Set by the scheduler while it could do something about a role that has too few idle workers.
    pub can_rebalance: AtomicBool,
    /// Set by the scheduler while a role that is short, or has no worker, waits for another's worker to become idle.
    pub wants_idle_notice: AtomicBool,
    /// Set by the scheduler while there are jobs, no worker, and no slot for one; by the launcher while there is no slot for a scheduler. Workers
    /// of other databases that become idle then say so, and their schedulers start none.
    pub starving: AtomicBool,
    /// Set by a worker that could not take a job as somebody's transaction had it locked.
    pub has_skipped_rows: AtomicBool,
    /// Set by a session that has committed what was prepared: it may have added jobs that nobody has noted. Cleared by the scheduler when
    /// it has all searched again.
    pub has_unnoted_jobs: AtomicBool,
    /// When the scheduler is to look for jobs that fall due. Lowered by whoever schedules an earlier one.
    pub next_due: AtomicI64,
    /// When the first change of schedules that the scheduler has not read yet was committed, by the wall clock. Lowered by the session that
    /// commits one, before it wakes the scheduler; taken by the scheduler before it reads them.
    pub schedules_changed: AtomicI64,
}

impl DatabaseEntry {
    /// Whether the scheduler and the workers must stay away for now.
    pub fn is_held(&self) -> bool {
        self.holds.load(SeqCst) > 0 || self.restores.is_active()
    }

    /// Lowers the time of the next look; whether it was lowered.
    pub fn lower_due(&self, when: Timestamp) -> bool {
        self.next_due.fetch_min(when, SeqCst) > when
    }

    /// Wakes whoever waits for a slot for this database.
    pub(super) fn wake_starving(&self, launcher: &LatchOf) {
        if self.scheduler_pid.load(SeqCst) == 0 {
            launcher.set();
        }
        self.scheduler.set();
    }

    pub(super) fn reset(&self, oid: Oid) {
        self.scheduler_pid.store(0, SeqCst);
        self.scheduler.is_nobodys();
        self.wanted.store(false, SeqCst);
        self.holds.store(0, SeqCst);
        self.restores.reset();
        self.fed_since.store(0, SeqCst);
        self.must_leave.store(false, SeqCst);
        self.serving.store(false, SeqCst);
        self.ended_in_order.store(false, SeqCst);
        self.lacks_extension.store(false, SeqCst);
        self.can_rebalance.store(false, SeqCst);
        self.wants_idle_notice.store(false, SeqCst);
        self.starving.store(false, SeqCst);
        self.has_skipped_rows.store(false, SeqCst);
        self.has_unnoted_jobs.store(false, SeqCst);
        self.next_due.store(NEVER, SeqCst);
        self.schedules_changed.store(NEVER, SeqCst);
        self.oid.set(oid);
    }
}
