//! How processes wake each other. Each type is one protocol: what one side does, what the other side does, and the
//! order in which each must do it. Nothing here needs Postgres, so that `models/` can run this very code under loom.
//!
//! All of them answer one question: process A looks for something, finds nothing, and sleeps; process B makes it, and
//! tells only those that sleep. What if B makes it after A has looked, and looks at A before A sleeps? The answer is
//! always the same. A says first that it is to be told, and looks afterwards; B makes it first, and looks afterwards
//! whether A is to be told. So at least one of the two sees what the other did.
//!
//! That needs A's store to be seen before A's look, and B's before B's. Where both sides look by taking the same lock
//! (a ready list's, or Postgres's own for commits and snapshots), the lock sees to that. Elsewhere a `fence` on either
//! side does, and names its partner. The accesses beside it are SeqCst, as everywhere in `shared`: none is on a path
//! where a weaker one could be measured, and the reader need not ask which suffices.

use super::sync::Ordering::SeqCst;
use super::sync::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, fence};

/// What a worker does. Beside each state: who leaves it, and for which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// The slot is unused. The scheduler takes it, under the board's lock: Starting.
    Free,
    /// The scheduler has asked the postmaster for a process. The process, once it has connected: Looking. The
    /// scheduler, if the process never begins: Gone, then Free.
    Starting,
    /// Looking for a job. The worker: Running or Idle.
    Looking,
    /// Asleep, or about to be once it has found its role's ready list still empty. Another process that adds work, and
    /// sets the worker's latch; or the worker itself, when it wakes for another reason: Looking.
    Idle,
    /// Running a handler. The worker: Looking.
    Running,
    /// The process has ended. The scheduler, once it has released what the worker held: Free.
    Gone,
}

impl State {
    fn from(code: u8) -> State {
        use State::{Free, Gone, Idle, Looking, Running, Starting};
        [Free, Starting, Looking, Idle, Running, Gone][usize::from(code)]
    }
}

/// How a worker's sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slept {
    /// There is something to do, or another process says so.
    ForWork,
    /// Its time was over, or its latch was set for another reason.
    Undisturbed,
}

/// The state of a worker, and with it who sees to it that the worker looks again: while it is Idle, the process that
/// adds work for it; in any other state, the worker itself.
#[derive(Debug, Default)]
pub struct WorkerState(AtomicU8);

impl WorkerState {
    pub fn get(&self) -> State {
        State::from(self.0.load(SeqCst))
    }

    pub fn set(&self, state: State) {
        self.0.store(state as u8, SeqCst);
    }

    pub fn change(&self, from: State, to: State) -> bool {
        self.0.compare_exchange(from as u8, to as u8, SeqCst, SeqCst).is_ok()
    }

    /// Sleeps until the worker may have something to do. For the worker: goes Idle, has it `look` once more whether there is
    /// something, and if not, `wait` until its latch is set.
    ///
    /// A session that adds work puts it on the ready list and then calls [`WorkerState::wake`]. Both take the list's
    /// lock: if the session has it after this worker's look, the session finds the worker Idle.
    ///
    /// A worker that slept undisturbed may end instead of looking again. A session that comes then does not find it
    /// Idle, and so tells the scheduler that a worker is missing.
    pub fn sleep<E>(&self, look: impl FnOnce() -> Result<bool, E>, wait: impl FnOnce()) -> Result<Slept, E> {
        self.set(State::Idle);
        // Pairs with the fence in `Request::set`, for what `look` tells of the idle worker.
        fence(SeqCst);
        let found = look()?;
        if !found {
            wait();
        }
        // Unless another process has woken this one, which has changed the state already.
        let undisturbed = self.change(State::Idle, State::Looking);
        Ok(if undisturbed && !found { Slept::Undisturbed } else { Slept::ForWork })
    }

    /// Wakes the worker if it is Idle: from then on it is the worker that looks for work. Returns true if it was Idle.
    /// For processes that have put work on the worker's ready list before.
    ///
    /// One process at most succeeds for each sleep, so that two jobs wake two workers.
    pub fn wake(&self, set_latch: impl FnOnce()) -> bool {
        let was_idle = self.change(State::Idle, State::Looking);
        if was_idle {
            set_latch();
        }
        was_idle
    }
}

/// A request of the scheduler's to be woken when something happens that does not concern it mostly: a worker becomes
/// idle, a commit finds too few idle workers. Written by the scheduler, read by those processes.
#[derive(Debug, Default)]
pub struct Request(AtomicBool);

impl Request {
    /// Sets or clears the request; for the scheduler. A request that is new calls `look_again`: no process has told of
    /// what happened before it was set.
    pub fn set(&self, wanted: bool, look_again: impl FnOnce()) {
        let was_set = self.0.swap(wanted, SeqCst);
        if wanted && !was_set {
            // Pairs with the fences in `Request::is_set` and `WorkerState::sleep`.
            fence(SeqCst);
            look_again();
        }
    }

    /// Clears the request.
    pub fn clear(&self) {
        self.0.store(false, SeqCst);
    }

    /// Returns true if the scheduler is to be woken. For processes that have made the thing happen before: gone Idle,
    /// or put jobs on the ready list.
    pub fn is_set(&self) -> bool {
        // Pairs with the fence in `Request::set`.
        fence(SeqCst);
        self.0.load(SeqCst)
    }
}

