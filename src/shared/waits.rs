//! The sessions that wait for jobs to end (kongtask.wait_for), so that whoever ends a job can wake them.
//!
//! ```text
//!        a session waits            it fills the entry in         it returns, fails or ends
//!  Free ───────────────► Reserved ───────────────────────► Waits ───────────────────────────► Free
//! ```
//!
//! Only that session changes the state. All others read entries that are in state Waits, note there that there is news,
//! and set the session's latch.
//!
//! **No end of a job is missed.** The session enters itself first, and then looks at the tables, by a snapshot that it
//! takes after that. Whoever ends a job commits first, and then looks here. Between the two steps of each is a fence, so
//! at least one sees the other. An entry may pass to another session while it is read: that session then looks at the
//! tables once for nothing.

use super::SharedOid;
use crate::pg::latch::LatchOf;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, fence};

/// How many sessions can wait at once.
pub const CAPACITY: usize = 1024;

const FREE: u32 = 0;
const RESERVED: u32 = 1;
const WAITS: u32 = 2;

/// The waiting sessions of the whole server.
pub struct Waits {
    /// How many there are: at least as many as are in state Waits. Raised by a session before it enters itself.
    waiting: AtomicU32,
    /// Entries from this one on were never used. Raised by the session that takes a new one.
    used: AtomicUsize,
    waiters: [Waiter; CAPACITY],
}

/// A session that waits. The session writes all but `has_news`.
pub struct Waiter {
    state: AtomicU32,
    database: SharedOid,
    job: AtomicI64,
    latch: LatchOf,
    /// True if the job may have ended. Set by whoever ends it; cleared by the session before it looks.
    has_news: AtomicBool,
}

impl Waiter {
    /// Returns true if the job may have ended since the last call.
    pub fn take_news(&self) -> bool {
        self.has_news.swap(false, SeqCst)
    }

    fn is_of(&self, database: Oid) -> bool {
        self.state.load(SeqCst) == WAITS && self.database.get() == database
    }

    fn wake(&self) {
        self.has_news.store(true, SeqCst);
        self.latch.set();
    }
}

impl Waits {
    /// Enters this session. Returns `None` if all entries are in use. [`Waits::leave`] must follow.
    pub fn enter(&self, database: Oid, job: i64) -> Option<&Waiter> {
        let is_taken = |waiter: &Waiter| waiter.state.compare_exchange(FREE, RESERVED, SeqCst, SeqCst).is_ok();
        let (number, waiter) = self.waiters.iter().enumerate().find(|(_, waiter)| is_taken(waiter))?;
        self.used.fetch_max(number + 1, SeqCst);
        waiter.database.set(database);
        waiter.job.store(job, SeqCst);
        waiter.latch.is_mine();
        waiter.has_news.store(false, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        waiter.state.store(WAITS, SeqCst);
        // Pairs with the fence in `has_any`.
        fence(SeqCst);
        Some(waiter)
    }

    /// Frees the entry of this session. Raises nothing.
    pub fn leave(&self, waiter: &Waiter) {
        waiter.latch.disown();
        waiter.state.store(FREE, SeqCst);
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// Returns false if no session waits at all. For whoever has ended jobs, once that is committed.
    pub fn has_any(&self) -> bool {
        // Pairs with the fence in `enter`.
        fence(SeqCst);
        self.waiting.load(SeqCst) != 0
    }

    /// Wakes the sessions that wait for a job, whose end is committed. Raises nothing.
    pub fn wake(&self, database: Oid, job: i64) {
        self.wake_those(database, |waiter| waiter.job.load(SeqCst) == job);
    }

    /// Wakes all sessions of a database that wait.
    pub fn wake_all(&self, database: Oid) {
        self.wake_those(database, |_| true);
    }

    fn wake_those(&self, database: Oid, which: impl Fn(&Waiter) -> bool) {
        if self.has_any() {
            let used = &self.waiters[..self.used.load(SeqCst).min(CAPACITY)];
            used.iter().filter(|waiter| waiter.is_of(database) && which(waiter)).for_each(Waiter::wake);
        }
    }
}
