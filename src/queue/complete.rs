//! Completing a job: it is deleted, and its queue released.

use super::{affected, one_row, plan};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::spi::{Plan, Value};
use crate::queue::job::{Job, attribute};
use pgrx::IntoDatum;

static UNLOCK_QUEUE: Plan = plan!("unlock_queue", TEXTOID, TEXTOID).by_index();

/// Releases the queue of a job, if it has one and `worker_id` holds it.
pub(super) fn unlock_queue(queue_name: Value, worker_id: Value) -> Result<(), Error> {
    if queue_name.is_some() {
        affected(&UNLOCK_QUEUE, &[queue_name, worker_id])?;
    }
    Ok(())
}

/// For external workers: deletes the job, whoever holds it, as the reference does; the row.
pub fn complete(worker_id: Value, job_id: Value) -> Result<Value, Error> {
    static COMPLETE: Plan = plan!("complete", INT8OID);
    let row = one_row(&COMPLETE, &[job_id])?;
    unlock_queue(row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME)), worker_id)?;
    Ok(row)
}

static COMPLETE_HELD: Plan = plan!("complete_fenced", INT8ARRAYOID, TEXTOID).by_index();

/// Deletes jobs that this worker holds, none of them in a queue; whether it still held them all. If not, somebody else has
/// one, and the transaction must be rolled back.
pub fn complete_held(ids: Vec<i64>, worker_id: Value) -> Result<bool, Error> {
    let count = ids.len();
    Ok(affected(&COMPLETE_HELD, &[ids.into_datum(), worker_id])? == count)
}

/// Deletes a job that this worker holds, and releases its queue; whether it still held it.
pub fn complete_one_held(job: &Job, worker_id: Value) -> Result<bool, Error> {
    let held = complete_held(vec![job.id], worker_id)?;
    if held {
        unlock_queue(job.queue_name(), worker_id)?;
    }
    Ok(held)
}

/// Deletes jobs that this transaction has locked.
pub fn complete_locked(ids: Vec<i64>) -> Result<(), Error> {
    static COMPLETE_LOCKED: Plan = plan!("complete_locked", INT8ARRAYOID).by_index();
    affected(&COMPLETE_LOCKED, &[ids.into_datum()])?;
    Ok(())
}
