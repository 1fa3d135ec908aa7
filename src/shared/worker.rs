//! A worker process, as others see it.

use super::SharedOid;
use crate::pg::clock::{self, NEVER, Tick, after};
use crate::pg::latch::LatchOf;
use crate::pg::text::{self, DbText};
use crate::shared::ready_list::{Hint, Position};
use pgrx::pg_sys::InvalidOid;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// The slot is nobody's.
    Free,
    /// The scheduler has asked for a process.
    Starting,
    /// Looking for a job.
    Looking,
    /// Asleep, or about to be once it has found its role's shelf still empty. Whoever adds work takes it from Idle to
    /// Looking and sets its latch.
    Idle,
    /// Running a handler.
    Running,
    /// The process is gone, and what it held is to be released.
    Gone,
}

impl State {
    fn from(code: u8) -> State {
        use State::{Free, Gone, Idle, Looking, Running, Starting};
        [Free, Starting, Looking, Idle, Running, Gone][usize::from(code)]
    }
}

/// A worker process.
pub struct Worker {
    state: AtomicU8,
    pub database: SharedOid,
    pub role: SharedOid,
    pub pid: AtomicI32,
    pub latch: LatchOf,
    /// Distinguishes the processes that use this slot one after another.
    pub ticket: AtomicU32,
    /// Asked to end after the job it runs.
    pub must_leave: AtomicBool,
    /// The tick at which it was asked to, or 0.
    pub must_leave_since: AtomicI64,
    /// The tick at which its process was asked for.
    pub begun: AtomicI64,
    /// When it began to do what it does.
    pub since: AtomicI64,
    /// The tick at which the lock of its job was last renewed.
    pub renewed: AtomicI64,
    /// The tick at which what it calls was first asked to end, by a timeout or a signal; 0 while it is not. Written by its
    /// signal handlers, read by the scheduler.
    pub asked_to_end: AtomicI64,
    /// Whether it uses its role's shelf.
    pub uses_ready_list: AtomicBool,
    /// The encoding of its database.
    encoding: AtomicI32,
    /// The random part of its worker id.
    id: [AtomicU64; 2],
    /// Odd while what follows is being written.
    version: AtomicU32,
    /// The job that runs; 0 if none does.
    job: AtomicI64,
    /// What it has taken: the lowest id and the highest, the place of the first, and the tag of their task.
    ids: [AtomicI64; 2],
    begins: [AtomicI64; 3],
    tag: AtomicU32,
    /// In the encoding of its database.
    task: [AtomicU64; TASK_WORDS],
}

/// How long a call may take to end once it is asked to: it may have things to clear up.
const PATIENCE: Duration = Duration::from_secs(3);

/// A task identifier has at most 128 characters of at most 4 bytes.
const TASK_WORDS: usize = 64;

/// What a worker is running.
pub struct Running {
    pub job: i64,
    /// In the encoding of the worker's database.
    pub task: Vec<u8>,
}

/// What a worker took and has not settled yet: jobs of one task.
#[derive(Clone, Copy, Debug)]
pub struct TakenRange {
    /// Their ids lie between these two.
    pub ids: (i64, i64),
    /// None of them stands before this place.
    pub begins: Position,
    /// The tag of the task.
    pub task: u32,
}

impl TakenRange {
    pub fn of(hints: &[Hint]) -> TakenRange {
        let ids = || hints.iter().map(|hint| hint.position.id);
        TakenRange {
            ids: (ids().min().unwrap_or(0), ids().max().unwrap_or(0)),
            begins: hints.iter().map(|hint| hint.position).min().unwrap_or(Position::END),
            task: hints.first().map_or(0, |hint| hint.task),
        }
    }

    /// Whether a job may be one of them.
    pub fn may_be(&self, hint: &Hint) -> bool {
        let id = hint.position.id;
        self.task == hint.task && self.begins <= hint.position && self.ids.0 <= id && id <= self.ids.1
    }

    /// Whether it is one: then whoever [may be](TakenRange::may_be) it is.
    pub fn is_one(&self) -> bool {
        self.ids.0 == self.ids.1
    }
}

impl Worker {
    pub fn state(&self) -> State {
        State::from(self.state.load(SeqCst))
    }

    /// Enters a state, now.
    pub fn enter(&self, state: State) {
        self.since.store(clock::now(), Relaxed);
        self.state.store(state as u8, SeqCst);
    }

