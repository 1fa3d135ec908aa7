//! The board: what the processes of one server know of each other. Databases that are served, workers and what they do.
//!
//! Everything on it is atomic, so that the commit hook can read and wake without a lock, but for the lists of what is
//! ready to run, each of which has its own. The board's lock guards the taking and freeing of entries, slots and shelves.
//! No lock is held across anything that can raise.

// Lowest first.
pub mod ready_list;
mod restores;
mod database;
mod worker;
mod shared_ready_list;
pub mod crash_records;
pub mod uptime;

pub use database::DatabaseEntry;
pub use restores::{Restores, Restoring};
pub use shared_ready_list::SharedReadyList;
pub use worker::{ID_PREFIX, Running, State, TakenRange, Worker, worker_id};

use crate::pg::clock::Tick;
use crate::pg::latch::LatchOf;
use crate::pg::lock::Lock;
use crate::pg::text::DbText;
use crate::pg::{background, clock};
use pgrx::pg_sys::{self, InvalidOid, Oid};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::Duration;

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
pub struct Header {
    pub launcher: LatchOf,
    capacity: AtomicUsize,
}

/// The board itself.
#[derive(Clone, Copy)]
pub struct Board(NonNull<Header>);

thread_local! {
    static BOARD: Cell<Option<Board>> = const { Cell::new(None) };
}

/// The board; `None` where the library was not preloaded.
pub fn board() -> Option<Board> {
    BOARD.get()
}

/// The ids of the kongtask workers of this database that live, as in `locked_by`. None where the library was not preloaded.
pub fn living_workers() -> Vec<DbText> {
    let Some(board) = board() else { return Vec::new() };
    let workers = board.workers_of(background::database());
    workers.filter(|(_, worker)| worker.state() != State::Gone).filter_map(|(_, worker)| worker.id()).collect()
}

/// The id of the kongtask worker that this process is, if it is one.
pub fn my_worker_id() -> Option<DbText> {
    let me = background::pid();
    board()?.workers_of(background::database()).find(|(_, worker)| worker.pid.load(SeqCst) == me)?.1.id()
}

