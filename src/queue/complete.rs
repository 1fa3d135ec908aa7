//! Completing a job: it is deleted, and its queue released.

use super::{affected, one_row, plan};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::spi::{Plan, Value};
use crate::queue::job::{Job, attribute};

static UNLOCK_QUEUE: Plan = plan!("unlock_queue", TEXTOID, TEXTOID);

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

/// Deletes a job that this worker holds; whether it still did. If not, somebody else has it, and the transaction must be
/// rolled back.
pub fn complete_held(job: &Job, worker_id: Value) -> Result<bool, Error> {
    static COMPLETE_HELD: Plan = plan!("complete_fenced", INT8OID, TEXTOID);
    let held = affected(&COMPLETE_HELD, &[Some(job.id.into()), worker_id])? == 1;
    if held {
        unlock_queue(job.queue_name, worker_id)?;
    }
    Ok(held)
}
