//! Wake-up at commit. A transaction notes what work it adds; once it has committed, the session puts what can run on
//! its role's ready list, and wakes as many idle workers as it added jobs. Nothing is sent on rollback, and nothing to
//! processes that have nothing to do.
//!
//! No wake-up is lost between a worker that found nothing and a commit: the worker goes idle first, and then looks at
//! the ready list once more. See [`crate::shared::State`]'s protocol.

use super::wake::{offer, wake};
use crate::pg::clock::{self, Timestamp};
use crate::pg::subxact::{self, Noted};
use crate::pg::{background, fault, xact};
use crate::shared::counters::{Outcome, TaskCounters};
use crate::shared::queue_hints::{Floors, LockRow, Look};
use crate::shared::ready_list::{CAPACITY, Hint, NO_KEY, Position};
use crate::shared::{self, Board};
use pgrx::pg_sys::{InvalidOid, Oid};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

/// What the current transaction will tell at commit.
#[derive(Default)]
struct Notes {
    /// Jobs that can run now, by the role that runs them.
    jobs: Vec<(Oid, Jobs)>,
    /// What [`shared::tasks_changes`] was when the first of their keys was read.
    keyed_at: Option<u64>,
    /// How many jobs of which task were added or cancelled.
    counted: Noted<Counted>,
    /// The earliest run_at still to come.
    due: Option<Timestamp>,
    /// Where jobs were added or changed, by the hash of their queue's name.
    queues: BTreeMap<u64, Floors>,
    /// There are more of them.
    many_queues: bool,
    /// The latest look at each of some queues, and the rows of their locks that it has written, by the hash of their
    /// name.
    looks: BTreeMap<u64, Look>,
    lock_rows: BTreeMap<u64, LockRow>,
    tasks_changed: bool,
    /// It has left out jobs that are paused.
    paused: Option<PausedJobs>,
    /// Jobs that end, whose waiting sessions are to be woken.
    ended: Vec<i64>,
    /// There are more of them.
    many_ended: bool,
    schedules_changed: bool,
    /// The extension is new in this database.
    created: bool,
    /// It may have added anything, for now or for later.
    anything: bool,
    /// Databases that must stay empty until this transaction ends.
    held: Vec<Oid>,
}

/// Jobs that were not noted because they are paused.
struct PausedJobs {
    /// What [`shared::tasks_changes`] was when the pauses were read.
    changes: u64,
    /// When the first of the pauses ends.
    until: Timestamp,
}

/// Jobs to be counted once their change is committed.
struct Counted {
    counters: &'static TaskCounters,
    change: Change,
    jobs: u64,
}

#[derive(Default)]
struct Jobs {
    count: usize,
    /// The first of them: as many as a ready list holds, or a few more.
    hints: Vec<Hint>,
    /// The position from which there are others.
    others: Option<Position>,
}

impl Jobs {
    fn add(&mut self, hint: Hint) {
        self.count += 1;
        self.hints.push(hint);
        if self.hints.len() > CAPACITY * 2 {
            self.hints.sort_unstable_by_key(|hint| hint.position);
            let first = self.hints[CAPACITY].position;
            self.others = Some(self.others.map_or(first, |others| others.min(first)));
            self.hints.truncate(CAPACITY);
        }
    }
}

thread_local! {
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

fn note(change: impl FnOnce(&mut Notes)) {
    xact::at_end(end);
    NOTES.with_borrow_mut(|notes| change(notes.get_or_insert_default()));
}

/// Notes that a job's key was read by the limits of when [`shared::tasks_changes`] was `changes`.
pub fn note_keyed(changes: u64) {
    note(|notes| _ = notes.keyed_at.get_or_insert(changes));
}

/// Notes a job that can run now, of a task that runs as `role`.
pub fn note_job(role: Oid, hint: Hint) {
    if role == InvalidOid {
        // Its task waits for its role.
        return;
    }
    note(|notes| match notes.jobs.iter_mut().find(|(of, _)| *of == role) {
        Some((_, jobs)) => jobs.add(hint),
        None => notes.jobs.push((role, Jobs { count: 1, hints: vec![hint], others: None })),
    });
}

/// What a session does to a job that is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Cancelled,
}

