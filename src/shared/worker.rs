//! A worker process, as others see it: a slot on the board, which one process after another uses.

use super::SharedOid;
use super::limits::LimitHolds;
use super::protocols::{Slept, State, WorkerState};
use crate::pg::clock::{self, NEVER, Tick, after};
use crate::pg::latch::LatchOf;
use crate::pg::text::{self, DbText};
use crate::shared::ready_list::{Hint, Position};
use pgrx::pg_sys::InvalidOid;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, fence};
use std::time::Duration;

/// The slot of a worker process. Three processes own it in turn:
///
/// - While it is Free, its database's future scheduler: the one that takes the slot, under the board's lock. (The launcher takes
///   it for a worker that it starts beside the scheduler.)
/// - From Starting on, the worker process, once it has found its own ticket there. Until then the scheduler may give the start
///   up, if the postmaster says that the process is gone, or after ten seconds.
/// - Once it is Gone, the scheduler of its database: it releases what the worker held, and frees the slot. Where the database is
///   gone, the launcher frees it.
///
/// The owner writes all fields, but for the three that say otherwise. Each owner stores the state last, so that the
/// next one, which reads the state first, sees everything else. A worker whose process is killed without ending in
/// order never becomes Gone: the server restarts then, with an empty board, and crash records tell what ran.
pub struct Worker {
    state: WorkerState,
    /// Written by the scheduler; read by everyone.
    pub database: SharedOid,
    /// Written by the scheduler; read by everyone.
    pub role: SharedOid,
    /// 0 until the process has begun. Written by the worker; read by everyone.
    pub pid: AtomicI32,
    /// Written by the worker; set by everyone. A process that finds none need not wake the worker: it looks at
    /// `must_leave` and at its ready list before it first sleeps.
    pub latch: LatchOf,
    /// Distinguishes the processes that use this slot one after another. Written by the scheduler; the worker compares
    /// it with the one that it was started with.
    pub ticket: AtomicU32,
    /// Asks the worker to end after the job it runs. Set by the scheduler of its database, or by one of another
    /// database that waits for a slot, either of which then sets the worker's latch; by the worker itself where it ends
    /// in order, or has been idle for long. Cleared by the scheduler that takes the slot. Read by the worker before each job, and once more after
    /// it has gone Idle.
    pub must_leave: AtomicBool,
    /// The tick at which it was asked to, or 0. Written by the first process that asks, before `must_leave`; read by
    /// the scheduler after that, to terminate a worker that is overdue.
    pub must_leave_since: AtomicI64,
    /// The tick at which the worker was asked to make room for another role or database, or 0: it is to end after the job
    /// it runs, however long that takes. Set by the scheduler of any database, or by the launcher, which then sets the
    /// worker's latch; cleared and read as `must_leave` is.
    gives_way_since: AtomicI64,
    /// True once the worker has run kongtask.worker_max_jobs. Set by the worker, which then sets the scheduler's latch and
    /// goes on until the scheduler, which starts another in its place, asks it to end. Cleared by the scheduler that
    /// takes the slot.
    pub is_spent: AtomicBool,
    /// The tick at which the scheduler asked for the process. Written by the scheduler.
    pub begun: AtomicI64,
    /// When the worker entered its state, by the wall clock; read by `kongtask.workers` only.
    pub since: AtomicI64,
    /// The tick at which the lock of its jobs was last renewed. Written by the worker before it is Running; by the
    /// scheduler while it is.
    pub renewed: AtomicI64,
    /// The tick at which the call that runs was first asked to end, by a timeout or a signal; 0 if it was not. Written
    /// by the worker's signal handlers, which then set the scheduler's latch; read by the scheduler.
    pub asked_to_end: AtomicI64,
    /// True while the worker uses its role's ready list. Written and read by the worker: what it must undo as it ends.
    pub uses_ready_list: AtomicBool,
    /// The room that it holds under limits, and whether it is to ask for some. Each field says who writes it.
    pub limits: LimitHolds,
    /// The encoding of its database. Written by the worker once it has connected.
    encoding: AtomicI32,
    /// The random part of its worker id; zeros until the worker has chosen one. The first is stored last, and loaded
    /// first.
    id: [AtomicU64; 2],
    /// Odd while the fields below are being written, by the worker, or by the scheduler that frees the slot. A reader
    /// reads them again if the version was odd, or is another afterwards. Neither process can end between the two: no
    /// interrupt is served there.
    version: AtomicU32,
    /// The job that runs; 0 if none does. The worker also changes it alone, from one job of a batch to the next.
    job: AtomicI64,
    /// What it has taken: the lowest id and the highest, the position of the first, and the tag of their task.
    ids: [AtomicI64; 2],
    begins: [AtomicI64; 3],
    tag: AtomicU32,
    /// How many jobs that are.
    count: AtomicU32,
    /// In the encoding of its database.
    task: [AtomicU64; TASK_WORDS],
    /// What the handler has told of its progress. Cleared with each job that begins, and with the last that ends.
    progress: SharedProgress,
}

