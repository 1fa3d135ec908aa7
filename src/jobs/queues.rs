//! The locks of queues. A row of `job_queues` is the lock of one queue, while `locked_at` is set. It is inserted with the
//! claim of one of the queue's jobs, and deleted with whatever releases that job. Adding jobs, and completing jobs of
//! other queues, never touch it, so that they wait for nothing.
//!
//! Two transactions that find no row could both insert one, and the second would wait for the first to commit. So a
//! transaction that is about to lock a queue first takes a heavyweight lock on the hash of the queue's name, until it
//! ends, and skips the queue if another transaction has it.
//!
//! A worker that goes on with the queue's next job keeps the row as it is: only its job_id tells an earlier job then.
//!
//! While an old snapshot keeps dead rows from being removed, each row that is inserted for a queue would have to pass
//! those of all locks before it, to see that the name is unique. So a queue that is locked over and over meanwhile
//! keeps its row (see [`LockRow`]): to release it is to set `locked_at` to null. Hints say where the row is, so that no
//! former version is passed. A row that was not used for a while is removed by the scheduler.

use super::queue_row::{self, QueueRow, QueueTable};
use super::queue_search::{NextJob, next_of_queue};
use super::{affected, hash, plan, with_set};
use crate::error::Error;
use crate::pg::clock::{self, Tick, Timestamp};
use crate::pg::heap::{self, RowAddress};
use crate::pg::spi::{Plan, Rows, Value};
use crate::pg::text::{DbText, text, texts};
use crate::pg::{background, lock};
use crate::schema;
use crate::settings;
use crate::shared;
use crate::shared::queue_hints::LockRow;
use crate::signals::commit_notes;
use crate::tasks::registry::{self, Tasks};
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::time::Duration;

/// The right to lock a queue: no other transaction can lock it before the current one ends.
pub struct Free {
    queue_name: Value,
    queue: u64,
    found: Found,
    row: LockRow,
}

/// The row of a queue that can be locked: it is no lock, or a dead one.
enum Found {
    /// For the executor; true if there is one.
    Row(bool),
    /// Without the executor.
    Version(QueueTable, Option<QueueRow>),
}

/// Returns the right to lock a queue, or `None` if it is locked or another transaction is about to lock it. A lock
/// older than `expired` is dead, unless it belongs to a live kongtask worker. Never waits.
pub fn find_free(queue_name: Value, expired: Timestamp) -> Result<Option<Free>, Error> {
    static STATE: Plan = plan!("queue_state", TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID).by_index();
    static STATE_AT: Plan = plan!("queue_state_at", TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID, TIDOID).by_index();
    let Some(name) = queue_name else { return Ok(None) };
    let queue = hash(name);
    if !lock::try_until_end(queue)? {
        return Ok(None);
    }
    // From here on, no other transaction writes the row, but to release it.
    let row = lock_row(queue);
    if let Some(table) = queue_row::table()? {
        // By a new snapshot: the transaction that had the heavyweight lock before has committed.
        let version = table.find(name, row.address)?;
        if version.as_ref().is_some_and(|version| !version.is_free(expired, shared::living_workers)) {
            return Ok(None);
        }
        return Ok(Some(Free { queue_name, queue, found: Found::Version(table, version), row }));
    }
    let session = schema::session()?;
    let living = texts(&shared::living_workers());
    // This takes a new snapshot, too.
    let rows = match row.address {
        Some(address) => {
            session.execute(&STATE_AT, &[queue_name, Some(expired.into()), living, Some(address.datum())])?
        }
        None => session.execute(&STATE, &[queue_name, Some(expired.into()), living])?,
    };
    if rows.count() == 0 && row.address.is_some() {
        // It has moved.
        let rows = session.execute(&STATE, &[queue_name, Some(expired.into()), living])?;
        return Ok(free(queue_name, queue, &rows, LockRow { address: None, ..row }));
    }
    Ok(free(queue_name, queue, &rows, row))
}

/// Returns the right to lock a queue whose row is as `rows` says.
fn free(queue_name: Value, queue: u64, rows: &Rows, row: LockRow) -> Option<Free> {
    match rows.count() {
        0 => Some(Free { queue_name, queue, found: Found::Row(false), row }),
        _ if rows.get(0, 0).unwrap_or(false) => Some(Free { queue_name, queue, found: Found::Row(true), row }),
        _ => None,
    }
}

/// Returns what is known of a queue's row.
fn lock_row(queue: u64) -> LockRow {
    shared::board().map_or(LockRow::NONE, |board| board.lock_row(background::database(), queue))
}

