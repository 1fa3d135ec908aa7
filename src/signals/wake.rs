//! Putting jobs on the list of the role that runs them, and waking its idle workers.

use crate::shared::ready_list::{Hint, Position};
use crate::shared::{Board, SharedReadyList};
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;

/// Puts jobs on a role's ready list, and lowers its watermark to `others` if there are more from there on. A role
/// without a list has no worker: its next one searches the table from the start, and the scheduler is told to start
/// one. To be called after the commit of the jobs, and before [`wake`].
pub fn offer(board: Board, database: Oid, role: Oid, hints: &[Hint], others: Option<Position>) {
    let offered = board.list(database, role).and_then(|list| offer_on(list, database, role, hints, others));
    if offered.is_none()
        && let Some(entry) = board.database(database)
        && !entry.has_unlisted_jobs.swap(true, SeqCst)
    {
        entry.scheduler.set();
    }
}

fn offer_on(list: &SharedReadyList, database: Oid, role: Oid, hints: &[Hint], others: Option<Position>) -> Option<()> {
    list.with_of(database, role, |ready| {
        for &hint in hints {
            ready.offer(hint);
        }
        if let Some(position) = others {
            ready.lower(position);
        }
    })
}

/// Wakes up to `count` idle workers of a role. Returns how many it found.
pub fn wake(board: Board, database: Oid, role: Oid, count: usize) -> usize {
    let mut woken = 0;
    for (_, worker) in board.workers_of(database) {
        if woken == count {
            break;
        }
        if worker.role.get() == role && worker.wake() {
            woken += 1;
        }
    }
    woken
}

/// Does the same, and wakes the scheduler if there are too few and it can do something about that.
pub fn wake_enough(board: Board, database: Oid, role: Oid, count: usize) {
    if wake(board, database, role, count) < count
        && let Some(entry) = board.database(database)
        && entry.can_rebalance.is_set()
    {
        entry.scheduler.set();
    }
}
