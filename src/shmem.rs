//! The board: what the processes of one server know of each other. Databases that are served, workers and what they do.
//!
//! Everything on it is atomic, so that the commit hook can read and wake without a lock. The one lock guards the taking
//! and freeing of entries and slots, and is never held across anything that can raise.

use crate::pg::clock::{NEVER, Timestamp};
use crate::pg::latch::LatchOf;
use pgrx::pg_sys::{self, InvalidOid, Oid};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use Ordering::{Acquire, Relaxed, Release, SeqCst};

/// An OID that others may read.
#[derive(Default)]
pub struct SharedOid(AtomicU32);

impl SharedOid {
    pub fn get(&self) -> Oid {
        Oid::from(self.0.load(Acquire))
    }

    pub fn set(&self, oid: Oid) {
        self.0.store(oid.to_u32(), Release);
    }
}

/// The head of the board.
pub struct Head {
    pub launcher: LatchOf,
    capacity: AtomicUsize,
}

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
    /// Grows with each commit that made work runnable.
    pub generation: AtomicU64,
    /// Set by the scheduler while a role that is short, or has no worker, waits for another's worker to become idle.
    pub short: AtomicBool,
    /// When the scheduler is to look for jobs that fall due. Lowered by whoever schedules an earlier one.
    pub next_due: AtomicI64,
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// The slot is nobody's.
    Free,
    /// The scheduler has asked for a process.
    Starting,
    /// Looking for a job; a wake-up would be lost on it, so it compares generations before it sleeps.
    Looking,
    /// Asleep. Whoever adds work takes it from Idle to Looking and sets its latch.
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
    pub leave: AtomicBool,
    /// When it was asked to, or 0.
    pub leave_since: AtomicI64,
    /// When its process was asked for.
    pub begun: AtomicI64,
    /// When it began to do what it does.
    pub since: AtomicI64,
    /// When the lock of its job was last renewed.
    pub renewed: AtomicI64,
    /// The random part of its worker id.
    id: [AtomicU64; 2],
    /// Odd while `job` and `task` are being written.
    version: AtomicU32,
    job: AtomicI64,
    task: [AtomicU64; TASK_WORDS],
}

/// A task identifier has at most 128 characters of at most 4 bytes.
const TASK_WORDS: usize = 64;

/// What a worker is running.
pub struct Running {
    pub job: i64,
    pub task: String,
}

impl Worker {
    pub fn state(&self) -> State {
        State::from(self.state.load(SeqCst))
    }

    /// Enters a state, now.
    pub fn enter(&self, state: State, now: Timestamp) {
        self.since.store(now, Relaxed);
        self.state.store(state as u8, SeqCst);
    }

