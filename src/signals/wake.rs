//! Putting jobs on the list of the role that runs them, and waking its idle workers.

use crate::shared::Board;
use crate::shared::ready_list::{Hint, Position};
use pgrx::pg_sys::Oid;

/// Puts jobs on a role's ready list, and lowers its watermark to `others` if there are more from there on. A role
/// without a list has no worker: its next one searches the table from the start. To be called after the commit of the
/// jobs, and before [`wake`].
pub fn offer(board: Board, database: Oid, role: Oid, hints: &[Hint], others: Option<Position>) {
    let Some(list) = board.list(database, role) else { return };
    list.with_of(database, role, |ready| {
        for &hint in hints {
            ready.offer(hint);
        }
        if let Some(position) = others {
            ready.lower(position);
        }
    });
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