/// How long a call may take to end once it is asked to: it may have things to clear up.
const PATIENCE: Duration = Duration::from_secs(3);

/// A task identifier has at most 128 characters of at most 4 bytes.
const TASK_WORDS: usize = 64;

/// How long the message of a progress may be, in bytes.
pub const LONGEST_MESSAGE: usize = 256;

/// See [`Progress`].
struct SharedProgress {
    /// Which of the others there are: TOLD, HAS_TOTAL, HAS_MESSAGE.
    parts: AtomicU32,
    done: AtomicI64,
    total: AtomicI64,
    message: [AtomicU64; LONGEST_MESSAGE / 8],
}

const TOLD: u32 = 1;
const HAS_TOTAL: u32 = 2;
const HAS_MESSAGE: u32 = 4;

/// How far a handler has come, by its own account.
pub struct Progress {
    pub done: i64,
    pub total: Option<i64>,
    /// In the encoding of the worker's database. Has [`LONGEST_MESSAGE`] bytes at most.
    pub message: Option<DbText>,
}

/// What a worker is running.
pub struct Running {
    pub job: i64,
    /// In the encoding of the worker's database.
    pub task: Vec<u8>,
    pub progress: Option<Progress>,
}

/// The jobs of one task that a worker has taken and not settled yet.
#[derive(Clone, Copy, Debug)]
pub struct TakenRange {
    /// Their ids lie between these two.
    pub ids: (i64, i64),
    /// None of them stands before this position.
    pub begins: Position,
    /// The tag of the task.
    pub task: u32,
    /// How many there are.
    pub count: u32,
}

impl TakenRange {
    pub fn of(hints: &[Hint]) -> TakenRange {
        let ids = || hints.iter().map(|hint| hint.position.id);
        TakenRange {
            ids: (ids().min().unwrap_or(0), ids().max().unwrap_or(0)),
            begins: hints.iter().map(|hint| hint.position).min().unwrap_or(Position::END),
            task: hints.first().map_or(0, |hint| hint.task),
            count: hints.len() as u32,
        }
    }

    /// Returns true if a job may be one of them. One that is alone is so only where it was taken: at another position
    /// it has been settled since, and is due again.
    pub fn may_be(&self, hint: &Hint) -> bool {
        let (id, is_one) = (hint.position.id, self.is_one());
        self.task == hint.task
            && if is_one { self.begins == hint.position } else { self.begins <= hint.position }
            && self.ids.0 <= id
            && id <= self.ids.1
    }

    /// Returns true if the range is a single job, so that [`TakenRange::may_be`] is exact.
    pub fn is_one(&self) -> bool {
        self.ids.0 == self.ids.1
    }
}

impl Worker {
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Enters a state, now.
    pub fn enter(&self, state: State) {
        self.since.store(clock::now(), Relaxed);
        self.state.set(state);
    }

    /// Sleeps until it is woken, unless `look` finds something to do. See [`WorkerState::sleep`].
    pub fn sleep<E>(&self, look: impl FnOnce() -> Result<bool, E>, wait: impl FnOnce()) -> Result<Slept, E> {
        self.since.store(clock::now(), Relaxed);
        self.state.sleep(look, wait)
    }

    /// Wakes it if it is idle, after there is work on its ready list. Returns true if it was idle.
    pub fn wake(&self) -> bool {
        self.state.wake(|| self.latch.set())
    }