    /// Goes from one state to another, if it is in the one.
    pub fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, SeqCst, SeqCst).is_ok()
    }

    /// Its id, as in `locked_by`; `None` before its process has chosen one.
    pub fn id(&self) -> Option<String> {
        let bits = [self.id[0].load(Acquire), self.id[1].load(Acquire)];
        (bits != [0, 0]).then(|| worker_id(bits))
    }

    pub fn set_id(&self, bits: [u64; 2]) {
        self.id[1].store(bits[1], Release);
        self.id[0].store(bits[0], Release);
    }

    /// Says what runs now; job 0 is none.
    pub fn set_job(&self, job: i64, task: &str) {
        self.version.fetch_add(1, SeqCst);
        self.job.store(job, SeqCst);
        let mut bytes = task.bytes();
        for word in &self.task {
            let eight = std::array::from_fn(|_| bytes.next().unwrap_or(0));
            word.store(u64::from_ne_bytes(eight), Relaxed);
            if eight[7] == 0 {
                break;
            }
        }
        self.version.fetch_add(1, SeqCst);
    }

    /// What it holds: the job that it runs, or was running when it ended.
    pub fn job(&self) -> Option<i64> {
        Some(self.job.load(SeqCst)).filter(|&job| job != 0)
    }

    /// What runs now, consistently.
    pub fn running(&self) -> Option<Running> {
        loop {
            let version = self.version.load(SeqCst);
            let job = self.job.load(SeqCst);
            let mut bytes: Vec<u8> = Vec::new();
            for word in &self.task {
                bytes.extend(word.load(Relaxed).to_ne_bytes());
                if bytes.last() == Some(&0) {
                    break;
                }
            }
            if version.is_multiple_of(2) && self.version.load(SeqCst) == version {
                bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
                let task = String::from_utf8_lossy(&bytes).into_owned();
                return (job != 0).then_some(Running { job, task });
            }
            std::hint::spin_loop();
        }
    }

    /// Asks it to end after the job it runs.
    pub fn ask_to_leave(&self, now: Timestamp) {
        if !self.leave.swap(true, SeqCst) {
            self.leave_since.store(now, Relaxed);
        }
        self.latch.set();
    }

    /// Gives the slot back.
    pub fn free(&self) {
        self.latch.is_nobodys();
        self.pid.store(0, Relaxed);
        self.set_id([0, 0]);
        self.set_job(0, "");
        self.database.set(InvalidOid);
        self.role.set(InvalidOid);
        self.enter(State::Free, 0);
    }
}

/// Every id of ours begins with this; a lock that does, and whose worker is not on the board, is dead.
pub const ID_PREFIX: &str = "kongtask:";

/// A worker's id.
pub fn worker_id(bits: [u64; 2]) -> String {
    format!("{ID_PREFIX}{:016x}{:016x}", bits[0], bits[1])
}

impl Database {
    /// Lowers the time of the next look; whether it was lowered.
    pub fn lower_due(&self, when: Timestamp) -> bool {
        self.next_due.fetch_min(when, SeqCst) > when
    }

    fn reset(&self, oid: Oid) {
        self.scheduler_pid.store(0, SeqCst);
        self.scheduler.is_nobodys();
        self.wanted.store(false, SeqCst);
        self.holds.store(0, SeqCst);
        self.leave.store(false, SeqCst);
        self.serving.store(false, SeqCst);
        self.left.store(false, SeqCst);
        self.absent.store(false, SeqCst);
        self.elastic.store(false, SeqCst);
        self.short.store(false, SeqCst);
        self.generation.store(0, SeqCst);
        self.next_due.store(NEVER, SeqCst);
        self.oid.set(oid);
    }
}

/// The board itself.
#[derive(Clone, Copy)]
pub struct Board(NonNull<Head>);

thread_local! {
    static BOARD: Cell<Option<Board>> = const { Cell::new(None) };
}

/// The board; `None` where the library was not preloaded.
pub fn board() -> Option<Board> {
    BOARD.get()
}

