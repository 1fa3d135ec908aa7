//! Completing a job: deleting it and releasing its queue.

use super::{affected, one_row, plan, queues, table_shape};
use crate::error::Error;
use crate::pg::args::{Row, Text};
use crate::pg::heap::{self, RowAddress, Version};
use crate::pg::spi::{Plan, Value};
use crate::pg::xact::{self, LatestSnapshot};
use crate::schema;
use crate::schema::job_row::{Job, attribute};
use pgrx::IntoDatum;

/// Deletes a job, whichever worker holds it, as graphile-worker does. Returns its row. For external workers.
pub fn complete(worker_id: Value, job_id: Value) -> Result<Value, Error> {
    static COMPLETE: Plan = plan!("complete", INT8OID);
    let row = one_row(&COMPLETE, &[job_id])?;
    queues::release_with_job(row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME)), worker_id)?;
    Ok(row)
}

static COMPLETE_HELD: Plan = plan!("complete_fenced", INT8ARRAYOID, TEXTOID).by_index();

/// Deletes jobs of this worker, and leaves their queues to the caller. Returns true if the worker still held all of
/// them. If not, another worker has one, and the transaction must be rolled back.
pub fn complete_held(ids: Vec<i64>, worker_id: Value) -> Result<bool, Error> {
    complete_held_at(ids.into_iter().map(|id| (id, None)).collect(), worker_id)
}

/// Does what [`complete_held`] does, for jobs of which it may be known where their rows were.
fn complete_held_at(jobs: Vec<(i64, Option<RowAddress>)>, worker_id: Value) -> Result<bool, Error> {
    let left = delete_without_executor(jobs, worker_id)?;
    let count = left.len();
    Ok(count == 0 || affected(&COMPLETE_HELD, &[left.into_datum(), worker_id])? == count)
}

/// Deletes jobs of this worker without the executor, and does what the trigger on `jobs` would. Returns the ids of those
/// for which the caller must use a DELETE.
fn delete_without_executor(jobs: Vec<(i64, Option<RowAddress>)>, worker_id: Value) -> Result<Vec<i64>, Error> {
    let may = xact::is_read_committed() && heap::may_write() && schema::queue()?.is_0_3;
    let (Some(installed), Some(me)) = (if may { table_shape::table()? } else { None }, worker_id) else {
        return Ok(jobs.into_iter().map(|(id, _)| id).collect());
    };
    let me = Text::new(me);
    let mut left = Vec::new();
    let read = |version: Version| {
        let [id, queue_name, locked_by] =
            Row::new(version.row).values([attribute::ID, attribute::QUEUE_NAME, attribute::LOCKED_BY]);
        (version.found(), id, queue_name, locked_by)
    };
    for (id, address) in jobs {
        // The handler, or the scheduler that renews locks, may have changed the row.
        let _snapshot = LatestSnapshot::take();
        let at_address = address.map(|address| heap::version_at(installed.table, address)).transpose()?.flatten();
        let found = match at_address.map(read).filter(|(_, its, ..)| its.is_some_and(|its| its.value() as i64 == id)) {
            None => heap::find_version(installed.table, installed.primary_key, id)?.map(read),
            found => found,
        };
        match found {
            Some((found, _, queue_name, Some(locked_by)))
                if Text::new(locked_by).bytes() == me.bytes() && heap::delete(installed.table, &found)? =>
            {
                if queue_name.is_some() && !queues::is_kept_after(id) {
                    queues::release(queue_name, worker_id)?;
                }
            }
            _ => left.push(id),
        }
    }
    Ok(left)
}

/// What completing a job of this worker has found.
pub enum Found {
    /// The worker still held it.
    Held,
    /// The handler itself has deleted or unlocked it: that stands, with all else that the handler did.
    SettledByHandler,
    /// The worker has lost it.
    Lost,
}

/// Deletes a job of this worker and releases its queue.
pub fn complete_one_held(job: &Job, worker_id: Value) -> Result<Found, Error> {
    if complete_held_at(vec![(job.id, job.address)], worker_id)? {
        queues::release_with_job(job.queue_name(), worker_id)?;
        return Ok(Found::Held);
    }
    if !is_settled_here(job.id)? {
        return Ok(Found::Lost);
    }
    queues::release(job.queue_name(), worker_id)?;
    Ok(Found::SettledByHandler)
}

/// Deletes a job of this worker, and keeps its queue locked. Returns true if the worker still held the job.
pub fn complete_and_keep_queue(job: &Job, worker_id: Value) -> Result<bool, Error> {
    queues::keep_after(job.id, || complete_held_at(vec![(job.id, job.address)], worker_id))
}

/// Returns true if the current transaction has deleted or changed the job.
fn is_settled_here(id: i64) -> Result<bool, Error> {
    let queue = schema::queue()?;
    Ok(heap::is_changed_here(queue.table, queue.primary_key, id)?)
}

/// Deletes jobs that this transaction has locked.
pub fn complete_locked(ids: Vec<i64>) -> Result<(), Error> {
    static COMPLETE_LOCKED: Plan = plan!("complete_locked", INT8ARRAYOID).by_index();
    affected(&COMPLETE_LOCKED, &[ids.into_datum()])?;
    Ok(())
}