impl Free {
    /// Locks the queue for the worker that runs `job`. Returns false if another transaction has locked the row.
    pub fn lock(&self, worker_id: Value, now: Value, job: i64) -> Result<bool, Error> {
        static LOCK_0_2: Plan = plan!("queue_lock_0_2", TEXTOID, TEXTOID, TIMESTAMPTZOID);
        static RELOCK_0_2: Plan = plan!("queue_relock_0_2", TEXTOID, TEXTOID, TIMESTAMPTZOID).by_index();
        if !schema::queue()?.is_0_3 {
            let has_row = matches!(self.found, Found::Row(true));
            let plan = if has_row { &RELOCK_0_2 } else { &LOCK_0_2 };
            return Ok(affected(plan, &[self.queue_name, worker_id, now])? == 1);
        }
        let Some(address) = self.write(worker_id, now, job)? else { return Ok(false) };
        let transaction = heap::current_transaction()?;
        let table = schema::queue()?.table;
        // It raises only where memory is exhausted: then the row is deleted, as usual.
        let is_removable = |mark| heap::is_removable(table, mark).unwrap_or(true);
        commit_notes::note_lock_row(self.queue, self.row.taken(Some(address), transaction, is_removable));
        Ok(true)
    }

    /// Writes the row. Returns where it is; `None` if another transaction has locked it.
    fn write(&self, worker_id: Value, now: Value, job: i64) -> Result<Option<RowAddress>, Error> {
        static LOCK: Plan = plan!("queue_lock", TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID);
        static RELOCK: Plan = plan!("queue_relock", TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID).by_index();
        static RELOCK_AT: Plan = plan!("queue_relock_at", TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID, TIDOID).by_index();
        let values = [self.queue_name, worker_id, now, job.into_datum()];
        match (&self.found, self.row.address) {
            (Found::Version(table, Some(version)), _) => table.relock(version, worker_id, now, job),
            (Found::Version(table, None), _) => {
                let added = self.queue_name.map(|name| table.insert(name, worker_id, now, job));
                match added.transpose()?.flatten() {
                    // A session has added the row by hand, or is about to: this waits until it has ended.
                    None => written(&LOCK, &values),
                    added => Ok(added),
                }
            }
            (Found::Row(true), Some(address)) => written(&RELOCK_AT, &[&values[..], &[Some(address.datum())]].concat()),
            (Found::Row(true), None) => written(&RELOCK, &values),
            (Found::Row(false), _) => written(&LOCK, &values),
        }
    }
}

/// Runs a statement that returns where the row is that it has written.
fn written(plan: &Plan, values: &[Value]) -> Result<Option<RowAddress>, Error> {
    let session = schema::session()?;
    let rows = session.execute(plan, values)?;
    Ok(if rows.count() == 0 { None } else { rows.value(0, 0).map(RowAddress::new) })
}

/// Returns true if `worker_id` holds the queue.
pub fn is_held_by(queue_name: Value, worker_id: Value) -> Result<bool, Error> {
    static HELD: Plan = plan!("queue_held", TEXTOID, TEXTOID).by_index();
    static HELD_AT: Plan = plan!("queue_held_at", TEXTOID, TEXTOID, TIDOID).by_index();
    let (Some(name), Some(me)) = (queue_name, worker_id) else { return Ok(false) };
    let address = lock_row(hash(name)).address;
    if let Some(table) = queue_row::table()? {
        return Ok(table.find(name, address)?.is_some_and(|row| row.is_held_by(me)));
    }
    if let Some(address) = address
        && affected(&HELD_AT, &[queue_name, worker_id, Some(address.datum())])? > 0
    {
        return Ok(true);
    }
    Ok(affected(&HELD, &[queue_name, worker_id])? > 0)
}

