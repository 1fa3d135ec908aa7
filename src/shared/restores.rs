//! The dumps that are being loaded into a database, which keep it still.
//!
//! ```text
//! none ── a session loads jobs ──► loading ── the last such session ends its hold ──► over, if the schema is known to be whole
//!   ▲                                │ ▲                                  └──► waiting for a session that makes indexes and triggers
//!   └────── released by hand ────────┘ └────── a session makes some ──────────────┘ │ none has come within the time
//!   ▲───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Sessions write all of it, under the board's lock; launcher, scheduler and workers read it without. A session counts
//! itself first, and then wakes the scheduler and the launcher, which look here before they run or start anything.

use super::{BOARD_LOCK, Board};
use crate::pg::clock::{self, Tick, Timestamp, after};
use crate::pg::lock::Lock;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32};
use std::time::Duration;

/// How many of the sessions are shown; all are counted.
const SHOWN: usize = 8;

pub struct Restores {
    /// Grows whenever everything is forgotten. A session remembers the generation of its hold, and ends it only in the
    /// same one.
    generation: AtomicU32,
    /// How many sessions hold the database.
    sessions: AtomicI32,
    shown: [Session; SHOWN],
    /// The schema is known to be whole, so that all is over with the last session.
    whole: AtomicBool,
    /// Until when the database is kept still for a session that makes the indexes; 0 if it is not.
    waits_until: AtomicI64,
    /// Since when it waits, by the wall clock.
    waits_since: AtomicI64,
}

struct Session {
    /// 0 if the position is free. Written last when it is taken.
    pid: AtomicI32,
    since: AtomicI64,
}

/// What keeps a database still.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Restoring {
    /// This session.
    Loading { pid: i32, since: Timestamp },
    /// The rest of the dump is to come, or not, by then.
    Waiting { since: Timestamp, until: Tick },
}

impl Restores {
    /// Returns true while the database is kept still, by sessions or by the wait. Reads the sessions first: pairs with
    /// `end_restore`, which sets the wait before it counts the last session out. It does not ask again whether there is
    /// none, because one may have come since, and the database was kept still all the time.
    pub fn is_active(&self) -> bool {
        self.sessions.load(SeqCst) > 0 || clock::tick() < self.waits_until.load(SeqCst)
    }

    /// Returns until when the database waits for the rest of a dump; `None` if it does not, or a session holds it.
    pub fn waits_until(&self) -> Option<Tick> {
        let until = self.waits_until.load(SeqCst);
        (until != 0 && self.sessions.load(SeqCst) == 0 && clock::tick() < until).then_some(until)
    }

    /// Returns what keeps the database still: each session that is shown, or the wait.
    pub fn all(&self) -> Vec<Restoring> {
        if let Some(until) = self.waits_until() {
            return vec![Restoring::Waiting { since: self.waits_since.load(SeqCst), until }];
        }
        let sessions = self.shown.iter().map(|session| (session.pid.load(SeqCst), session.since.load(SeqCst)));
        sessions.filter(|&(pid, _)| pid != 0).map(|(pid, since)| Restoring::Loading { pid, since }).collect()
    }

    /// Forgets everything but the generation, which grows.
    pub(super) fn reset(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.sessions.store(0, SeqCst);
        self.shown.iter().for_each(|session| session.pid.store(0, SeqCst));
        self.whole.store(false, SeqCst);
        self.waits_until.store(0, SeqCst);
    }
}

impl Board {
    /// Keeps a database still for the session `pid`. The session holds it already if `generation` is the current one.
    /// `whole` says that the schema is known to be whole. Returns the current generation, and true if the hold is new;
    /// `None` if the board is full.
    pub fn hold_for_restore(&self, oid: Oid, pid: i32, generation: Option<u32>, whole: bool) -> Option<(u32, bool)> {
        let mut held = (0, false);
        let entry = self.database_or_new(oid, |entry| {
            let restores = &entry.restores;
            if !restores.is_active() {
                restores.reset();
            }
            if whole {
                restores.whole.store(true, SeqCst);
            }
            entry.attendance.take_back();
            let now = restores.generation.load(SeqCst);
            held = (now, generation != Some(now));
            if held.1 {
                restores.sessions.fetch_add(1, SeqCst);
                if let Some(free) = restores.shown.iter().find(|session| session.pid.load(SeqCst) == 0) {
                    free.since.store(clock::now(), SeqCst);
                    free.pid.store(pid, SeqCst);
                }
            }
        })?;
        entry.scheduler.set();
        self.launcher().set();
        Some(held)
    }

    /// Ends the hold that a session has had since `generation`. If it was the last, and the schema is not known to be
    /// whole, the database is kept still for as long as `patience`. Raises nothing.
    pub fn end_restore(&self, oid: Oid, pid: i32, generation: u32, patience: Duration) {
        self.change_restores(oid, |restores| {
            if restores.generation.load(SeqCst) != generation {
                return;
            }
            if let Some(mine) = restores.shown.iter().find(|session| session.pid.load(SeqCst) == pid) {
                mine.pid.store(0, SeqCst);
            }
            if restores.sessions.load(SeqCst) > 1 {
                restores.sessions.fetch_sub(1, SeqCst);
            } else if restores.whole.load(SeqCst) {
                restores.reset();
            } else {
                // In this order, so that the database is held throughout: pairs with `is_active`, which reads the
                // sessions first.
                restores.waits_since.store(clock::now(), SeqCst);
                restores.waits_until.store(after(clock::tick(), patience), SeqCst);
                restores.sessions.store(0, SeqCst);
            }
        });
    }

    /// Ends all holds, whatever the sessions do. Returns true if there were any.
    pub fn release_restores(&self, oid: Oid) -> bool {
        let mut was_active = false;
        self.change_restores(oid, |restores| {
            was_active = restores.is_active();
            restores.reset();
        });
        was_active
    }

    /// Changes what holds a database, if it has an entry, and has the launcher look at it.
    fn change_restores(&self, oid: Oid, change: impl FnOnce(&Restores)) {
        let lock = Lock::take(BOARD_LOCK);
        if let Some(entry) = self.database(oid) {
            change(&entry.restores);
            entry.attendance.want();
        }
        drop(lock);
        self.launcher().set();
    }
}
