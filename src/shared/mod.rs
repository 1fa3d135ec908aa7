//! The board: what the processes of one server know of each other. Databases that are served, workers and what they do.
//!
//! Who writes what:
//!
//! - The board's lock guards the taking and freeing of database entries, worker slots and ready lists, and what keeps an
//!   entry from being freed.
//! - Each ready list has a lock of its own. A process that needs both takes the board's first.
//! - One lock guards the hints on queues, for a few instructions.
//! - One lock guards the room under limits. A process that holds it takes no other.
//! - Everything else is atomic, so that a session can read and wake at commit without a lock. Each field says who writes it, who reads
//!   it, and when it passes from one process to another: `database`, `worker`, `restores`, `cancels`, `waits`,
//!   `crash_records`.
//! - How processes wake each other, and in which order each does its steps, is told in `protocols`, and tried under loom by
//!   `models/`.
//!
//! No lock is held across anything that can raise: an error would leave it held, because these processes do not all
//! abort a transaction then. If a process crashes, the server restarts all of them, with fresh memory.

// Lowest first.
mod sync;
mod protocols;
pub mod ready_list;
mod restores;
pub mod counters;
mod database;
pub mod queue_hints;
pub mod limits;
mod worker;
pub mod cancels;
pub mod waits;
mod shared_ready_list;
pub mod crash_records;
pub mod uptime;

pub use database::DatabaseEntry;
pub use protocols::{Slept, State};
pub use restores::{Restores, Restoring};
pub use shared_ready_list::SharedReadyList;
pub use worker::{ID_PREFIX, LONGEST_MESSAGE, Progress, Running, TakenRange, Worker, worker_id};

use self::cancels::Cancels;
use self::protocols::Attendant;
use self::queue_hints::{Floors, LockRow, Look, QueueHints, Terms};
use self::waits::Waits;
use crate::pg::clock::{Tick, Timestamp};
use crate::pg::latch::LatchOf;
use crate::pg::lock::Lock;
use crate::pg::text::DbText;
use crate::pg::{background, clock};
use crate::settings;
use pgrx::pg_sys::{self, InvalidOid, Oid};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

/// An OID that other processes may read.
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

/// How many counters databases share.
const CHANGE_COUNTERS: usize = 64;

/// The header of the board.
pub struct Header {
    /// The launcher's latch. Written by the launcher as it begins, which then looks at every database; set by everyone.
    pub launcher: LatchOf,
    /// Count the commits that have changed tasks or pauses; databases share the counters by their OIDs. Raised by the
    /// session that commits a change, after it is visible and before the session wakes a scheduler. A process reads its
    /// counter before it reads the tables, and again before it relies on what it has read: where both are equal, no
    /// change is visible that it has not read.
    tasks_changes: [AtomicU64; CHANGE_COUNTERS],
    /// Requests to cancel running jobs.
    cancels: Cancels,
    /// Where queues' next jobs and locks are.
    queue_hints: QueueHints,
    /// Sessions that wait for jobs to end.
    waits: Waits,
    /// How many entries for databases follow, and how many slots and lists. Written once, by the postmaster.
    databases: AtomicUsize,
    capacity: AtomicUsize,
    /// How many of the entries have ever been taken: the others need not be looked at. Raised under the board's lock.
    entries_used: AtomicUsize,
}

/// The board itself.
#[derive(Clone, Copy)]
pub struct Board(NonNull<Header>);

thread_local! {
    static BOARD: Cell<Option<Board>> = const { Cell::new(None) };
}

/// Returns the board; `None` where the library was not preloaded.
pub fn board() -> Option<Board> {
    BOARD.get()
}

/// Returns how many commits have changed tasks or pauses, in this database or one that shares its counter.
pub fn tasks_changes() -> u64 {
    board().map_or(0, |board| board.tasks_changes(background::database()).load(SeqCst))
}