    /// Returns the worker's id, as in `locked_by`; `None` before its process has chosen one.
    pub fn id(&self) -> Option<DbText> {
        let bits = [self.id[0].load(Acquire), self.id[1].load(Acquire)];
        (bits != [0, 0]).then(|| worker_id(bits))
    }

    /// Returns the encoding of its database.
    pub fn encoding(&self) -> i32 {
        self.encoding.load(Acquire)
    }

    /// Stores the encoding of the database; for the worker, once it has connected.
    pub fn set_encoding(&self) {
        self.encoding.store(text::encoding(), Release);
    }

    pub fn set_id(&self, bits: [u64; 2]) {
        self.id[1].store(bits[1], Release);
        self.id[0].store(bits[0], Release);
    }

    /// Returns the tick from which the worker is unresponsive, unless its call ends before; `NEVER` if the call was not
    /// asked to.
    pub fn unresponsive_at(&self) -> Tick {
        match self.asked_to_end.load(SeqCst) {
            0 => NEVER,
            asked => after(asked, PATIENCE),
        }
    }

    /// Returns true if its call does not end although it was asked to: until it does, the pool counts another worker in
    /// its place.
    pub fn is_unresponsive(&self, now: Tick) -> bool {
        self.unresponsive_at() <= now
    }

    /// Records which jobs the worker has taken, so that they are looked for if its process ends.
    pub fn hold(&self, held: TakenRange, task: &DbText) {
        self.write(|| {
            let Position { priority, run_at, id } = held.begins;
            for (to, from) in self.begins.iter().zip([i64::from(priority), run_at, id]) {
                to.store(from, Relaxed);
            }
            self.ids[0].store(held.ids.0, Relaxed);
            self.ids[1].store(held.ids.1, Relaxed);
            self.tag.store(held.task, Relaxed);
            self.count.store(held.count, Relaxed);
            self.job.store(held.begins.id, Relaxed);
            self.progress.parts.store(0, Relaxed);
            store_text(&self.task, task.as_bytes());
        });
    }

    /// Records which of the taken jobs runs now.
    pub fn run(&self, job: i64) {
        if self.progress.parts.load(Relaxed) != 0 {
            self.write(|| self.progress.parts.store(0, Relaxed));
        }
        self.job.store(job, SeqCst);
    }

    /// Returns the job that runs; 0 if none does. For the worker itself.
    pub fn running_job(&self) -> i64 {
        self.job.load(SeqCst)
    }

    /// Publishes how far the job that runs has come.
    pub fn tell_progress(&self, progress: &Progress) {
        let Progress { done, total, message } = progress;
        let to = &self.progress;
        self.write(|| {
            let parts = [(TOLD, true), (HAS_TOTAL, total.is_some()), (HAS_MESSAGE, message.is_some())];
            to.parts.store(parts.iter().filter(|(_, is_there)| *is_there).map(|(part, _)| part).sum(), Relaxed);
            to.done.store(*done, Relaxed);
            to.total.store(total.unwrap_or(0), Relaxed);
            store_text(&to.message, message.as_ref().map_or(&[], DbText::as_bytes));
        });
    }

    /// Records that every taken job is completed, failed or put back.
    pub fn let_go(&self) {
        self.write(|| {
            self.job.store(0, Relaxed);
            self.progress.parts.store(0, Relaxed);
        });
    }

    fn write(&self, write: impl FnOnce()) {
        self.version.fetch_add(1, SeqCst);
        // Pairs with the fence in `read`: a reader that sees any of what follows sees the odd version.
        fence(SeqCst);
        write();
        self.version.fetch_add(1, SeqCst);
    }

    /// Reads fields that are written under `version`, all as of the same write.
    fn read<T>(&self, read: impl Fn() -> T) -> T {
        loop {
            let version = self.version.load(SeqCst);
            let result = read();
            // Pairs with the fence in `write`.
            fence(SeqCst);
            if version.is_multiple_of(2) && self.version.load(SeqCst) == version {
                return result;
            }
            std::hint::spin_loop();
        }
    }

