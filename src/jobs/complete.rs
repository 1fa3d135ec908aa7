//! Completing a job: it is deleted, and its queue released.

use super::{affected, one_row, plan, queues};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::heap;
use crate::pg::spi::{Plan, Value};
use crate::schema;
use crate::schema::job_row::{Job, attribute};
use pgrx::IntoDatum;

/// For external workers: deletes the job, whoever holds it, as the reference does; the row.
pub fn complete(worker_id: Value, job_id: Value) -> Result<Value, Error> {
    static COMPLETE: Plan = plan!("complete", INT8OID);
    let row = one_row(&COMPLETE, &[job_id])?;
    queues::release_with_job(row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME)), worker_id)?;
    Ok(row)
}

static COMPLETE_HELD: Plan = plan!("complete_fenced", INT8ARRAYOID, TEXTOID).by_index();

/// Deletes jobs that this worker holds, none of them in a queue; whether it still held them all. If not, somebody else has
/// one, and the transaction must be rolled back.
pub fn complete_held(ids: Vec<i64>, worker_id: Value) -> Result<bool, Error> {
    let count = ids.len();
    Ok(affected(&COMPLETE_HELD, &[ids.into_datum(), worker_id])? == count)
}

/// Deletes a job that this worker holds, and releases its queue; whether it still held it, or its handler has settled the job itself, by
/// deleting or unlocking it: that stands, with all else that the handler did.
pub fn complete_one_held(job: &Job, worker_id: Value) -> Result<bool, Error> {
    if complete_held(vec![job.id], worker_id)? {
        queues::release_with_job(job.queue_name(), worker_id)?;
        return Ok(true);
    }
    if !is_settled_here(job.id)? {
        return Ok(false);
    }
    queues::release(job.queue_name(), worker_id)?;
    Ok(true)
}

/// Whether the current transaction has deleted or changed a job.
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
