//! The locks of queues. A row of `job_queues` is the lock of one queue: it is inserted with the claim of one of the queue's jobs, and
//! deleted with whatever lets that job go. Adding and completing jobs of other queues touch it never, so that nobody waits.
//!
//! Two who find that a queue has no row could both insert one, and the second would wait for the first to commit. So whoever is about to
//! lock a queue holds a lock of the server's on the queue's name, until its transaction ends, and passes the queue if another has it.

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
use crate::signals::commit_notes;
use crate::tasks::registry;
use pgrx::IntoDatum;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The lock of a queue that the current transaction may take, and no other can meanwhile.
pub struct Free {
    queue_name: Value,
    /// Whether it has a row, of a lock that is dead.
    has_row: bool,
}

/// Finds out whether a queue can be locked: `None` if it is, or if another transaction is about to. A lock that is older than `expired`
/// is dead, unless it is a live kongtask worker's. Waits for nobody.
pub fn find_free(queue_name: Value, expired: Timestamp) -> Result<Option<Free>, Error> {
    static STATE: Plan = plan!("queue_state", TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID).by_index();
    let Some(name) = queue_name else { return Ok(None) };
    let mut hasher = DefaultHasher::new();
    Text::new(name).bytes().hash(&mut hasher);
    if !lock::try_until_end(hasher.finish())? {
        return Ok(None);
    }
    let session = schema::session()?;
    // By a snapshot that is taken now: whoever had the server's lock before has committed.
    let rows = session.execute(&STATE, &[queue_name, Some(expired.into()), texts(&shared::living_workers())])?;
    Ok(match rows.count() {
        0 => Some(Free { queue_name, has_row: false }),
        _ if rows.get(0, 0).unwrap_or(false) => Some(Free { queue_name, has_row: true }),
        _ => None,
    })
}

impl Free {
    /// Locks it for a worker that runs `job`; whether that was done: it is not while another transaction has the row.
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

/// Releases a queue, if `worker_id` holds it.
pub fn release(queue_name: Value, worker_id: Value) -> Result<(), Error> {
    static RELEASE: Plan = plan!("queue_release", TEXTOID, TEXTOID).by_index();
    if queue_name.is_some() {
        let released = affected(&RELEASE, &[queue_name, worker_id])? > 0;
        if released && !schema::queue()?.is_0_3 {
            // A trigger does so since.
            note_head(queue_name)?;
        }
    }
    Ok(())
}

/// A queue's next job can run: notes who is to be woken at commit.
pub(super) fn note_head(queue_name: Value) -> Result<(), Error> {
    let tasks = registry::tasks()?;
    let now = clock::now();
    match search::next_of_queue(queue_name, &tasks, &settings::forbidden_flags())? {
        Some(head) => commit_notes::note_job(head.task.role, head.hint),
        // Until this commits, the queue looks locked, and what falls due in it is passed.
        None => commit_notes::note_due(now),
    }
    Ok(())
}

/// Releases a queue as [`release`] does, where no trigger has done so: in a schema of version 0.2.0 or before.
pub(super) fn release_with_job(queue_name: Value, worker_id: Value) -> Result<(), Error> {
    if schema::queue()?.is_0_3 { Ok(()) } else { release(queue_name, worker_id) }
}

/// Releases all queues that these workers hold. `worker_ids` is a `text[]`.
pub fn release_all_of(worker_ids: Value) -> Result<(), Error> {
    static RELEASE: Plan = plan!("queues_release", TEXTARRAYOID);
    affected(&RELEASE, &[worker_ids])?;
    Ok(())
}

/// Whether queues are locked for a job that is gone, or unlocked, by others than live workers of ours: as no trigger fired then (TRUNCATE,
/// `session_replication_role`, a row that was replicated). Only reads.
pub fn has_orphaned() -> Result<bool, Error> {
    let session = schema::session()?;
    Ok(orphaned(&session)?.is_some_and(|rows| rows.count() > 0))
}

/// Releases those queues; how many there were.
pub fn release_orphaned() -> Result<usize, Error> {
    let session = schema::session()?;
    let Some(rows) = orphaned(&session)? else { return Ok(0) };
    for row in 0..rows.count() {
        // By name and worker: a lock that was taken since is another's.
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
