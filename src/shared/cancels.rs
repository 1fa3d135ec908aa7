//! Requests to cancel jobs that run. They are here and not in the slots of the workers, because a job can pass from one
//! worker to another between the look of the session that cancels it and that session's commit, and because a worker
//! may run many jobs at once.
//!
//! ```text
//!         a session calls            it commits                  the job has been cancelled, or is over
//!         kongtask.cancel                │                                     │
//!  Free ─────────────────► Reserved ─────┴─────► Asked ────────────────────────┴──────► Free
//!    ▲                        │ it rolls back
//!    └────────────────────────┘
//! ```
//!
//! - Free: no process owns it. A session takes it by a compare-and-exchange.
//! - Reserved: that session's, until its transaction, or the subtransaction, ends. It alone reads and writes the entry.
//! - Asked: no process writes to it. Everyone reads it, and it is freed, by a compare-and-exchange, by the process that
//!   knows that the job will not run again: the worker that has recorded the cancel, or the scheduler of its database.
//!   While the job has a worker, the scheduler leaves the entry to that worker.
//!
//! **A worker sees each request for its job.** It publishes the job in its slot first, and then looks here. The session
//! makes the request first, and then looks at the slots and signals the workers that have the job. Between the two steps
//! of each is a fence, so at least one sees the other. A worker looks before each call, after each call that has failed,
//! and before it commits.
//!
//! **A request hits no other job.** The worker's signal handler interrupts the call only if it is one of a job that a
//! request names. An interrupt that comes too late is forgotten when the next call begins (`latch::let_cancel`).
//!
//! **What is promised.** Once the session has committed, the job ends in one of two ways: it is done, with all its
//! effects, as it finished first; or it has failed for good, without the effects of the attempt that was stopped. That
//! holds when its worker dies, when it fails by itself, is snoozed, or is taken by another worker: whoever takes it next
//! looks here, and the scheduler cancels one that waits. Only a crash of the server, which loses this memory, may let
//! the job run again.

use super::SharedOid;
use crate::pg::latch;
use crate::pg::text::DbText;
use crate::shared::Worker;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};

/// How many requests there can be at once.
const CAPACITY: usize = 256;

/// How long the text of a request may be, in bytes.
pub const LONGEST: usize = 512;

const FREE: u32 = 0;
const RESERVED: u32 = 1;
const ASKED: u32 = 2;

/// The requests of the whole server.
pub struct Cancels {
    /// How many may be Asked: at least as many as are. Raised by a session before it asks; lowered by whoever frees.
    asked: AtomicU32,
    requests: [Request; CAPACITY],
}

struct Request {
    state: AtomicU32,
    /// Tells the uses of this entry apart. Raised by the session that reserves it.
    number: AtomicU32,
    database: SharedOid,
    job: AtomicI64,
    /// What last_error is to say, in the encoding of the database, padded with zeros.
    text: [AtomicU64; LONGEST / 8],
}

/// An entry that this session has reserved.
pub struct Reservation {
    request: &'static Request,
    cancels: &'static Cancels,
    pub job: i64,
}

impl Reservation {
    /// Asks for the cancel. The caller then interrupts the workers that have the job.
    pub fn ask(self) {
        self.cancels.asked.fetch_add(1, SeqCst);
        self.request.state.store(ASKED, SeqCst);
        // Pairs with the fence in `Cancels::has_any`.
        fence(SeqCst);
    }

    /// Gives the entry back.
    pub fn give_back(self) {
        self.request.state.store(FREE, SeqCst);
    }
}

impl Request {
    fn is_asked(&self, database: Oid) -> bool {
        self.state.load(SeqCst) == ASKED && self.database.get() == database
    }

    fn text(&self) -> DbText {
        let mut bytes: Vec<u8> = self.text.iter().flat_map(|word| word.load(SeqCst).to_ne_bytes()).collect();
        bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
        DbText::new(&bytes)
    }
}