/// Returns the ids of the live kongtask workers of this database, as in `locked_by`: none where the library was not
/// preloaded.
pub fn living_workers() -> Vec<DbText> {
    let Some(board) = board() else { return Vec::new() };
    let workers = board.workers_of(background::database());
    workers.filter(|(_, worker)| worker.state() != State::Gone).filter_map(|(_, worker)| worker.id()).collect()
}

/// Returns the id of this process, if it is a kongtask worker.
pub fn my_worker_id() -> Option<DbText> {
    let me = background::pid();
    board()?.workers_of(background::database()).find(|(_, worker)| worker.pid.load(SeqCst) == me)?.1.id()
}

impl Board {
    fn header(&self) -> &'static Header {
        // SAFETY: shared memory, mapped for the life of the process, initialised before any other process could see it.
        unsafe { self.0.as_ref() }
    }

    pub fn launcher(&self) -> &'static LatchOf {
        &self.header().launcher
    }

    /// Returns the counter of changes of a database's tasks and pauses.
    fn tasks_changes(&self, database: Oid) -> &'static AtomicU64 {
        &self.header().tasks_changes[database.to_u32() as usize % CHANGE_COUNTERS]
    }

    /// Counts a commit that has changed tasks or pauses.
    pub fn count_tasks_change(&self, database: Oid) {
        self.tasks_changes(database).fetch_add(1, SeqCst);
    }

    pub fn cancels(&self) -> &'static Cancels {
        &self.header().cancels
    }

    pub fn waits(&self) -> &'static Waits {
        &self.header().waits
    }

    /// Returns all entries for databases, whether they have ever been taken or not.
    fn all_databases(&self) -> &'static [DatabaseEntry] {
        let databases = self.header().databases.load(Relaxed);
        // SAFETY: laid out by `size`, behind the header.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), databases) }
    }

    /// Returns the entries for databases that have ever been taken.
    pub fn databases(&self) -> &'static [DatabaseEntry] {
        &self.all_databases()[..self.header().entries_used.load(SeqCst)]
    }

    /// Returns every slot for a worker, taken or not.
    pub fn workers(&self) -> &'static [Worker] {
        let databases = self.all_databases();
        let capacity = self.header().capacity.load(Relaxed);
        // SAFETY: laid out by `size`, behind the databases.
        unsafe { std::slice::from_raw_parts(databases.as_ptr().add(databases.len()).cast(), capacity) }
    }

    /// Returns every ready list, used or not.
    pub fn ready_lists(&self) -> &'static [SharedReadyList] {
        let workers = self.workers();
        // SAFETY: laid out by `size`, behind the workers.
        unsafe { std::slice::from_raw_parts(workers.as_ptr().add(workers.len()).cast(), workers.len()) }
    }

    /// Returns the ready lists that the workers of a database use.
    pub fn ready_lists_of(&self, database: Oid) -> impl Iterator<Item = &'static SharedReadyList> {
        self.ready_lists().iter().filter(move |list| list.is_in(database))
    }

    /// Returns the ready list of a role in a database; `None` if the role has no worker there.
    pub fn list(&self, database: Oid, role: Oid) -> Option<&'static SharedReadyList> {
        thread_local! {
            /// Where it was the last time. The lists are large: a look at each of them costs a commit more than all else here.
            static LATEST: Cell<usize> = const { Cell::new(0) };
        }
        let lists = self.ready_lists();
        lists.get(LATEST.get()).filter(|list| list.is_of(database, role)).or_else(|| {
            let at = lists.iter().position(|list| list.is_of(database, role))?;
            LATEST.set(at);
            Some(&lists[at])
        })
    }

    /// Returns the role's ready list, for a worker that begins to use it. There are as many lists as there can be
    /// workers.
    pub fn join_ready_list(&self, database: Oid, role: Oid) -> Option<&'static SharedReadyList> {
        let _lock = Lock::take(BOARD_LOCK);
        let list = self.list(database, role).or_else(|| self.ready_lists().iter().find(|list| list.users() == 0))?;
        list.join(database, role);
        Some(list)
    }

    /// Ends a worker's use of its role's ready list. Returns true if that list is gone and there may be more to run.
    pub fn leave_ready_list(&self, list: &SharedReadyList, pid: i32) -> bool {
        let _lock = Lock::take(BOARD_LOCK);
        list.leave(pid)
    }

    /// Returns the entry of a database.
    pub fn database(&self, oid: Oid) -> Option<&'static DatabaseEntry> {
        thread_local! {
            /// Where it was the last time: most processes look for one database only.
            static LATEST: Cell<usize> = const { Cell::new(0) };
        }
        let entries = self.databases();
        let is_its = |entry: &&DatabaseEntry| entry.oid.get() == oid;
        entries.get(LATEST.get()).filter(is_its).or_else(|| {
            let at = entries.iter().position(|entry| is_its(&entry))?;
            LATEST.set(at);
            Some(&entries[at])
        })
    }

    /// Returns the entry of a database, and takes one if it has none; `None` if all are taken. `keep` sets, under the
    /// same lock, what keeps the entry from being freed.
    fn database_or_new(&self, oid: Oid, keep: impl FnOnce(&DatabaseEntry)) -> Option<&'static DatabaseEntry> {
        let _lock = Lock::take(BOARD_LOCK);
        let entry = self.database(oid).or_else(|| {
            let entries = self.all_databases();
            let at = entries.iter().position(|entry| entry.oid.get() == InvalidOid)?;
            entries[at].reset(oid);
            self.header().entries_used.fetch_max(at + 1, SeqCst);
            Some(&entries[at])
        })?;
        keep(entry);
        Some(entry)
    }

    /// Returns true if as many databases are served as can be.
    pub fn has_no_entry_left(&self) -> bool {
        self.all_databases().iter().all(|entry| entry.oid.get() != InvalidOid)
    }

    /// Has a scheduler look at a database: the one that is there, or a new one that the launcher starts. Raises
    /// nothing.
    pub fn want(&self, oid: Oid) {
        self.want_with(oid, InvalidOid);
    }

    /// Does the same, and says which role has a job, if that is known.
    fn want_with(&self, oid: Oid, role: Oid) {
        let entry = self.database_or_new(oid, |entry| {
            entry.wanted_role.set(role);
            entry.attendance.want();
        });
        match entry.map(|entry| (entry, entry.attendance.attendant())) {
            Some((entry, Attendant::Scheduler)) => entry.scheduler.set(),
            _ => self.launcher().set(),
        }
    }

    /// Has a scheduler started in a database that is watched, and a worker of the role that has a job there, if one is known
    /// (else invalid). Cheap if that is asked for already: the launcher has not
    /// started the scheduler yet, so it will see what has been committed until now. Raises nothing.
    pub fn want_watched(&self, entry: &DatabaseEntry, role: Oid) {
        if !entry.attendance.is_wanted() {
            self.want_with(entry.oid.get(), role);
        }
    }

    /// Makes this process the scheduler of a database.
    pub fn enter(&self, oid: Oid, pid: i32) -> Option<&'static DatabaseEntry> {
        self.database_or_new(oid, |entry| entry.attendance.begin(pid))
    }

    /// Prepares the entry of a database whose scheduler the launcher is about to start; it will see what it was wanted
    /// for until now. `is_routine` says that nothing is known of that it has to do. Returns also which role has a job, if
    /// the session that wanted the database has said so.
    pub fn prepare(&self, oid: Oid, is_routine: bool) -> Option<(&'static DatabaseEntry, Option<Oid>)> {
        let mut role = InvalidOid;
        let entry = self.database_or_new(oid, |entry| {
            role = entry.wanted_role.get();
            entry.wanted_role.set(InvalidOid);
            entry.is_routine.store(is_routine, SeqCst);
            entry.gives_way.store(false, SeqCst);
            entry.must_leave.store(false, SeqCst);
            entry.ended_in_order.store(false, SeqCst);
            entry.lacks_extension.store(false, SeqCst);
            entry.attendance.take();
        })?;
        Some((entry, (role != InvalidOid).then_some(role)))
    }

    /// Keeps all kongtask processes out of a database until it is [released](Board::release).
    pub fn hold(&self, oid: Oid) -> Option<&'static DatabaseEntry> {
        let entry = self.database_or_new(oid, |entry| {
            entry.holds.fetch_add(1, SeqCst);
            entry.attendance.take_back();
        })?;
        entry.scheduler.set();
        Some(entry)
    }

    /// Ends one hold on a database, and has the launcher look at it. Raises nothing.
    pub fn release(&self, oid: Oid) {
        // It is there: it was held.
        self.database_or_new(oid, |entry| {
            entry.attendance.want();
            entry.holds.fetch_sub(1, SeqCst);
        });
        self.launcher().set();
    }

    /// Frees the entry of a database that is not served, wanted or held. Returns true if it was freed.
    pub fn forget(&self, entry: &DatabaseEntry) -> bool {
        let _lock = Lock::take(BOARD_LOCK);
        let unused = !entry.attendance.has_scheduler() && !entry.is_held() && !entry.attendance.is_wanted();
        if unused {
            entry.oid.set(InvalidOid);
        }
        unused
    }

    /// Returns the workers of a database, including those that are gone and not yet cleared away.
    pub fn workers_of(&self, database: Oid) -> impl Iterator<Item = (usize, &'static Worker)> {
        self.workers()
            .iter()
            .enumerate()
            .filter(move |(_, worker)| worker.state() != State::Free && worker.database.get() == database)
    }

    /// Returns the databases other than this one.
    fn all_but(&self, database: Oid) -> impl Iterator<Item = &'static DatabaseEntry> {
        let is_other = move |entry: &&DatabaseEntry| entry.oid.get() != InvalidOid && entry.oid.get() != database;
        self.databases().iter().filter(is_other)
    }

    /// Returns the databases other than this one that wait for a slot.
    fn starving_but(&self, database: Oid) -> impl Iterator<Item = &'static DatabaseEntry> {
        self.all_but(database).filter(|entry| entry.is_starving())
    }

    /// Returns true if other databases have waited for longer, and are to get the next slots: as many as change hands at
    /// once. `for_slot` leaves out those that wait for one of kongtask.max_workers.
    pub fn others_go_first(&self, database: Oid, since: Tick, for_slot: bool) -> bool {
        let waits_longer = |entry: &&DatabaseEntry| {
            let other = entry.starving_since.load(SeqCst);
            other != 0
                && (other, entry.oid.get().to_u32()) < (since, database.to_u32())
                && (!for_slot || entry.needs_slot.load(SeqCst))
        };
        self.starving_but(database).filter(waits_longer).nth(at_once() - 1).is_some()
    }

    /// Returns true if a database other than this one waits for a background worker slot.
    pub fn is_slot_needed_elsewhere(&self, database: Oid) -> bool {
        self.starving_but(database).any(|entry| entry.needs_slot.load(SeqCst))
    }

    /// Returns true if a database other than this one waits for a slot.
    pub fn is_other_starving(&self, database: Oid) -> bool {
        self.starving_but(database).next().is_some()
    }

    /// Tells the databases that wait for a slot that a worker of this one is idle.
    pub fn offer_slot(&self, database: Oid) {
        self.starving_but(database).for_each(|entry| entry.wake_starving(self.launcher()));
    }

    /// Has another database give up a slot for one that has waited since then: what idles first, then what has waited for
    /// less long, then a worker that has had its turn, after its job; the last one of a database only if no other can,
    /// and first that which has run for longest. No more are asked at once than databases wait. If `needs_slot` is false,
    /// kongtask.max_workers is reached, and only a worker helps.
    pub fn ask_for_slot(&self, database: Oid, since: Tick, needs_slot: bool, turn: Duration, now: Tick) {
        let others: Vec<&Worker> = self
            .workers()
            .iter()
            .filter(|worker| !matches!(worker.state(), State::Free | State::Gone) && worker.database.get() != database)
            .collect();
        let is_leaving = |entry: &DatabaseEntry| entry.gives_way.load(SeqCst) && entry.attendance.has_scheduler();
        let ending = others.iter().filter(|worker| worker.is_about_to_end(now)).count()
            + self.all_but(database).filter(|entry| is_leaving(entry)).count();
        let waiting = 1 + self.starving_but(database).count();
        if ending >= waiting.min(at_once()) {
            return;
        }
        let staying: Vec<&Worker> = others.iter().copied().filter(|worker| !worker.is_to_end()).collect();
        let mut companions: HashMap<Oid, usize> = HashMap::new();
        staying.iter().for_each(|worker| *companions.entry(worker.database.get()).or_default() += 1);
        let is_missed_least =
            |worker: &&&Worker| (companions[&worker.database.get()], Reverse(worker.begun.load(SeqCst)));
        if let Some(idle) = staying.iter().filter(|worker| worker.state() == State::Idle).max_by_key(is_missed_least) {
            return idle.ask_to_give_way(now);
        }
        if needs_slot {
            let has_worker =
                |entry: &DatabaseEntry| others.iter().any(|worker| worker.database.get() == entry.oid.get());
            let waits_less_long =
                |entry: &DatabaseEntry| entry.starving_since.load(SeqCst) > since && entry.needs_slot.load(SeqCst);
            let donors = self
                .all_but(database)
                .filter(|entry| entry.attendance.has_scheduler() && !is_leaving(entry) && !has_worker(entry))
                .filter(|entry| entry.is_idle.load(SeqCst) || waits_less_long(entry));
            if let Some(donor) =
                donors.max_by_key(|entry| (entry.is_idle.load(SeqCst), entry.starving_since.load(SeqCst)))
            {
                donor.gives_way.store(true, SeqCst);
                donor.scheduler.set();
                return;
            }
        }
        let has_had_its_turn = |worker: &&&Worker| clock::after(worker.begun.load(SeqCst), turn) <= now;
        if let Some(donor) = staying.iter().filter(has_had_its_turn).max_by_key(is_missed_least) {
            donor.ask_to_give_way(now);
        }
    }

    /// Lowers the floors of queues, given by their hashes, to where jobs were added or changed. To be called after the
    /// commit. Raises nothing.
    pub fn lower_queues(&self, database: Oid, queues: &BTreeMap<u64, Floors>) {
        let hints = &self.header().queue_hints;
        for (queue, floors) in queues.iter().filter(|(queue, _)| hints.has(database, **queue)) {
            let _lock = Lock::take(hints_lock());
            hints.lower(database, *queue, floors);
        }
    }

    /// Forgets the floors of all queues of a database. Raises nothing.
    pub fn forget_queues(&self, database: Oid) {
        self.header().queue_hints.forget(database);
    }

    /// Begins a look for a queue's next job. To be called before its snapshot is taken.
    pub fn begin_look(&self, database: Oid, queue: u64, terms: Terms, now: Timestamp) -> Look {
        let _lock = Lock::take(hints_lock());
        self.header().queue_hints.begin_look(database, queue, terms, now)
    }

    /// Leaves word of what looks have found. To be called after the commit. Raises nothing.
    pub fn end_looks(&self, database: Oid, looks: &BTreeMap<u64, Look>) {
        for look in looks.values() {
            let _lock = Lock::take(hints_lock());
            self.header().queue_hints.end_look(database, look);
        }
    }

    /// Returns what is known of the row that is a queue's lock.
    pub fn lock_row(&self, database: Oid, queue: u64) -> LockRow {
        let _lock = Lock::take(hints_lock());
        self.header().queue_hints.lock_row(database, queue)
    }

    /// Leaves word of the rows that are queues' locks. To be called after the commit. Raises nothing.
    pub fn set_lock_rows(&self, database: Oid, rows: &BTreeMap<u64, LockRow>) {
        for (&queue, &row) in rows {
            let _lock = Lock::take(hints_lock());
            self.header().queue_hints.set_lock_row(database, queue, row);
        }
    }

    /// Returns the tick at which a queue was last used, as far as is known.
    pub fn queue_used(&self, database: Oid, queue: u64) -> Option<Tick> {
        let _lock = Lock::take(hints_lock());
        self.header().queue_hints.used(database, queue)
    }

    /// Returns true if there are as many workers as the server may have.
    pub fn is_full(&self, most: Option<usize>) -> bool {
        let taken = || self.workers().iter().filter(|worker| worker.state() != State::Free).count();
        most.is_some_and(|most| taken() >= most)
    }

    /// Takes a slot for a worker that the scheduler is about to start, and returns its index and ticket; `None` if the
    /// server has `most` workers, or no slot.
    pub fn take_slot(&self, database: Oid, role: Oid, most: Option<usize>) -> Option<(usize, u32)> {
        let _lock = Lock::take(BOARD_LOCK);
        if self.is_full(most) {
            return None;
        }
        let (index, worker) = self.workers().iter().enumerate().find(|(_, worker)| worker.state() == State::Free)?;
        worker.database.set(database);
        worker.role.set(role);
        worker.ask_nothing();
        worker.limits.reset();
        worker.begun.store(clock::tick(), SeqCst);
        let ticket = worker.ticket.fetch_add(1, SeqCst).wrapping_add(1);
        worker.enter(State::Starting);
        Some((index, ticket))
    }
}