    /// Returns what the worker holds, or held when it ended.
    pub fn held(&self) -> Option<TakenRange> {
        let number = |at: &AtomicI64| at.load(SeqCst);
        self.read(|| {
            let [priority, run_at, id] = [0, 1, 2].map(|at| number(&self.begins[at]));
            (number(&self.job) != 0).then(|| TakenRange {
                ids: (number(&self.ids[0]), number(&self.ids[1])),
                begins: Position { priority: priority as i32, run_at, id },
                task: self.tag.load(SeqCst),
                count: self.count.load(SeqCst),
            })
        })
    }

    /// Returns the job that runs now, with its task.
    pub fn running(&self) -> Option<Running> {
        let (job, task, progress) = self.read(|| {
            let told = &self.progress;
            let parts = told.parts.load(Relaxed);
            let has = |part| parts & part != 0;
            let progress = has(TOLD).then(|| Progress {
                done: told.done.load(Relaxed),
                total: has(HAS_TOTAL).then(|| told.total.load(Relaxed)),
                message: has(HAS_MESSAGE).then(|| DbText::new(&load_text(&told.message))),
            });
            (self.job.load(SeqCst), load_text(&self.task), progress)
        });
        (job != 0).then_some(Running { job, task, progress })
    }

    /// Asks the worker to end after the job it runs, and wakes it.
    pub fn ask_to_leave(&self, now: Tick) {
        // In this order: a scheduler that saw the flag and no tick would terminate the worker at once.
        self.must_leave_since.compare_exchange(0, now, SeqCst, SeqCst).ok();
        self.must_leave.store(true, SeqCst);
        self.latch.set();
    }

    /// Asks the worker to make room: to end after the job that it runs, however long that takes. Wakes it.
    pub fn ask_to_give_way(&self, now: Tick) {
        self.gives_way_since.compare_exchange(0, now, SeqCst, SeqCst).ok();
        self.latch.set();
    }

    /// Returns true if the worker has been asked to end, for whatever reason.
    pub fn is_to_end(&self) -> bool {
        self.must_leave.load(SeqCst) || self.gives_way_since.load(SeqCst) != 0
    }

    /// Returns true if the worker has been asked to end and is about to, rather than busy with a job that takes its time.
    pub fn is_about_to_end(&self, now: Tick) -> bool {
        const A_MOMENT: Duration = Duration::from_secs(1);
        let asked = match self.gives_way_since.load(SeqCst) {
            0 => self.must_leave_since.load(SeqCst),
            asked => asked,
        };
        self.is_to_end() && (self.state() != State::Running || now < after(asked, A_MOMENT))
    }

    /// Clears what the process was asked for that used the slot before. For the scheduler that takes it.
    pub(super) fn ask_nothing(&self) {
        self.must_leave.store(false, SeqCst);
        self.must_leave_since.store(0, SeqCst);
        self.gives_way_since.store(0, SeqCst);
        self.asked_to_end.store(0, SeqCst);
        self.is_spent.store(false, SeqCst);
    }

    /// Frees the slot; for the process that owns it.
    pub fn free(&self) {
        self.latch.disown();
        self.pid.store(0, Relaxed);
        self.set_id([0, 0]);
        self.limits.reset();
        self.let_go();
        self.database.set(InvalidOid);
        self.role.set(InvalidOid);
        self.enter(State::Free);
    }
}

/// Stores text that fits, and a NUL behind it if there is room. For a writer under the version of its slot.
fn store_text(words: &[AtomicU64], text: &[u8]) {
    let mut bytes = text.iter().copied();
    for word in words {
        let eight = std::array::from_fn(|_| bytes.next().unwrap_or(0));
        word.store(u64::from_ne_bytes(eight), Relaxed);
        if eight[7] == 0 {
            break;
        }
    }
}

fn load_text(words: &[AtomicU64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for word in words {
        bytes.extend(word.load(Relaxed).to_ne_bytes());
        if bytes.last() == Some(&0) {
            break;
        }
    }
    bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
    bytes
}

/// Begins the id of every kongtask worker. A lock with such an id whose worker is not on the board is dead.
pub const ID_PREFIX: &str = "kongtask:";

/// Returns a worker's id, as in `locked_by`.
pub fn worker_id(bits: [u64; 2]) -> DbText {
    format!("{ID_PREFIX}{:016x}{:016x}", bits[0], bits[1]).into()
}
