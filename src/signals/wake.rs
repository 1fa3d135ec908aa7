//! Putting jobs on the list of the role that runs them, and waking its idle workers.

use crate::pg::clock::{NEVER, Timestamp};
use crate::shared::ready_list::{Hint, Position};
use crate::shared::{Board, DatabaseEntry, State};
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;

/// Puts jobs on a role's shelf, if it has one: a worker that makes it later finds them by itself. There may be others from
/// a place on.
pub fn offer(board: Board, database: Oid, role: Oid, hints: &[Hint], others: Option<Position>) {
    let Some(list) = board.list(database, role) else { return };
    list.with_of(database, role, |ready| {
        for &hint in hints {
            ready.offer(hint);
        }
        if let Some(place) = others {
            ready.lower(place);
        }
    });
}

/// Wakes up to `count` idle workers of a role; how many it found.
pub fn wake(board: Board, database: Oid, role: Oid, count: usize) -> usize {
    let mut woken = 0;
    for (_, worker) in board.workers_of(database) {
        if woken == count {
            break;
        }
        if worker.role.get() == role && worker.change(State::Idle, State::Looking) {
            worker.latch.set();
            woken += 1;
        }
    }
    woken
}

/// The time of the scheduler's next look, taken: from here on, every commit of an earlier job is told anew.
pub fn take_due(entry: &DatabaseEntry) -> Timestamp {
    entry.next_due.swap(NEVER, SeqCst)
}
