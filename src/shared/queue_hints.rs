//! Hints on queues: where the next job of each is, and which row its lock is.
//!
//! Entries of finished jobs stay in the index of queues as long as an old snapshot may see them, and a look from the
//! queue's beginning would pass all of them. So each process that looks for a queue's next job leaves word where jobs
//! may still be (its *floors*), and sessions lower these by the jobs that they add or change. In the same way, each lock
//! of a queue would pass the rows of all locks before it: see `src/jobs/queues.rs`.
//!
//! As with a ready list, no job is missed:
//!
//! - A process reads the floors, and forgets what they were lowered by, before it takes the snapshot of its look. A
//!   session lowers them after its commit. So the look either shows the job, or the floors are lowered by it once more.
//! - What a look has found counts from the commit of its transaction on, if no other process has begun to look at the
//!   queue meanwhile: the two know of different jobs.
//! - From time to time, and whenever the tasks, the pauses or the forbidden flags are others, a look begins at the
//!   queue's beginning.
//!
//! A hint may be lost at any time: the place is taken by another queue. Then a look begins at the queue's beginning, and
//! the row of the lock is found by its index.
//!
//! A process that reads or writes anything but `key` holds the lock of hints.

use super::ready_list::Position;
use crate::pg::clock::{self, Tick, Timestamp};
use crate::pg::heap::RowAddress;
use pgrx::pg_sys::Oid;
use std::cell::UnsafeCell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// How many priorities of a queue have floors of their own.
const PRIORITIES: usize = 4;

/// Where jobs may be that a look for a queue's next job must see: in some priorities from a position on, and anywhere
/// from a last position on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Floors {
    /// In ascending order of their priorities, all before `rest`.
    positions: [Position; PRIORITIES],
    count: usize,
    rest: Position,
}

impl Floors {
    /// Jobs may be anywhere.
    pub const ANYWHERE: Floors = Floors { positions: [Position::START; PRIORITIES], count: 0, rest: Position::START };
    /// There are none.
    pub const NOWHERE: Floors = Floors { rest: Position::END, ..Floors::ANYWHERE };

    /// Returns the positions from which jobs of their priorities may be.
    pub fn positions(&self) -> &[Position] {
        &self.positions[..self.count]
    }

    /// Returns the position from which jobs may be anywhere.
    pub fn rest(&self) -> Position {
        self.rest
    }

    /// Adds that jobs of a position's priority may be there or behind it.
    pub fn add(&mut self, position: Position) {
        if position >= self.rest {
            return;
        }
        let at = self.positions().partition_point(|floor| floor.priority < position.priority);
        if let Some(floor) =
            self.positions[..self.count].get_mut(at).filter(|floor| floor.priority == position.priority)
        {
            *floor = position.min(*floor);
            return;
        }
        if self.count == PRIORITIES {
            // There is no room for the last.
            self.rest = if at == PRIORITIES { position } else { self.positions[PRIORITIES - 1] };
            if at == PRIORITIES {
                return;
            }
            self.count -= 1;
        }
        self.positions.copy_within(at..self.count, at + 1);
        self.positions[at] = position;
        self.count += 1;
    }

    /// Adds that jobs may be anywhere from a position on.
    pub fn add_rest(&mut self, rest: Position) {
        self.rest = self.rest.min(rest);
        self.count = self.positions().partition_point(|floor| *floor < self.rest);
    }

    /// Adds all places of another.
    pub fn add_all(&mut self, other: &Floors) {
        self.add_rest(other.rest);
        other.positions().iter().for_each(|floor| self.add(*floor));
    }
}

/// What a look depends on besides the jobs. One with other terms begins at the queue's beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Terms {
    /// What [`super::tasks_changes`] was.
    pub tasks: u64,
    /// The hash of the forbidden flags.
    pub flags: u64,
}

/// A look for a queue's next job.
pub struct Look {
    pub queue: u64,
    pub ticket: u64,
    pub floors: Floors,
    /// Until when floors that this look finds hold; `None` if it does not look everywhere, and does not change that.
    pub valid_until: Option<Timestamp>,
}

/// What is known of the row that is a queue's lock.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LockRow {
    /// Where the row was when it was last written, if there is one.
    pub address: Option<RowAddress>,
    /// How often the lock was taken, as far as it was counted.
    pub taken: u64,
    /// The transaction that took it when this number was last a multiple of [`LockRow::WINDOW`].
    pub mark: u64,
    /// True if the row is to stay when the lock is released, as rows that are deleted cannot be removed for now.
    pub is_kept: bool,
}