/// Notes a change of a job, to be counted once it is committed.
pub fn note_change(counters: &'static TaskCounters, change: Change) {
    subxact::at_end(end_of_subtransaction);
    note(|notes| {
        notes.counted.note(Counted { counters, change, jobs: 1 });
        notes.counted.merge_last(Counted::merge);
    });
}

impl Counted {
    fn merge(&mut self, other: &Counted) -> bool {
        let is_like = std::ptr::eq(self.counters, other.counters) && self.change == other.change;
        self.jobs += if is_like { other.jobs } else { 0 };
        is_like
    }
}

/// Called at the end of a subtransaction; must not raise. What one that is rolled back has done is not counted. Its
/// other notes stay, as they are hints.
fn end_of_subtransaction(end: subxact::End) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.counted.follow(end);
            notes.counted.merge_last(Counted::merge);
        }
    });
}

/// Notes a job that is to be run later.
pub fn note_due(run_at: Timestamp) {
    note(|notes| notes.due = Some(notes.due.map_or(run_at, |due| due.min(run_at))));
}

/// Of how many queues one transaction notes anything. If it adds jobs to more, all looks begin at their queue's
/// beginning.
const MOST_QUEUES: usize = 1000;

/// Notes a job that was added to a queue, or changed, for those who look for the queue's next job.
pub fn note_queued(queue: u64, position: Position) {
    note(|notes| {
        if notes.queues.len() < MOST_QUEUES || notes.queues.contains_key(&queue) {
            notes.queues.entry(queue).or_insert(Floors::NOWHERE).add(position);
        } else {
            notes.many_queues = true;
        }
    });
}

/// Returns where the current transaction has added or changed jobs of a queue.
pub fn noted_in(queue: u64) -> Floors {
    NOTES.with_borrow(|notes| match notes {
        Some(notes) if notes.many_queues || notes.anything => Floors::ANYWHERE,
        Some(notes) => notes.queues.get(&queue).copied().unwrap_or(Floors::NOWHERE),
        None => Floors::NOWHERE,
    })
}

/// Notes what a look at a queue has found. What it has seen of the transaction's own changes must not be rolled back
/// without the transaction.
pub fn note_look(look: Look) {
    note(|notes| insert(&mut notes.looks, look.queue, look));
}

/// Notes that the row of a queue's lock was written.
pub fn note_lock_row(queue: u64, row: LockRow) {
    note(|notes| insert(&mut notes.lock_rows, queue, row));
}

fn insert<T>(notes: &mut BTreeMap<u64, T>, queue: u64, value: T) {
    if notes.len() < MOST_QUEUES || notes.contains_key(&queue) {
        notes.insert(queue, value);
    }
}

/// Notes a job that is paused until then, by pauses that were read when [`shared::tasks_changes`] was `changes`. If the
/// pause ends before the commit, the process that looks for its jobs may not see this one.
pub fn note_paused(changes: u64, until: Timestamp) {
    note(|notes| match &mut notes.paused {
        Some(paused) => {
            paused.changes = paused.changes.min(changes);
            paused.until = paused.until.min(until);
        }
        none => *none = Some(PausedJobs { changes, until }),
    });
}

/// Notes a job that ends, for the sessions that wait for it.
pub fn note_ended(job: i64) {
    const MOST: usize = 100;
    note(|notes| {
        if notes.ended.len() < MOST {
            notes.ended.push(job);
        } else {
            notes.many_ended = true;
        }
    });
}

/// Does the same for a job that ends in a way which leaves no row in kongtask.runs. If no session waits now, nothing is
/// noted: one that begins before the commit looks again by itself, a little later.
pub fn note_removed(job: i64) {
    if shared::board().is_some_and(|board| board.waits().has_any()) {
        note_ended(job);
    }
}

/// Does the same for any jobs.
pub fn note_many_removed() {
    if shared::board().is_some_and(|board| board.waits().has_any()) {
        note(|notes| notes.many_ended = true);
    }
}

/// Notes that kongtask.tasks or kongtask.pauses has changed.
pub fn note_tasks_changed() {
    note(|notes| notes.tasks_changed = true);
}

