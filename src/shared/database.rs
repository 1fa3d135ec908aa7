//! A database, as its scheduler, the launcher and sessions see it.

use super::counters::Rate;
use super::protocols::{Attendance, NextDue, Request};
use super::{Restores, SharedOid};
use crate::pg::clock::{NEVER, Tick, Timestamp};
use crate::pg::latch::LatchOf;
use pgrx::pg_sys::{InvalidOid, Oid};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64};

/// A database that is served, or about to be, or that must be left alone for a while.
///
/// Entries are taken and freed under the board's lock. Three things keep an entry from being freed. Each is set under
/// that lock, together with finding or taking the entry, and [`super::Board::forget`] reads all three under it. So what
/// a process has set there stays on the entry until that process, or the one it is for, clears it.
///
/// | what keeps an entry | set by | cleared by |
/// |---|---|---|
/// | the scheduler's pid, in `attendance` | the scheduler as it begins | the scheduler as it ends, last of all; then it wakes the launcher |
/// | `holds`, `restores` | a session whose statement needs the database empty, or that restores a dump | that session, which sets `wanted` first |
/// | `wanted`, in `attendance` | a session that has committed CREATE EXTENSION or a task; one that has committed a job while the database is watched; one that ends a hold; a scheduler whose extension is gone, or that gives its slot to another database, before it ends | the launcher, before it starts a scheduler, or where the database is not to be served; a scheduler that hands over |
///
/// A database that is watched keeps its entry too: only the launcher forgets entries, and not those.
///
/// [`Attendance`] says why no CREATE EXTENSION is missed by a scheduler that ends at that moment. A scheduler that
/// serves the database is woken, and reads the catalog; `wanted` then stays set until the next start, and costs one
/// look more, once.
///
/// Processes find an entry without the lock, by its OID. It may be freed and taken for another database before they
/// write to it. That is harmless for all fields below the first two, because each is a hint: the other database's
/// scheduler is woken for nothing, and the database that was meant has no scheduler, whose first pass looks at
/// everything anyway.
///
/// While a scheduler's pid is there, the entry's other fields are the scheduler's, unless they say otherwise. A
/// scheduler that crashes leaves them as they are; the server then restarts with an empty board.
pub struct DatabaseEntry {
    /// Written under the board's lock; read by everyone.
    pub oid: SharedOid,
    /// Whether there is a scheduler, and whether one is wanted.
    pub attendance: Attendance,
    /// The role of a job for which a session wants the database, so that the launcher starts a worker beside the scheduler;
    /// invalid if none is known. Set with `wanted`, and taken by the launcher with it, under the board's lock; forgotten by a
    /// scheduler that hands over.
    pub wanted_role: SharedOid,
    /// The scheduler's latch. Written by the scheduler, after its pid and before it first looks at `holds` and
    /// `restores`; set by everyone. A process that sees the pid but no latch yet need not wake it: the scheduler looks
    /// at everything before it first sleeps.
    pub scheduler: LatchOf,
    /// How many sessions run a statement that needs the database empty. While there are any, no kongtask process
    /// connects. Counted by those sessions, under the board's lock; read by launcher, scheduler and workers.
    ///
    /// A session counts itself first and then waits for the scheduler's pid to go; a scheduler stores its pid first and
    /// then looks here. Both do the former under the board's lock, so at least one sees the other.
    pub holds: AtomicI32,
    /// The dumps that are being loaded. While there are any, no kongtask process connects either.
    pub restores: Restores,
    /// Since when, by the wall clock, a subscription has fed the queue, as far as the scheduler knows; 0 while none
    /// does. Written by the scheduler; read by `kongtask.holds`.
    pub fed_since: AtomicI64,
    /// Tells the scheduler to end: the database is no longer to be served. Set by the launcher, which then sets the
    /// scheduler's latch; cleared by the launcher before it starts another. Read by the scheduler before each pass.
    pub must_leave: AtomicBool,
    /// Tells the scheduler that the launcher has started it to have a look: it may leave as soon as it finds nothing to
    /// do. Written by the launcher before it starts the scheduler.
    pub is_routine: AtomicBool,
    /// True if the scheduler that left last had nothing to do, so that all that ended processes held is released. Written by
    /// the scheduler as it leaves; read by the launcher while it watches the database; taken by the next scheduler.
    pub was_at_rest: AtomicBool,
    /// True while the scheduler has nothing to do and no worker, and only waits. Written by the scheduler after each
    /// pass; read by databases that wait for a slot.
    pub is_idle: AtomicBool,
    /// Asks the scheduler to give its slot to a database that has waited for longer. Set by the process that waits,
    /// which then sets the scheduler's latch; taken by the scheduler in its next pass, which does so unless it has a
    /// worker.
    pub gives_way: AtomicBool,
    /// When the schedules of a database that is watched are due next. Written by the scheduler before it hands over;
    /// read by the launcher and by the next scheduler.
    pub fires_at: AtomicI64,
    /// Since when the database has been watched, by the wall clock. Written and read by its schedulers.
    pub left_at: AtomicI64,
    /// True once the scheduler has found the extension, until it ends. Written by the scheduler, which wakes the
    /// launcher afterwards, because the launcher lets only a few schedulers find out at once.
    pub serving: AtomicBool,
    /// True if the scheduler ended because it should, and not because it failed: it found no extension, was told to
    /// leave, or the server stops. Set by the scheduler before its process ends; read by the launcher once the
    /// postmaster says that it has ended, and cleared by the launcher before it starts another.
    pub ended_in_order: AtomicBool,
    /// True if the scheduler found no extension. Handed over as `ended_in_order` is.
    pub lacks_extension: AtomicBool,
    /// The scheduler's request to be woken by commits that find too few idle workers: it could start one, or have
    /// another role give up a slot. Written by the scheduler after each pass; read by sessions at commit, after their
    /// jobs are on the ready list.
    pub can_rebalance: Request,
    /// The scheduler's request to be woken by workers that become idle: an understaffed role, or one without a worker,
    /// waits for another role's slot. Written by the scheduler after each pass; read by workers that have gone Idle.
    pub wants_idle_notice: Request,
    /// Since which tick the database has had jobs, no worker and no slot for one (written by the scheduler), or no slot
    /// for a scheduler (written by the launcher while there is no scheduler); 0 while it has what it needs. A scheduler
    /// that gives its slot away leaves it to the launcher as it is. Read by workers of other databases that have gone Idle, which wake both, and by
    /// other schedulers and the launcher: the database that has waited for longest gets the next slot.
    ///
    /// The writer sets it first and then looks for an idle worker; a worker goes Idle first and then looks here. Both
    /// accesses of both are SeqCst, so at least one sees the other. The writer also tries again every 50 ms, because
    /// nothing tells of a slot that the postmaster has freed.
    pub starving_since: AtomicI64,
    /// True if it is a background worker slot that the database waits for; false if kongtask.max_workers is reached.
    /// Written before `starving_since`, by the same process.
    pub needs_slot: AtomicBool,
    /// True if a worker has noted a job on its ready list that it skipped. Set by that worker, which sets the scheduler's latch
    /// if it was clear, and by the scheduler. Cleared by the scheduler at the end of a pass, which puts the time down at which
    /// it takes those jobs from the lists, to search for them. A flag that is set later is seen by the next pass, which that
    /// latch has begun.
    pub has_skipped_jobs: AtomicBool,
    /// True if a process has passed over jobs that it could note nowhere. Set by workers, which then set the scheduler's
    /// latch, and by the scheduler; cleared as `has_skipped_jobs` by the scheduler, which searches the whole table then.
    pub has_skipped_rows: AtomicBool,
    /// True if a transaction that was prepared has been committed: it may have added jobs that no session has noted.
    /// Set by the session that ran COMMIT PREPARED, after the commit; the one that finds it clear sets the scheduler's
    /// latch. Cleared by the scheduler before it has everything searched, so that a commit which sets it later is
    /// searched for again.
    pub has_unnoted_jobs: AtomicBool,
    /// How many jobs were completed of late. Written by workers; read by `kongtask.overview`.
    pub finished: Rate,
    /// True if a commit has added jobs of a role that has no ready list, as it has no worker. Set by the session, which
    /// then sets the scheduler's latch; by the last worker of a role that leaves jobs on its list. Cleared by the
    /// scheduler before it searches for jobs of such roles. Set by the scheduler after a pass that has found some, while it
    /// can start no worker: then commits do not wake it.
    pub has_unlisted_jobs: AtomicBool,
    /// True if a process has begun to write to another table of kongtask.runs, which the scheduler is to close in time.
    /// Set by that process, which then sets the scheduler's latch; cleared by the scheduler before it looks.
    pub has_new_runs: AtomicBool,
    /// When the scheduler is to look for jobs that fall due.
    pub next_due: NextDue,
    /// The tick at which the scheduler is to look for jobs that wait for the time of their limits. Lowered by the worker
    /// that notes such a job, before it wakes the scheduler; taken by the scheduler before it looks.
    pub next_start: NextDue,
    /// When the first change of schedules that the scheduler has not read yet was committed, by the wall clock; `NEVER`
    /// if there is none. Lowered by the session that commits one, before it wakes the scheduler; taken by the scheduler
    /// before it reads them.
    pub schedules_changed: AtomicI64,
}