    /// Goes from one state to another, if it is in the one.
    pub fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, SeqCst, SeqCst).is_ok()
    }

    /// Its id, as in `locked_by`; `None` before its process has chosen one.
    pub fn id(&self) -> Option<DbText> {
        let bits = [self.id[0].load(Acquire), self.id[1].load(Acquire)];
        (bits != [0, 0]).then(|| worker_id(bits))
    }

    /// The encoding of its database.
    pub fn encoding(&self) -> i32 {
        self.encoding.load(Acquire)
    }

    /// This process is it, and has connected to its database.
    pub fn set_encoding(&self) {
        self.encoding.store(text::encoding(), Release);
    }

    pub fn set_id(&self, bits: [u64; 2]) {
        self.id[1].store(bits[1], Release);
        self.id[0].store(bits[0], Release);
    }

    /// When it is unresponsive, unless what it calls has ended by then; `NEVER` while nobody asks for that.
    pub fn unresponsive_at(&self) -> Tick {
        match self.asked_to_end.load(SeqCst) {
            0 => NEVER,
            asked => after(asked, PATIENCE),
        }
    }

    /// True if what it calls does not end although it should: it cannot be counted on until it has.
    pub fn is_unresponsive(&self, now: Tick) -> bool {
        self.unresponsive_at() <= now
    }

    /// Says what it has taken.
    pub fn hold(&self, held: TakenRange, task: &DbText) {
        self.write(|| {
            let Position { priority, run_at, id } = held.begins;
            for (to, from) in self.begins.iter().zip([i64::from(priority), run_at, id]) {
                to.store(from, Relaxed);
            }
            self.ids[0].store(held.ids.0, Relaxed);
            self.ids[1].store(held.ids.1, Relaxed);
            self.tag.store(held.task, Relaxed);
            self.job.store(held.begins.id, Relaxed);
            let mut bytes = task.as_bytes().iter().copied();
            for word in &self.task {
                let eight = std::array::from_fn(|_| bytes.next().unwrap_or(0));
                word.store(u64::from_ne_bytes(eight), Relaxed);
                if eight[7] == 0 {
                    break;
                }
            }
        });
    }

    /// Says which of what it has taken runs now.
    pub fn run(&self, job: i64) {
        self.job.store(job, SeqCst);
    }

    /// All that it had taken is settled.
    pub fn let_go(&self) {
        self.write(|| self.job.store(0, Relaxed));
    }

    fn write(&self, write: impl FnOnce()) {
        self.version.fetch_add(1, SeqCst);
        write();
        self.version.fetch_add(1, SeqCst);
    }

    /// Reads what is written under `version`, consistently.
    fn read<T>(&self, read: impl Fn() -> T) -> T {
        loop {
            let version = self.version.load(SeqCst);
            let result = read();
            if version.is_multiple_of(2) && self.version.load(SeqCst) == version {
                return result;
            }
            std::hint::spin_loop();
        }
    }

    /// What it holds, or held when it ended.
    pub fn held(&self) -> Option<TakenRange> {
        let number = |at: &AtomicI64| at.load(SeqCst);
        self.read(|| {
            let [priority, run_at, id] = [0, 1, 2].map(|at| number(&self.begins[at]));
            (number(&self.job) != 0).then(|| TakenRange {
                ids: (number(&self.ids[0]), number(&self.ids[1])),
                begins: Position { priority: priority as i32, run_at, id },
                task: self.tag.load(SeqCst),
            })
        })
    }

    /// What runs now, consistently.
    pub fn running(&self) -> Option<Running> {
        let (job, mut bytes) = self.read(|| {
            let mut bytes: Vec<u8> = Vec::new();
            for word in &self.task {
                bytes.extend(word.load(Relaxed).to_ne_bytes());
                if bytes.last() == Some(&0) {
                    break;
                }
            }
            (self.job.load(SeqCst), bytes)
        });
        bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
        (job != 0).then_some(Running { job, task: bytes })
    }

    /// Asks it to end after the job it runs.
    pub fn ask_to_leave(&self, now: Tick) {
        if !self.must_leave.swap(true, SeqCst) {
            self.must_leave_since.store(now, Relaxed);
        }
        self.latch.set();
    }

    /// Gives the slot back.
    pub fn free(&self) {
        self.latch.is_nobodys();
        self.pid.store(0, Relaxed);
        self.set_id([0, 0]);
        self.let_go();
        self.database.set(InvalidOid);
        self.role.set(InvalidOid);
        self.enter(State::Free);
    }
}

/// Every id of ours begins with this; a lock that does, and whose worker is not on the board, is dead.
pub const ID_PREFIX: &str = "kongtask:";

/// A worker's id.
pub fn worker_id(bits: [u64; 2]) -> DbText {
    format!("{ID_PREFIX}{:016x}{:016x}", bits[0], bits[1]).into()
}