/// The number of the board's own lock. The ready lists' follow, then that of hints on queues, and that of limits.
const BOARD_LOCK: usize = 0;

fn hints_lock() -> usize {
    BOARD_LOCK + 1 + capacity()
}

fn limits_lock() -> usize {
    hints_lock() + 1
}

const NAME: &std::ffi::CStr = c"kongtask";
const COUNTERS: &std::ffi::CStr = c"kongtask counters";
const LIMITS: &std::ffi::CStr = c"kongtask limits";

/// Returns how many slots may change hands at once. The databases that wait for longest get them, in any order: where one
/// slot after another changed hands, hundreds of databases would wait for minutes, as each change takes the start of a
/// process. Where slots are few, the order is kept.
fn at_once() -> usize {
    const SHARE: usize = 16;
    (capacity() / SHARE).max(1)
}

/// Returns how many workers can live at once: each needs a background worker slot.
pub fn capacity() -> usize {
    // SAFETY: reads a variable, set by the time it is asked for.
    usize::try_from(unsafe { pg_sys::max_worker_processes }).unwrap_or(1).max(1)
}

fn size() -> usize {
    size_of::<Header>()
        + settings::max_databases() * size_of::<DatabaseEntry>()
        + capacity() * (size_of::<Worker>() + size_of::<SharedReadyList>())
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
            pg_sys::RequestAddinShmemSpace(counters::size());
            pg_sys::RequestAddinShmemSpace(limits::size());
            Lock::request(3 + capacity());
        }
    }

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn on_startup() {
        // SAFETY: the postmaster calls this before it starts any process, so no lock is needed; zeroed memory is a
        // valid board of no capacity, as every field is a number.
        unsafe {
            if let Some(next) = NEXT_STARTUP.get() {
                next();
            }
            let mut found = false;
            let memory = pg_sys::ShmemInitStruct(NAME.as_ptr(), size(), &mut found).cast::<Header>();
            if !found {
                // The content of a ready list is written when it is first used.
                let ready_lists = capacity() * size_of::<SharedReadyList>();
                memory.cast::<u8>().write_bytes(0, size() - ready_lists);
                (*memory).databases.store(settings::max_databases(), Relaxed);
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
            let mut found = false;
            let size = counters::size();
            let memory = pg_sys::ShmemInitStruct(COUNTERS.as_ptr(), size, &mut found).cast::<u8>();
            if !found {
                memory.write_bytes(0, size);
            }
            counters::lay_out(memory, !found);
            let mut found = false;
            let size = limits::size();
            let memory = pg_sys::ShmemInitStruct(LIMITS.as_ptr(), size, &mut found).cast::<u8>();
            if !found {
                memory.write_bytes(0, size);
            }
            limits::lay_out(memory, !found);
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