impl DatabaseEntry {
    /// Returns true while scheduler and workers must stay away.
    pub fn is_held(&self) -> bool {
        self.holds.load(SeqCst) > 0 || self.restores.is_active()
    }

    /// Says that the database waits for a slot, or for one of kongtask.max_workers, or that it does not. Returns since
    /// when.
    pub fn starve(&self, needs_slot: Option<bool>, now: Tick) -> Tick {
        match needs_slot {
            Some(needs_slot) => {
                self.needs_slot.store(needs_slot, SeqCst);
                let began = self.starving_since.compare_exchange(0, now, SeqCst, SeqCst);
                began.err().unwrap_or(now)
            }
            None => {
                self.starving_since.store(0, SeqCst);
                now
            }
        }
    }

    pub fn is_starving(&self) -> bool {
        self.starving_since.load(SeqCst) != 0
    }

    /// Returns when a scheduler is to be there again, as far as is known, by the wall clock. For the launcher, while it
    /// watches the database.
    pub fn is_due_at(&self) -> Timestamp {
        self.next_due.get().min(self.fires_at.load(SeqCst))
    }

    /// Wakes the process that waits for a slot for this database: its scheduler, or the launcher if it has none.
    pub(super) fn wake_starving(&self, launcher: &LatchOf) {
        if !self.attendance.has_scheduler() {
            launcher.set();
        }
        self.scheduler.set();
    }