impl Board {
    fn header(&self) -> &'static Header {
        // SAFETY: shared memory, mapped for the life of the process, initialised before any other could see it.
        unsafe { self.0.as_ref() }
    }

    pub fn launcher(&self) -> &'static LatchOf {
        &self.header().launcher
    }

    /// Every entry for a database, taken or not.
    pub fn databases(&self) -> &'static [DatabaseEntry] {
        let capacity = self.header().capacity.load(Relaxed);
        // SAFETY: laid out by `size`, behind the head.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), capacity) }
    }

    /// Every slot for a worker, taken or not.
    pub fn workers(&self) -> &'static [Worker] {
        let databases = self.databases();
        // SAFETY: laid out by `size`, behind the databases.
        unsafe { std::slice::from_raw_parts(databases.as_ptr().add(databases.len()).cast(), databases.len()) }
    }

    /// Every shelf, used or not.
    pub fn ready_lists(&self) -> &'static [SharedReadyList] {
        let workers = self.workers();
        // SAFETY: laid out by `size`, behind the workers.
        unsafe { std::slice::from_raw_parts(workers.as_ptr().add(workers.len()).cast(), workers.len()) }
    }

    /// The shelves that the workers of a database use.
    pub fn ready_lists_of(&self, database: Oid) -> impl Iterator<Item = &'static SharedReadyList> {
        self.ready_lists().iter().filter(move |list| list.is_in(database))
    }

    /// The shelf of a role in a database; `None` if it has no worker there.
    pub fn list(&self, database: Oid, role: Oid) -> Option<&'static SharedReadyList> {
        self.ready_lists().iter().find(|list| list.is_of(database, role))
    }

    /// Has a worker use its role's shelf. There are as many as there can be workers.
    pub fn join_ready_list(&self, database: Oid, role: Oid) -> Option<&'static SharedReadyList> {
        let _lock = Lock::take(BOARD_LOCK);
        let list = self.list(database, role).or_else(|| self.ready_lists().iter().find(|list| list.users() == 0))?;
        list.join(database, role);
        Some(list)
    }

    /// A worker no longer uses its role's shelf.
    pub fn leave_ready_list(&self, list: &SharedReadyList, pid: i32) {
        let _lock = Lock::take(BOARD_LOCK);
        list.leave(pid);
    }

    /// The entry of a database.
    pub fn database(&self, oid: Oid) -> Option<&'static DatabaseEntry> {
        self.databases().iter().find(|entry| entry.oid.get() == oid)
    }

    /// The entry of a database, taken for it if it has none, with what keeps it from being freed set by `keep`, under the same
    /// lock; `None` if all are taken.
    fn database_or_new(&self, oid: Oid, keep: impl FnOnce(&DatabaseEntry)) -> Option<&'static DatabaseEntry> {
        let _lock = Lock::take(BOARD_LOCK);
        let entry = self.database(oid).or_else(|| {
            let entry = self.databases().iter().find(|entry| entry.oid.get() == InvalidOid)?;
            entry.reset(oid);
            Some(entry)
        })?;
        keep(entry);
        Some(entry)
    }

    /// Has a scheduler look at a database: the one that is there, or another after it. Raises nothing.
    pub fn want(&self, oid: Oid) {
        let entry = self.database_or_new(oid, |entry| entry.wanted.store(true, SeqCst));
        // Read once it is wanted: a scheduler that ends after this has the launcher see to it, which finds that.
        match entry.filter(|entry| entry.scheduler_pid.load(SeqCst) != 0) {
            Some(entry) => entry.scheduler.set(),
            None => self.launcher().set(),
        }
    }

    /// This process is the scheduler of a database.
    pub fn enter(&self, oid: Oid, pid: i32) -> Option<&'static DatabaseEntry> {
        self.database_or_new(oid, |entry| entry.scheduler_pid.store(pid, SeqCst))
    }

    /// A scheduler of this database is about to be started: it will see what it was wanted for until now.
    pub fn prepare(&self, oid: Oid) -> Option<&'static DatabaseEntry> {
        self.database_or_new(oid, |entry| {
            entry.must_leave.store(false, SeqCst);
            entry.ended_in_order.store(false, SeqCst);
            entry.lacks_extension.store(false, SeqCst);
            entry.wanted.store(false, SeqCst);
        })
    }

    /// A database must be left, and not be entered until it is [released](Board::release).
    pub fn hold(&self, oid: Oid) -> Option<&'static DatabaseEntry> {
        let entry = self.database_or_new(oid, |entry| _ = entry.holds.fetch_add(1, SeqCst))?;
        entry.scheduler.set();
        Some(entry)
    }

    /// It may be entered again, if nobody else holds it. Raises nothing.
    pub fn release(&self, oid: Oid) {
        // It is there: it was held.
        self.database_or_new(oid, |entry| {
            entry.wanted.store(true, SeqCst);
            entry.holds.fetch_sub(1, SeqCst);
        });
        self.launcher().set();
    }

    /// Frees the entry of a database that nobody serves, wants or holds; whether it was freed.
    pub fn forget(&self, entry: &DatabaseEntry) -> bool {
        let _lock = Lock::take(BOARD_LOCK);
        let unused = entry.scheduler_pid.load(SeqCst) == 0 && !entry.is_held() && !entry.wanted.load(SeqCst);
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

    /// The databases other than one that wait for a slot.
    fn starving_but(&self, database: Oid) -> impl Iterator<Item = &'static DatabaseEntry> {
        let is_other = move |entry: &&DatabaseEntry| entry.oid.get() != InvalidOid && entry.oid.get() != database;
        self.databases().iter().filter(is_other).filter(|entry| entry.starving.load(SeqCst))
    }

    /// Whether a database other than this one waits for a slot.
    pub fn is_other_starving(&self, database: Oid) -> bool {
        self.starving_but(database).next().is_some()
    }

    /// A worker of this database is idle: tells those who wait for a slot.
    pub fn offer_slot(&self, database: Oid) {
        self.starving_but(database).for_each(|entry| entry.wake_starving(self.launcher()));
    }

    /// Has a worker of another database give up its slot: an idle one if there is any, or one that has had its turn where others are left,
    /// after its job. One at a time.
    pub fn ask_for_slot(&self, database: Oid, turn: Duration, now: Tick) {
        let others: Vec<&Worker> = self
            .workers()
            .iter()
            .filter(|worker| !matches!(worker.state(), State::Free | State::Gone) && worker.database.get() != database)
            .collect();
        let leaves = |worker: &Worker| worker.must_leave.load(SeqCst);
        if others.iter().any(|worker| leaves(worker) && worker.state() != State::Running) {
            return;
        }
        let companions = |worker: &Worker| {
            others.iter().filter(|other| !leaves(other) && other.database.get() == worker.database.get()).count()
        };
        let is_idle = |worker: &Worker| worker.state() == State::Idle;
        let may_go = |worker: &Worker| {
            is_idle(worker) || (companions(worker) > 1 && clock::after(worker.begun.load(SeqCst), turn) <= now)
        };
        let donors = others.iter().filter(|worker| !leaves(worker) && may_go(worker));
        if let Some(donor) = donors.max_by_key(|worker| (is_idle(worker), companions(worker))) {
            donor.ask_to_leave(now);
        }
    }

    /// Takes a slot for a worker that is about to be started; its index and ticket.
    pub fn take_slot(&self, database: Oid, role: Oid) -> Option<(usize, u32)> {
        let _lock = Lock::take(BOARD_LOCK);
        let (index, worker) = self.workers().iter().enumerate().find(|(_, worker)| worker.state() == State::Free)?;
        worker.database.set(database);
        worker.role.set(role);
        worker.must_leave.store(false, SeqCst);
        worker.must_leave_since.store(0, SeqCst);
        worker.asked_to_end.store(0, SeqCst);
        worker.begun.store(clock::tick(), SeqCst);
        let ticket = worker.ticket.fetch_add(1, SeqCst).wrapping_add(1);
        worker.enter(State::Starting);
        Some((index, ticket))
    }
}