/// Notes that the transaction changes kongtask.crontab.
pub fn note_schedules_changed() {
    note(|notes| notes.schedules_changed = true);
}

/// Notes that the transaction creates the extension.
pub fn note_created() {
    note(|notes| notes.created = true);
}

/// Notes that there may be jobs that no session has noted: PREPARE TRANSACTION forgets the notes of its transaction.
pub fn note_anything() {
    note(|notes| notes.anything = true);
}

/// Notes a database that this transaction holds, so that its end releases it.
pub fn note_held(database: Oid) {
    note(|notes| notes.held.push(database));
}

/// Called at the end of a transaction; must not raise.
fn end(committed: bool) {
    let (Some(notes), Some(board)) = (NOTES.take(), shared::board()) else { return };
    for held in &notes.held {
        board.release(*held);
    }
    if committed {
        // A fault point's error is dropped, as nothing may raise here. It may still end the process.
        let _ = fault::point("committed");
        for Counted { counters, change, jobs } in notes.counted.values() {
            match change {
                Change::Added => counters.added(*jobs),
                Change::Cancelled => counters.count(Outcome::Cancelled, *jobs),
            }
        }
        tell(board, notes);
    }
}

fn tell(board: Board, notes: Notes) {
    let oid = background::database();
    if notes.many_ended {
        board.waits().wake_all(oid);
    } else {
        notes.ended.iter().for_each(|&job| board.waits().wake(oid, job));
    }
    // Of a change that was prepared, COMMIT PREPARED tells by invalidation messages only: hundreds of these a second may
    // change no task.
    if notes.tasks_changed {
        board.count_tasks_change(oid);
    }
    // Read after the commit: a pause that ends later is seen by a process that sees the jobs, too.
    let has_resumed = |paused: &PausedJobs| paused.changes != shared::tasks_changes() || paused.until <= clock::now();
    let anything = notes.anything || notes.paused.as_ref().is_some_and(has_resumed);
    if notes.many_queues || notes.anything {
        board.forget_queues(oid);
    } else if !notes.queues.is_empty() {
        board.lower_queues(oid, &notes.queues);
    }
    board.end_looks(oid, &notes.looks);
    board.set_lock_rows(oid, &notes.lock_rows);
    if notes.schedules_changed
        && let Some(entry) = board.database(oid)
    {
        entry.schedules_changed.fetch_min(clock::now(), SeqCst);
    }
    if notes.created || notes.tasks_changed || notes.schedules_changed {
        // Not only the scheduler's latch: it may be about to end, because it has found no extension.
        board.want(oid);
    }
    let Some(entry) = board.database(oid) else { return };
    // Looked at after the commit: a scheduler that hands its database over later sees what this has added.
    if entry.attendance.is_watched() {
        if anything || !notes.jobs.is_empty() {
            board.want_watched(entry, notes.jobs.first().map_or(InvalidOid, |(role, _)| *role));
        } else if let Some(due) = notes.due
            && entry.next_due.lower(due)
        {
            board.launcher().set();
        }
        return;
    }
    if anything && !entry.has_unnoted_jobs.swap(true, SeqCst) {
        entry.scheduler.set();
    }
    // A scheduler that begins after this looks at the whole table, by a snapshot that shows this commit.
    if !entry.attendance.has_scheduler() {
        return;
    }
    if let Some(due) = notes.due
        && entry.next_due.lower(due)
    {
        entry.scheduler.set();
    }
    let mut understaffed = false;
    // The keys may be those of a limit that is gone. A scheduler that sees another one empties the lists.
    let forgets_keys = notes.keyed_at.is_some_and(|changes| changes != shared::tasks_changes());
    for (role, mut jobs) in notes.jobs {
        if forgets_keys {
            jobs.hints.iter_mut().for_each(|hint| hint.key = NO_KEY);
        }
        jobs.hints.sort_unstable_by_key(|hint| hint.position);
        offer(board, oid, role, &jobs.hints, jobs.others);
        understaffed |= wake(board, oid, role, jobs.count) < jobs.count;
    }
    if understaffed && entry.can_rebalance.is_set() {
        entry.scheduler.set();
    }
}
