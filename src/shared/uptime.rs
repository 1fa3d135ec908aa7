//! From when and until when the scheduler of each database has been alive, kept where a crash of the server does not reach it: so
//! that the next scheduler can tell what the former was about to fire as it was killed from what fell due while none
//! ran.

use super::crash_records;
use crate::pg::catch::{Level, log_with};
use crate::pg::clock::Timestamp;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicU32};

/// With what other programs keep there: no base backup holds it.
const FILE: &str = "pg_stat_tmp/kongtask.uptime";

/// What is kept of one database.
#[repr(C)]
pub struct Uptime {
    /// 0: none.
    database: AtomicU32,
    since: AtomicI64,
    until: AtomicI64,
    /// When something falls due there that the scheduler knew of as it left; 0 if it did not leave.
    due: AtomicI64,
}

/// A time during which a scheduler of a database was alive, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Span {
    pub const NONE: Span = Span { since: i64::MAX, until: i64::MIN };
}

thread_local! {
    static UPTIMES: Cell<&'static [Uptime]> = const { Cell::new(&[]) };
}

/// Maps the file. To be called once, by the postmaster, in its data directory.
pub fn prepare(capacity: usize) {
    match crash_records::map(FILE, capacity * size_of::<Uptime>()) {
        // SAFETY: as large as that, for the life of the process; every field is an atomic number, and any is valid.
        Ok(memory) => UPTIMES.set(unsafe { std::slice::from_raw_parts(memory.cast(), capacity) }),
        Err(error) => {
            let detail = format!("{FILE}: {error}");
            let what = "kongtask cannot tell what a scheduler that crashes was about to fire";
            log_with(Level::Warning, what, Some(detail), None);
        }
    }
}

/// The record of a database, of which this process is the scheduler. One that has none gets a free one, or that of the
/// database whose scheduler has been gone for longest.
pub fn of(database: Oid) -> Option<&'static Uptime> {
    let all = UPTIMES.get();
    if let Some(mine) = all.iter().find(|uptime| uptime.database.load(SeqCst) == database.to_u32()) {
        return Some(mine);
    }
    loop {
        let oldest = all.iter().min_by_key(|uptime| uptime.age())?;
        let of = oldest.database.load(SeqCst);
        if oldest.database.compare_exchange(of, database.to_u32(), SeqCst, SeqCst).is_ok() {
            oldest.store(Span::NONE);
            return Some(oldest);
        }
    }
}

/// Records that the scheduler of a database leaves, and when something is due there. To be called by that scheduler.
pub fn is_due_at(database: Oid, due: Timestamp) {
    if let Some(mine) = of(database) {
        mine.due.store(due, SeqCst);
    }
}

/// Returns when something is due in each database that had a scheduler once; 0 for those whose scheduler was there until
/// the server ended.
pub fn known_due() -> HashMap<Oid, Timestamp> {
    let known = UPTIMES.get().iter().filter(|uptime| uptime.database.load(SeqCst) != 0);
    known.map(|uptime| (Oid::from(uptime.database.load(SeqCst)), uptime.due.load(SeqCst))).collect()
}

impl Uptime {
    fn age(&self) -> i64 {
        if self.database.load(SeqCst) == 0 { i64::MIN } else { self.until.load(SeqCst) }
    }

    /// When the last scheduler of the database that caught up with its schedules was alive.
    pub fn span(&self) -> Span {
        Span { since: self.since.load(SeqCst), until: self.until.load(SeqCst) }
    }

    /// To be called by the scheduler of the database only. A crash between the two leaves an empty span, or the new one.
    pub fn store(&self, span: Span) {
        if self.since.load(SeqCst) != span.since {
            self.until.store(i64::MIN, SeqCst);
            self.since.store(span.since, SeqCst);
        }
        self.until.store(span.until, SeqCst);
        self.due.store(0, SeqCst);
    }
}