impl LockRow {
    pub const NONE: LockRow = LockRow { address: None, taken: 0, mark: 0, is_kept: false };

    /// How often a lock is taken before it is asked again whether rows that are deleted can be removed. That often the
    /// row is deleted and inserted although they cannot.
    const WINDOW: u64 = 32;

    /// Returns what is known once the lock is taken again, by a transaction. `is_removable` returns true if a row that
    /// another one has deleted can be removed.
    pub fn taken(
        self,
        address: Option<RowAddress>,
        transaction: u64,
        is_removable: impl FnOnce(u64) -> bool,
    ) -> LockRow {
        let taken = self.taken + 1;
        if !taken.is_multiple_of(LockRow::WINDOW) {
            return LockRow { address, taken, ..self };
        }
        let is_kept = self.mark != 0 && !is_removable(self.mark);
        LockRow { address, taken, mark: transaction, is_kept }
    }
}

/// What is known of a queue.
#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    floors: Floors,
    /// What the floors were lowered by since the latest look began.
    lowered: Floors,
    /// The number of the latest look.
    ticket: u64,
    terms: Terms,
    valid_until: Timestamp,
    /// What the database's `forgotten` was when the latest look began.
    forgotten: u64,
    used: Tick,
    lock: LockRow,
}

impl Known {
    const NOTHING: Known = Known {
        floors: Floors::ANYWHERE,
        lowered: Floors::NOWHERE,
        ticket: 0,
        terms: Terms { tasks: 0, flags: 0 },
        valid_until: Timestamp::MIN,
        forgotten: 0,
        used: Tick::MIN,
        lock: LockRow::NONE,
    };
}

/// The place of a hint.
#[repr(C)]
struct Place {
    /// Tells the queue and its database from others; 0 if the place is free. Written under the lock; read by sessions
    /// after their commit, without it.
    key: AtomicU64,
    known: UnsafeCell<Known>,
}

// SAFETY: `known` is reached under the lock only.
unsafe impl Sync for Place {}

/// Each queue has so many places to choose from.
const WAYS: usize = 4;
const PLACES: usize = 2048;
/// Databases share the counters by their OIDs.
const COUNTERS: usize = 64;

/// The hints. Zeroed memory is a table without any.
#[repr(C)]
pub struct QueueHints {
    /// The number of the latest look at any queue. Under the lock.
    ticket: AtomicU64,
    /// Count how often all floors of a database were forgotten. Raised by a session after its commit.
    forgotten: [AtomicU64; COUNTERS],
    places: [Place; PLACES],
}