/// The number of the board's own lock. The shelves' follow.
const BOARD_LOCK: usize = 0;

const NAME: &std::ffi::CStr = c"kongtask";

/// How many databases can be served, and how many workers live, at once: each needs a background worker slot.
pub fn capacity() -> usize {
    // SAFETY: reads a variable, set by the time it is asked for.
    usize::try_from(unsafe { pg_sys::max_worker_processes }).unwrap_or(1).max(1)
}

fn size() -> usize {
    size_of::<Header>() + capacity() * (size_of::<DatabaseEntry>() + size_of::<Worker>() + size_of::<SharedReadyList>())
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
            Lock::request(1 + capacity());
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
            let memory = pg_sys::ShmemInitStruct(NAME.as_ptr(), size(), &mut found).cast::<Header>();
            if !found {
                // What the shelves hold is written when they are first used.
                let ready_lists = capacity() * size_of::<SharedReadyList>();
                memory.cast::<u8>().write_bytes(0, size() - ready_lists);
                (*memory).capacity.store(capacity(), Relaxed);
            }
            let board = NonNull::new(memory).map(Board);
            if let Some(board) = board.filter(|_| !found) {
                crash_records::collect_after_restart();
                for (number, list) in board.ready_lists().iter().enumerate() {
                    list.lay_out(BOARD_LOCK + 1 + number);
                }
            }
            BOARD.set(board);
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