thread_local! {
    /// The job whose deletion leaves its queue locked.
    static KEPT_AFTER: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Keeps the queue of a job locked while `complete` deletes the job.
pub(super) fn keep_after<T>(job: i64, complete: impl FnOnce() -> T) -> T {
    with_set(&KEPT_AFTER, Some(job), complete)
}

/// Returns true if the deletion of a job leaves its queue locked.
pub(super) fn is_kept_after(job: i64) -> bool {
    KEPT_AFTER.get() == Some(job)
}

/// Releases a queue if `worker_id` holds it.
pub fn release(queue_name: Value, worker_id: Value) -> Result<(), Error> {
    static RELEASE: Plan = plan!("queue_release", TEXTOID, TEXTOID).by_index();
    static UNLOCK_AT: Plan = plan!("queue_unlock_at", TEXTOID, TEXTOID, TIDOID).by_index();
    let Some(name) = queue_name else { return Ok(()) };
    let queue = hash(name);
    let row = lock_row(queue);
    if release_without_executor(name, worker_id, row)? {
        return Ok(());
    }
    if let Some(address) = row.address.filter(|_| row.is_kept)
        && let Some(address) = written(&UNLOCK_AT, &[queue_name, worker_id, Some(address.datum())])?
    {
        commit_notes::note_lock_row(queue, LockRow { address: Some(address), ..row });
        return Ok(());
    }
    let released = affected(&RELEASE, &[queue_name, worker_id])? > 0;
    if released && !schema::queue()?.is_0_3 {
        // From 0.3.0 on, a trigger does this.
        note_head(queue_name)?;
    }
    if released && row.address.is_some() {
        commit_notes::note_lock_row(queue, LockRow { address: None, ..row });
    }
    Ok(())
}

/// Releases a queue as [`release`] does, and does what the triggers of its row would. Returns false if that must be left to
/// the executor, which waits if another transaction has locked the row.
fn release_without_executor(name: Datum, worker_id: Value, row: LockRow) -> Result<bool, Error> {
    let (Some(table), Some(me)) = (queue_row::table()?, worker_id) else { return Ok(false) };
    let Some(found) = table.find(name, row.address)?.filter(|found| found.is_held_by(me)) else { return Ok(true) };
    let address = if row.is_kept {
        let Some(address) = table.unlock(&found)? else { return Ok(false) };
        Some(address)
    } else if table.delete(&found)? {
        None
    } else {
        return Ok(false);
    };
    if address.is_some() || row.address.is_some() {
        commit_notes::note_lock_row(hash(name), LockRow { address, ..row });
    }
    if found.is_lock() {
        note_head(Some(name))?;
    }
    Ok(true)
}

thread_local! {
    /// True while a queue is released whose next job the caller knows.
    static HEAD_IS_KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// Does what [`release`] does, for a queue whose next job has just been looked for, `since` then. From version 0.3.0 of the
/// schema on.
pub(super) fn release_with_next(
    queue_name: Value,
    worker_id: Value,
    next: Option<NextJob>,
    since: Timestamp,
) -> Result<(), Error> {
    with_set(&HEAD_IS_KNOWN, true, || release(queue_name, worker_id))?;
    let tasks = registry::tasks()?;
    note_next(next, &tasks, since);
    Ok(())
}

/// Notes the next job of a queue, as the commit makes it ready.
pub(super) fn note_head(queue_name: Value) -> Result<(), Error> {
    if HEAD_IS_KNOWN.get() {
        return Ok(());
    }
    let tasks = registry::tasks()?;
    let now = clock::now();
    let next = next_of_queue(queue_name, &tasks, &settings::forbidden_flags())?;
    note_next(next, &tasks, now);
    Ok(())
}

fn note_next(next: Option<NextJob>, tasks: &Tasks, now: Timestamp) {
    match next {
        Some(head) => commit_notes::note_job(head.task.role, head.hint),
        // Until this transaction commits, the queue looks locked, and searches skip its jobs that fall due.
        None => commit_notes::note_due(now),
    }
    if !tasks.pauses.is_empty() {
        // The same goes for the searches that follow the end of a pause.
        commit_notes::note_paused(tasks.changes, tasks.pauses.next_end(now));
    }
}

/// Releases a queue in a schema of version 0.2.0 or before, where no trigger has done it.
pub(super) fn release_with_job(queue_name: Value, worker_id: Value) -> Result<(), Error> {
    if schema::queue()?.is_0_3 { Ok(()) } else { release(queue_name, worker_id) }
}

/// Releases all queues that these workers hold. `worker_ids` is a `text[]`.
pub fn release_all_of(worker_ids: Value) -> Result<(), Error> {
    static RELEASE: Plan = plan!("queues_release", TEXTARRAYOID);
    affected(&RELEASE, &[worker_ids])?;
    Ok(())
}

/// Returns true if a queue is locked for a job that is gone or unlocked, unless a live kongtask worker holds the lock.
/// That happens where no trigger fires: TRUNCATE, `session_replication_role`, a replicated row. Also returns true if a
/// queue has kept its row, and was not used for a while. Only reads.
pub fn has_orphaned() -> Result<bool, Error> {
    Ok(!orphaned()?.is_empty())
}

/// Releases those queues. Returns how many of them were locked.
pub fn release_orphaned() -> Result<usize, Error> {
    static REMOVE: Plan = plan!("queue_remove", TEXTOID).by_index();
    let orphaned = orphaned()?;
    for (queue_name, worker_id) in &orphaned {
        let name = text(queue_name);
        match worker_id {
            // By name and worker, as another worker may have locked the queue since.
            Some(worker_id) => release(name, text(worker_id))?,
            None if lock::try_until_end(name.map_or(0, hash))? => _ = affected(&REMOVE, &[name])?,
            None => (),
        }
    }
    Ok(orphaned.iter().filter(|(_, worker_id)| worker_id.is_some()).count())
}

/// Returns these queues, with the worker that has locked each.
fn orphaned() -> Result<Vec<(DbText, Option<DbText>)>, Error> {
    /// How long a queue keeps its row.
    const UNUSED: Duration = Duration::from_secs(3);
    static ORPHANED: Plan = plan!("orphaned_queues", TEXTARRAYOID);
    if !schema::queue()?.is_0_3 {
        return Ok(Vec::new());
    }
    let session = schema::session()?;
    let rows = session.read(&ORPHANED, &[texts(&shared::living_workers())])?;
    let since = clock::tick() - UNUSED.as_micros() as Tick;
    let is_used = |row| rows.value(row, 0).is_some_and(|name| used(hash(name)).is_some_and(|used| used > since));
    let queue = |row| (rows.get(row, 0).unwrap_or_default(), rows.get(row, 1));
    Ok((0..rows.count()).filter(|&row| rows.value(row, 1).is_some() || !is_used(row)).map(queue).collect())
}

/// Returns the tick at which a queue was last used, as far as is known.
fn used(queue: u64) -> Option<Tick> {
    shared::board()?.queue_used(background::database(), queue)
}
