//! The locks of queues. A row of `job_queues` is the lock of one queue. It is inserted with the claim of one of the
//! queue's jobs, and deleted with whatever releases that job. Adding jobs, and completing jobs of other queues, never
//! touch it, so that they wait for nothing.
//!
//! Two transactions that find no row could both insert one, and the second would wait for the first to commit. So a
//! transaction that is about to lock a queue first takes a heavyweight lock on the hash of the queue's name, until it
//! ends, and skips the queue if another transaction has it.
//!
//! A worker that goes on with the queue's next job keeps the row as it is: only its job_id tells an earlier job then.

use super::{affected, plan};
use crate::error::Error;
use crate::jobs::search;
use crate::pg::args::Text;
use crate::pg::clock::{self, Timestamp};
use crate::pg::lock;
use crate::pg::spi::{Plan, Rows, Value};
use crate::pg::text::texts;
use crate::schema;
use crate::settings;
use crate::shared;
use crate::shared::ready_list::Position;
use crate::signals::commit_notes;
use crate::tasks::registry;
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The right to lock a queue: no other transaction can lock it before the current one ends.
pub struct Free {
    queue_name: Value,
    /// True if there is a row, whose lock is dead.
    has_row: bool,
}

/// Returns a hash of a queue's name, which is not 0.
pub fn hash(name: Datum) -> u64 {
    let mut hasher = DefaultHasher::new();
    Text::new(name).bytes().hash(&mut hasher);
    hasher.finish().max(1)
}

/// Returns the right to lock a queue, or `None` if it is locked or another transaction is about to lock it. A lock
/// older than `expired` is dead, unless it belongs to a live kongtask worker. Never waits.
pub fn find_free(queue_name: Value, expired: Timestamp) -> Result<Option<Free>, Error> {
    static STATE: Plan = plan!("queue_state", TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID).by_index();
    let Some(name) = queue_name else { return Ok(None) };
    if !lock::try_until_end(hash(name))? {
        return Ok(None);
    }
    let session = schema::session()?;
    // This takes a new snapshot: the transaction that had the heavyweight lock before has committed.
    let rows = session.execute(&STATE, &[queue_name, Some(expired.into()), texts(&shared::living_workers())])?;
    Ok(match rows.count() {
        0 => Some(Free { queue_name, has_row: false }),
        _ if rows.get(0, 0).unwrap_or(false) => Some(Free { queue_name, has_row: true }),
        _ => None,
    })
}

impl Free {
    /// Locks the queue for the worker that runs `job`. Returns false if another transaction has locked the row.
    pub fn lock(&self, worker_id: Value, now: Value, job: i64) -> Result<bool, Error> {
        static LOCK: Plan = plan!("queue_lock", TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID);
        static RELOCK: Plan = plan!("queue_relock", TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID).by_index();
        static LOCK_0_2: Plan = plan!("queue_lock_0_2", TEXTOID, TEXTOID, TIMESTAMPTZOID);
        static RELOCK_0_2: Plan = plan!("queue_relock_0_2", TEXTOID, TEXTOID, TIMESTAMPTZOID).by_index();
        let values = [self.queue_name, worker_id, now, job.into_datum()];
        let affected = match (schema::queue()?.is_0_3, self.has_row) {
            (true, false) => affected(&LOCK, &values),
            (true, true) => affected(&RELOCK, &values),
            (false, false) => affected(&LOCK_0_2, &values[..3]),
            (false, true) => affected(&RELOCK_0_2, &values[..3]),
        }?;
        Ok(affected == 1)
    }
}

/// Returns true if `worker_id` holds the queue.
pub(super) fn is_held_by(queue_name: Value, worker_id: Value) -> Result<bool, Error> {
    static HELD: Plan = plan!("queue_held", TEXTOID, TEXTOID).by_index();
    Ok(affected(&HELD, &[queue_name, worker_id])? > 0)
}

thread_local! {
    /// The job whose deletion leaves its queue locked.
    static KEPT_AFTER: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Keeps the queue of a job locked while `complete` deletes the job.
pub(super) fn keep_after<T>(job: i64, complete: impl FnOnce() -> T) -> T {
    struct Kept;
    impl Drop for Kept {
        fn drop(&mut self) {
            KEPT_AFTER.set(None);
        }
    }
    KEPT_AFTER.set(Some(job));
    let _kept = Kept;
    complete()
}

/// Returns true if the deletion of a job leaves its queue locked.
pub(super) fn is_kept_after(job: i64) -> bool {
    KEPT_AFTER.get() == Some(job)
}

/// Releases a queue if `worker_id` holds it.
pub fn release(queue_name: Value, worker_id: Value) -> Result<(), Error> {
    static RELEASE: Plan = plan!("queue_release", TEXTOID, TEXTOID).by_index();
    if queue_name.is_some() {
        let released = affected(&RELEASE, &[queue_name, worker_id])? > 0;
        if released && !schema::queue()?.is_0_3 {
            // From 0.3.0 on, a trigger does this.
            note_head(queue_name)?;
        }
    }
    Ok(())
}

/// Notes the next job of a queue, as the commit makes it ready.
pub(super) fn note_head(queue_name: Value) -> Result<(), Error> {
    let tasks = registry::tasks()?;
    let now = clock::now();
    match search::next_of_queue(queue_name, &tasks, &settings::forbidden_flags(), Position::START)? {
        Some(head) => commit_notes::note_job(head.task.role, head.hint),
        // Until this transaction commits, the queue looks locked, and searches skip its jobs that fall due.
        None => commit_notes::note_due(now),
    }
    Ok(())
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
/// That happens where no trigger fires: TRUNCATE, `session_replication_role`, a replicated row. Only reads.
pub fn has_orphaned() -> Result<bool, Error> {
    let session = schema::session()?;
    Ok(orphaned(&session)?.is_some_and(|rows| rows.count() > 0))
}

/// Releases those queues. Returns how many there were.
pub fn release_orphaned() -> Result<usize, Error> {
    let session = schema::session()?;
    let Some(rows) = orphaned(&session)? else { return Ok(0) };
    for row in 0..rows.count() {
        // By name and worker, as another worker may have locked the queue since.
        release(rows.value(row, 0), rows.value(row, 1))?;
    }
    Ok(rows.count())
}

fn orphaned(session: &schema::OwnerSession) -> Result<Option<Rows<'_>>, Error> {
    static ORPHANED: Plan = plan!("orphaned_queues", TEXTARRAYOID);
    if !schema::queue()?.is_0_3 {
        return Ok(None);
    }
    Ok(Some(session.read(&ORPHANED, &[texts(&shared::living_workers())])?))
}