impl Cancels {
    /// Reserves an entry for a job of a database. `text` has [`LONGEST`] bytes at most. Returns `None` if all are in
    /// use.
    pub fn reserve(&'static self, database: Oid, job: i64, text: &DbText) -> Option<Reservation> {
        let is_taken = |request: &&Request| request.state.compare_exchange(FREE, RESERVED, SeqCst, SeqCst).is_ok();
        let request = self.requests.iter().find(is_taken)?;
        request.number.fetch_add(1, SeqCst);
        request.database.set(database);
        request.job.store(job, SeqCst);
        let mut bytes = text.as_bytes().iter().copied();
        for word in &request.text {
            word.store(u64::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0))), SeqCst);
        }
        Some(Reservation { request, cancels: self, job })
    }

    /// Returns false if there is no request at all. For a worker, once it has published what it runs.
    pub fn has_any(&self) -> bool {
        // Pairs with the fence in `Reservation::ask`.
        fence(SeqCst);
        self.asked.load(SeqCst) != 0
    }

    /// Returns what last_error is to say of a job that is to be cancelled.
    pub fn find(&self, database: Oid, job: i64) -> Option<DbText> {
        if !self.has_any() {
            return None;
        }
        self.requests.iter().find_map(|request| {
            let number = request.number.load(SeqCst);
            let is_it = || request.is_asked(database) && request.job.load(SeqCst) == job;
            let text = is_it().then(|| request.text())?;
            // Unless it has been freed, and perhaps reserved anew, while it was read.
            (is_it() && request.number.load(SeqCst) == number).then_some(text)
        })
    }

    /// Returns the jobs of a database that are to be cancelled.
    pub fn of(&self, database: Oid) -> Vec<i64> {
        if !self.has_any() {
            return Vec::new();
        }
        let asked = self.requests.iter().filter(|request| request.is_asked(database));
        let mut jobs: Vec<i64> = asked.map(|request| request.job.load(SeqCst)).collect();
        jobs.sort_unstable();
        jobs.dedup();
        jobs
    }

    /// Frees the requests for a job that will not run again.
    pub fn settle(&self, database: Oid, job: i64) {
        self.free(|request| request.is_asked(database) && request.job.load(SeqCst) == job);
    }

    /// Frees the requests of the databases that `has_ended` returns true for.
    pub fn free_of(&self, has_ended: impl Fn(Oid) -> bool) {
        self.free(|request| request.state.load(SeqCst) == ASKED && has_ended(request.database.get()));
    }

    fn free(&self, which: impl Fn(&Request) -> bool) {
        if self.asked.load(SeqCst) == 0 {
            return;
        }
        for request in self.requests.iter().filter(|request| which(request)) {
            if request.state.compare_exchange(ASKED, FREE, SeqCst, SeqCst).is_ok() {
                self.asked.fetch_sub(1, SeqCst);
            }
        }
    }
}

static REQUESTS: AtomicPtr<Cancels> = AtomicPtr::new(std::ptr::null_mut());
static ME: AtomicPtr<Worker> = AtomicPtr::new(std::ptr::null_mut());
/// The jobs of the call, if it has many, in the order of their ids.
static JOBS: AtomicPtr<i64> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Lets requests interrupt what this process, a worker, runs.
pub fn receive(cancels: &'static Cancels, me: &'static Worker) {
    ME.store(std::ptr::from_ref(me).cast_mut(), SeqCst);
    REQUESTS.store(std::ptr::from_ref(cancels).cast_mut(), SeqCst);
    latch::cancel_if(concerns_call);
}

/// Returns true if a request names a job of the running call. For a signal handler.
fn concerns_call() -> bool {
    // SAFETY: what was stored lives as long as the process, or as long as COUNT says so: see `ManyJobs`.
    unsafe {
        let (Some(cancels), Some(me)) = (REQUESTS.load(SeqCst).as_ref(), ME.load(SeqCst).as_ref()) else {
            return false;
        };
        let (database, running) = (me.database.get(), me.running_job());
        let jobs = match COUNT.load(SeqCst) {
            0 => std::slice::from_ref(&running),
            count => std::slice::from_raw_parts(JOBS.load(SeqCst), count),
        };
        let concerns =
            |request: &Request| request.is_asked(database) && jobs.binary_search(&request.job.load(SeqCst)).is_ok();
        cancels.asked.load(SeqCst) != 0 && cancels.requests.iter().any(concerns)
    }
}

/// While it exists, a call runs that is of many jobs.
pub struct ManyJobs(#[expect(dead_code, reason = "a signal handler reads it")] Vec<i64>);

impl ManyJobs {
    pub fn begin(mut ids: Vec<i64>) -> ManyJobs {
        ids.sort_unstable();
        JOBS.store(ids.as_mut_ptr(), SeqCst);
        COUNT.store(ids.len(), SeqCst);
        ManyJobs(ids)
    }
}

impl Drop for ManyJobs {
    fn drop(&mut self) {
        COUNT.store(0, SeqCst);
    }
}