impl Board {
    fn head(&self) -> &'static Head {
        // SAFETY: shared memory, mapped for the life of the process, initialised before any other could see it.
        unsafe { self.0.as_ref() }
    }

    pub fn launcher(&self) -> &'static LatchOf {
        &self.head().launcher
    }

    /// Every entry for a database, taken or not.
    pub fn databases(&self) -> &'static [Database] {
        let capacity = self.head().capacity.load(Relaxed);
        // SAFETY: laid out by `size`, behind the head.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), capacity) }
    }

    /// Every slot for a worker, taken or not.
    pub fn workers(&self) -> &'static [Worker] {
        let databases = self.databases();
        // SAFETY: laid out by `size`, behind the databases.
        unsafe { std::slice::from_raw_parts(databases.as_ptr().add(databases.len()).cast(), databases.len()) }
    }

    /// The entry of a database.
    pub fn database(&self, oid: Oid) -> Option<&'static Database> {
        self.databases().iter().find(|entry| entry.oid.get() == oid)
    }

    /// The entry of a database, taken for it if it has none; `None` if all are taken.
    pub fn database_or_new(&self, oid: Oid) -> Option<&'static Database> {
        let _lock = Lock::take();
        self.database(oid).or_else(|| {
            let entry = self.databases().iter().find(|entry| entry.oid.get() == InvalidOid)?;
            entry.reset(oid);
            Some(entry)
        })
    }

    /// Frees the entry of a database that nobody serves, wants or holds; whether it was freed.
    pub fn forget(&self, entry: &Database) -> bool {
        let _lock = Lock::take();
        let unused =
            entry.scheduler_pid.load(SeqCst) == 0 && entry.holds.load(SeqCst) == 0 && !entry.wanted.load(SeqCst);
        if unused {
            entry.oid.set(InvalidOid);
        }
        unused
    }

    /// The workers of a database, those that are gone and not yet cleared away included.
    pub fn workers_of(&self, database: Oid) -> impl Iterator<Item = (usize, &'static Worker)> {
        self.workers()
            .iter()
            .enumerate()
            .filter(move |(_, worker)| worker.state() != State::Free && worker.database.get() == database)
    }

    /// Takes a slot for a worker that is about to be started; its index and ticket.
    pub fn take_slot(&self, database: Oid, role: Oid, now: Timestamp) -> Option<(usize, u32)> {
        let _lock = Lock::take();
        let (index, worker) = self.workers().iter().enumerate().find(|(_, worker)| worker.state() == State::Free)?;
        worker.database.set(database);
        worker.role.set(role);
        worker.leave.store(false, SeqCst);
        worker.leave_since.store(0, SeqCst);
        worker.begun.store(now, SeqCst);
        let ticket = worker.ticket.fetch_add(1, SeqCst).wrapping_add(1);
        worker.enter(State::Starting, now);
        Some((index, ticket))
    }
}

/// The board's one lock, released when dropped. Nothing that can raise may be called while it is held.
struct Lock(*mut pg_sys::LWLock);

const NAME: &std::ffi::CStr = c"kongtask";

impl Lock {
    fn take() -> Lock {
        // SAFETY: the tranche was requested in `request`.
        unsafe {
            let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            Lock(lock)
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: taken in `take`.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}

/// How many databases can be served, and how many workers live, at once: each needs a background worker slot.
fn capacity() -> usize {
    // SAFETY: reads a variable, set by the time it is asked for.
    usize::try_from(unsafe { pg_sys::max_worker_processes }).unwrap_or(1).max(1)
}

fn size() -> usize {
    size_of::<Head>() + capacity() * (size_of::<Database>() + size_of::<Worker>())
}

/// Asks for the board's memory, and lays it out once there is any. To be called while preloading.
pub fn request() {
    thread_local! {
        static NEXT_REQUEST: Cell<pg_sys::shmem_request_hook_type> = const { Cell::new(None) };
        static NEXT_STARTUP: Cell<pg_sys::shmem_startup_hook_type> = const { Cell::new(None) };
    }

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn on_request() {
        // SAFETY: the hook's own calls.
        unsafe {
            if let Some(next) = NEXT_REQUEST.get() {
                next();
            }
            pg_sys::RequestAddinShmemSpace(size());
            pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
        }
    }

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn on_startup() {
        // SAFETY: the postmaster calls this before it starts any process, so no lock is needed; zeroed memory is a valid
        // board of no capacity, as every field is an atomic number.
        unsafe {
            if let Some(next) = NEXT_STARTUP.get() {
                next();
            }
            let mut found = false;
            let memory = pg_sys::ShmemInitStruct(NAME.as_ptr(), size(), &mut found).cast::<Head>();
            if !found {
                memory.cast::<u8>().write_bytes(0, size());
                (*memory).capacity.store(capacity(), Relaxed);
            }
            BOARD.set(NonNull::new(memory).map(Board));
        }
    }

    // SAFETY: called once, while libraries are preloaded.
    unsafe {
        NEXT_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(on_request);
        NEXT_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}