/// Returns what tells a queue and its database from others.
fn key(database: Oid, queue: u64) -> u64 {
    // A hash's bits are as good as random: any mixture will do.
    (queue ^ u64::from(database.to_u32()).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
}

impl QueueHints {
    fn forgotten(&self, database: Oid) -> &AtomicU64 {
        &self.forgotten[database.to_u32() as usize % COUNTERS]
    }

    /// Returns the places that a queue can have.
    fn places(&self, key: u64) -> &[Place] {
        let first = (key as usize % (PLACES / WAYS)) * WAYS;
        &self.places[first..first + WAYS]
    }

    fn place(&self, key: u64) -> Option<&Place> {
        self.places(key).iter().find(|place| place.key.load(SeqCst) == key)
    }

    /// Returns true if there is a hint on a queue. Needs no lock: a session that does not see the key has committed
    /// before the look that stored it takes its snapshot.
    pub(super) fn has(&self, database: Oid, queue: u64) -> bool {
        self.place(key(database, queue)).is_some()
    }

    /// Hands what is known of a queue to `f`, if there is a hint. The lock is held.
    fn with<T>(&self, database: Oid, queue: u64, f: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let place = self.place(key(database, queue))?;
        // SAFETY: the lock is held.
        Some(f(unsafe { &mut *place.known.get() }))
    }

    /// Takes a place for a queue that has none: one that is free, or the one that was used least lately. The lock is
    /// held.
    fn enter(&self, database: Oid, queue: u64) {
        let key = key(database, queue);
        if self.place(key).is_some() {
            return;
        }
        let used = |place: &&Place| match place.key.load(Relaxed) {
            0 => Tick::MIN,
            // SAFETY: the lock is held.
            _ => unsafe { (*place.known.get()).used },
        };
        if let Some(place) = self.places(key).iter().min_by_key(used) {
            // SAFETY: the lock is held.
            unsafe { *place.known.get() = Known::NOTHING };
            place.key.store(key, SeqCst);
        }
    }

    /// Begins a look at a queue. To be called before its snapshot is taken. The lock is held.
    pub(super) fn begin_look(&self, database: Oid, queue: u64, terms: Terms, now: Timestamp) -> Look {
        let ticket = self.ticket.fetch_add(1, Relaxed) + 1;
        let forgotten = self.forgotten(database).load(SeqCst);
        self.enter(database, queue);
        let floors = self.with(database, queue, |known| {
            let is_valid = known.terms == terms && known.forgotten == forgotten && now < known.valid_until;
            if is_valid {
                known.floors.add_all(&known.lowered);
            } else {
                (known.floors, known.valid_until) = (Floors::ANYWHERE, Timestamp::MIN);
            }
            (known.lowered, known.ticket, known.terms, known.forgotten) = (Floors::NOWHERE, ticket, terms, forgotten);
            known.used = clock::tick();
            known.floors
        });
        Look { queue, ticket, floors: floors.unwrap_or(Floors::ANYWHERE), valid_until: None }
    }

    /// Leaves word what a look has found, once its transaction is committed. The lock is held.
    pub(super) fn end_look(&self, database: Oid, look: &Look) {
        self.with(database, look.queue, |known| {
            if known.ticket == look.ticket {
                known.floors = look.floors;
                known.valid_until = look.valid_until.unwrap_or(known.valid_until);
            }
        });
    }

    /// Lowers the floors of a queue. The lock is held.
    pub(super) fn lower(&self, database: Oid, queue: u64, floors: &Floors) {
        self.with(database, queue, |known| known.lowered.add_all(floors));
    }

    /// Forgets all floors of a database.
    pub(super) fn forget(&self, database: Oid) {
        self.forgotten(database).fetch_add(1, SeqCst);
    }

    /// Returns what is known of a queue's lock. The lock of hints is held.
    pub(super) fn lock_row(&self, database: Oid, queue: u64) -> LockRow {
        self.with(database, queue, |known| known.lock).unwrap_or(LockRow::NONE)
    }

    /// Leaves word of it. The lock of hints is held.
    pub(super) fn set_lock_row(&self, database: Oid, queue: u64, row: LockRow) {
        self.enter(database, queue);
        self.with(database, queue, |known| (known.lock, known.used) = (row, clock::tick()));
    }

    /// Returns the tick at which a queue was last used, as far as is known. The lock is held.
    pub(super) fn used(&self, database: Oid, queue: u64) -> Option<Tick> {
        self.with(database, queue, |known| known.used)
    }
}

#[cfg(test)]
mod tests {
    use super::{Floors, PRIORITIES};
    use crate::shared::ready_list::Position;

    fn at(priority: i32, id: i64) -> Position {
        Position { priority, run_at: 0, id }
    }

    #[test]
    fn floors_cover_every_position_that_was_added() {
        // All orders in which positions of few and of many priorities can come, by a small generator.
        let mut state = 1_u64;
        let mut next = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        for _ in 0..2000 {
            let (mut floors, mut other) = (Floors::NOWHERE, Floors::NOWHERE);
            let mut added = Vec::new();
            for n in 0..next(20) {
                let position = at(next(PRIORITIES as u64 * 2) as i32, next(5) as i64);
                added.push(position);
                match n % 3 {
                    0 => other.add(position),
                    _ => floors.add(position),
                }
            }
            if next(3) == 0 {
                other.add_rest(at(5, 2));
            }
            floors.add_all(&other);
            let covers = |position: &Position| {
                let in_priority = |floor: &Position| floor.priority == position.priority && floor <= position;
                *position >= floors.rest() || floors.positions().iter().any(in_priority)
            };
            assert!(added.iter().all(covers), "{added:?}: {floors:?}");
            assert!(floors.positions().is_sorted() && floors.positions().iter().all(|floor| *floor < floors.rest()));
        }
    }

    #[test]
    fn floors_of_few_priorities_are_exact() {
        let mut floors = Floors::NOWHERE;
        [at(2, 7), at(1, 5), at(2, 3), at(2, 9)].into_iter().for_each(|position| floors.add(position));
        assert_eq!((floors.positions(), floors.rest()), (&[at(1, 5), at(2, 3)][..], Position::END));
        floors.add_rest(at(2, 1));
        assert_eq!((floors.positions(), floors.rest()), (&[at(1, 5)][..], at(2, 1)));
    }
}