    /// Takes the entry for a database. The board's lock is held; the OID is written last, as processes look for it
    /// without that lock.
    pub(super) fn reset(&self, oid: Oid) {
        self.attendance.end();
        self.scheduler.disown();
        self.attendance.take();
        self.attendance.take_back();
        self.wanted_role.set(InvalidOid);
        self.was_at_rest.store(false, SeqCst);
        self.is_routine.store(false, SeqCst);
        self.is_idle.store(false, SeqCst);
        self.gives_way.store(false, SeqCst);
        self.fires_at.store(NEVER, SeqCst);
        self.left_at.store(NEVER, SeqCst);
        self.holds.store(0, SeqCst);
        self.restores.reset();
        self.fed_since.store(0, SeqCst);
        self.must_leave.store(false, SeqCst);
        self.serving.store(false, SeqCst);
        self.ended_in_order.store(false, SeqCst);
        self.lacks_extension.store(false, SeqCst);
        self.can_rebalance.clear();
        self.wants_idle_notice.clear();
        self.starving_since.store(0, SeqCst);
        self.has_skipped_jobs.store(false, SeqCst);
        self.has_skipped_rows.store(false, SeqCst);
        self.has_unnoted_jobs.store(false, SeqCst);
        self.finished.reset();
        self.has_unlisted_jobs.store(false, SeqCst);
        self.has_new_runs.store(false, SeqCst);
        self.next_due.reset();
        self.next_start.reset();
        self.schedules_changed.store(NEVER, SeqCst);
        self.oid.set(oid);
    }
}
