//! Wake-up at commit. A transaction notes what work it adds; once it has committed, idle workers' latches are set: as
//! many as it added jobs, no more. Nothing is sent on rollback, and nothing to processes that have nothing to do.
//!
//! No wake-up is lost between a worker that found nothing and a commit: the worker goes idle first, and then compares
//! the generation with the one it read before it looked.

use crate::pg::clock::{self, NEVER, Timestamp};
use crate::pg::{background, xact};
use crate::restore;
use crate::shmem::{self, Board, Database, State};
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;

/// What the current transaction will tell at commit.
#[derive(Default)]
struct Notes {
    /// Jobs that can run now, by the role that runs them.
    jobs: Vec<(Oid, usize)>,
    /// The earliest run_at still to come.
    due: Option<Timestamp>,
    /// A queue was released: its next job may be anybody's.
    queue_released: bool,
    tasks_changed: bool,
    /// The extension is new in this database.
    created: bool,
    /// Databases that must stay empty until this transaction ends.
    held: Vec<Oid>,
}

thread_local! {
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// Has this backend's transactions tell at their end.
pub fn watch_transactions() {
    xact::at_end(end);
}

fn note(change: impl FnOnce(&mut Notes)) {
    watch_transactions();
    NOTES.with_borrow_mut(|notes| change(notes.get_or_insert_default()));
}

/// A job of a task that runs as `role` is there, to be run at `run_at`.
pub fn note_job(role: Oid, run_at: Timestamp) {
    note(|notes| {
        if run_at > clock::transaction_start() {
            notes.due = Some(notes.due.map_or(run_at, |due| due.min(run_at)));
        } else if let Some((_, count)) = notes.jobs.iter_mut().find(|(of, _)| *of == role) {
            *count += 1;
        } else {
            notes.jobs.push((role, 1));
        }
    });
}

/// A queue was released.
pub fn note_queue_released() {
    note(|notes| notes.queue_released = true);
}

/// kongtask.tasks has changed.
pub fn note_tasks_changed() {
    note(|notes| notes.tasks_changed = true);
}

/// CREATE EXTENSION.
pub fn note_created() {
    note(|notes| notes.created = true);
}

/// A database must be left and not entered until this transaction ends.
pub fn note_held(database: Oid) {
    note(|notes| notes.held.push(database));
}

/// Called at the end of a transaction; must not raise.
fn end(committed: bool) {
    restore::note_transaction_end();
    let (Some(notes), Some(board)) = (NOTES.take(), shmem::board()) else { return };
    for held in &notes.held {
        if let Some(entry) = board.database(*held) {
            entry.wanted.store(true, SeqCst);
            entry.holds.fetch_sub(1, SeqCst);
        }
        board.launcher().set();
    }
    if committed {
        tell(board, &notes);
    }
}

fn tell(board: Board, notes: &Notes) {
    let oid = background::database();
    let entry = board.database(oid).filter(|entry| entry.scheduler_pid.load(SeqCst) != 0);
    let Some(entry) = entry else {
        if (notes.created || notes.tasks_changed)
            && let Some(entry) = board.database_or_new(oid)
        {
            entry.wanted.store(true, SeqCst);
            board.launcher().set();
        }
        return;
    };
    if notes.created || notes.tasks_changed {
        entry.scheduler.set();
    }
    if let Some(due) = notes.due
        && entry.lower_due(due)
    {
        entry.scheduler.set();
    }
    if notes.queue_released || !notes.jobs.is_empty() {
        entry.generation.fetch_add(1, SeqCst);
    }
    let mut short = false;
    for &(role, count) in &notes.jobs {
        short |= wake(board, oid, role, count) < count;
    }
    if notes.queue_released {
        wake_each_role(board, oid);
    }
    if short && entry.elastic.load(SeqCst) {
        entry.scheduler.set();
    }
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

/// Wakes one idle worker of each role that this process does not itself look for.
fn wake_each_role(board: Board, database: Oid) {
    let me = background::pid();
    let mut served: Vec<Oid> = board
        .workers_of(database)
        .filter(|(_, worker)| worker.pid.load(SeqCst) == me)
        .map(|(_, worker)| worker.role.get())
        .collect();
    for (_, worker) in board.workers_of(database) {
        let role = worker.role.get();
        if !served.contains(&role) && worker.change(State::Idle, State::Looking) {
            worker.latch.set();
            served.push(role);
        }
    }
}

/// The generation to compare before going to sleep; to be read before looking.
pub fn generation(entry: &Database) -> u64 {
    entry.generation.load(SeqCst)
}

/// The time of the scheduler's next look, taken: from here on, every commit of an earlier job is told anew.
pub fn take_due(entry: &Database) -> Timestamp {
    entry.next_due.swap(NEVER, SeqCst)
}