/// The time at which the scheduler is to look for jobs that fall due.
///
/// A session that has committed a job for later lowers it, and wakes the scheduler if it did. The scheduler takes the
/// time before it looks at the table, and lowers it afterwards to what it found there. A commit that the scheduler's
/// snapshot does not show comes after that snapshot, and so finds the time taken: it lowers it, and wakes the
/// scheduler. (Postgres's lock for commits and snapshots orders the two.)
#[derive(Debug, Default)]
pub struct NextDue(AtomicI64);

impl NextDue {
    /// No time at all.
    pub const NEVER: i64 = i64::MAX;

    /// Lowers the time. Returns true if it was lowered: then the scheduler must be woken. For sessions, after their
    /// commit, and for the scheduler.
    pub fn lower(&self, when: i64) -> bool {
        self.0.fetch_min(when, SeqCst) > when
    }

    /// Returns the time and forgets it; for the scheduler, before its snapshot.
    pub fn take(&self) -> i64 {
        self.0.swap(NextDue::NEVER, SeqCst)
    }

    /// Returns the time until which the scheduler may sleep. It need not be the latest: a session that lowers it has
    /// set the scheduler's latch, or is about to.
    pub fn get(&self) -> i64 {
        self.0.load(SeqCst)
    }

    /// Forgets the time, in an entry that is taken for a database.
    pub fn reset(&self) {
        self.0.store(NextDue::NEVER, SeqCst);
    }
}

/// Which process a session wakes that wants a database looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attendant {
    Scheduler,
    Launcher,
}

/// Whether a database has a scheduler, whether it wants one, and whether the launcher watches it in the scheduler's
/// place.
///
/// **A database that wants a scheduler gets one.** A session that has committed CREATE EXTENSION sets `wanted` and then
/// looks for a scheduler. A scheduler that has found no extension clears its pid, and then wakes the launcher, which
/// looks at `wanted`. So a session that still sees the pid has set `wanted` before the launcher looks; and one that does
/// not wakes the launcher itself.
///
/// **No commit is lost on a scheduler that leaves.** A scheduler that has nothing to do hands its database over to the
/// launcher: it sets `watched`, and then looks once more at everything, by a snapshot that it takes after that. A session
/// commits first, and then looks at `watched`: where it is set, the database is wanted. (Postgres's lock for commits and
/// snapshots orders the two.) So at least one sees the other: a commit that the scheduler's last look does not show
/// finds the database watched. A scheduler that finds something takes the database back, and goes on.
///
/// ```text
///   no scheduler ── the launcher starts one ──► it looks at everything ──► served ──► nothing to do ──► watched
///        ▲                                        (watched: cleared)         ▲                            │
///        │                                                                   └── the last look has found ─┤
///        └── a commit wants it, the next due time has come, or it is to be looked at ◄── the process ends ┘
/// ```
///
/// `want` and `begin` are called under the board's lock, which also guards the entry that this is a part of; all else
/// without.
#[derive(Debug, Default)]
pub struct Attendance {
    wanted: AtomicBool,
    watched: AtomicBool,
    scheduler_pid: AtomicI32,
}

impl Attendance {
    /// Has the database looked at: by the scheduler it has, or by a new one. For sessions, and for a scheduler whose
    /// extension is gone. Afterwards [`Attendance::attendant`] must be woken.
    pub fn want(&self) {
        self.wanted.store(true, SeqCst);
    }

    /// Returns the process to wake once the database is wanted.
    pub fn attendant(&self) -> Attendant {
        // Pairs with the fence in `Attendance::end`.
        fence(SeqCst);
        if self.has_scheduler() { Attendant::Scheduler } else { Attendant::Launcher }
    }

    /// Drops the wish. For the launcher: before it starts a scheduler, which will see all that was committed until now;
    /// and where the database is not to be served. Returns true if the database was wanted.
    pub fn take(&self) -> bool {
        self.wanted.swap(false, SeqCst)
    }

    /// Says that this process is the scheduler; before it looks at the catalog.
    pub fn begin(&self, pid: i32) {
        self.scheduler_pid.store(pid, SeqCst);
    }

    /// Says that the scheduler ends, and that it will look at nothing any more. Then it must wake the launcher.
    pub fn end(&self) {
        self.scheduler_pid.store(0, SeqCst);
        // Pairs with the fence in `Attendance::attendant`.
        fence(SeqCst);
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Has the launcher watch the database from now on. For a scheduler that has nothing to do; it must look at
    /// everything once more before it ends.
    pub fn hand_over(&self) {
        // Whoever wanted something until now has committed it before.
        self.wanted.store(false, SeqCst);
        self.watched.store(true, SeqCst);
        // Pairs with the fence in `Attendance::is_watched`, for what sessions publish in shared memory only.
        fence(SeqCst);
    }

    /// Ends the watch, if there is one. For the scheduler, before its first look, or as its last one has found something
    /// to do; and where no process may come. Returns true if the database was watched.
    pub fn take_back(&self) -> bool {
        self.watched.swap(false, SeqCst)
    }

    /// Returns true if there is no scheduler that will look again by itself: what is to be done makes the database
    /// wanted. For sessions, after their commit.
    pub fn is_watched(&self) -> bool {
        // Pairs with the fence in `Attendance::hand_over`.
        fence(SeqCst);
        self.watched.load(SeqCst)
    }

    pub fn has_scheduler(&self) -> bool {
        self.scheduler_pid.load(SeqCst) != 0
    }
}
