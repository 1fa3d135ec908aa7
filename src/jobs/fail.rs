//! Recording a failed attempt.

use super::{affected, lock_table, one_row, plan, queues};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::spi::{Plan, Value};
use crate::schema::job_row::attribute;

/// Records a failed attempt of a job that `worker_id` holds, and makes the job due again after the back-off. Returns
/// the row, or `None` if the worker has lost the lock.
pub fn fail(worker_id: Value, job_id: Value, message: Value) -> Result<Value, Error> {
    static FAIL: Plan = plan!("fail", INT8OID, TEXTOID, TEXTOID).by_index();
    lock_table()?;
    let row = one_row(&FAIL, &[job_id, worker_id, message])?;
    queues::release_with_job(row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME)), worker_id)?;
    Ok(row)
}

/// Records the failure of a first attempt that ran in place. Returns the row, or `None` if another transaction has
/// locked or changed it since.
pub fn fail_plain(job_id: i64, message: Value) -> Result<Value, Error> {
    static FAIL: Plan = plan!("fail_plain", INT8OID, TEXTOID).by_index();
    lock_table()?;
    one_row(&FAIL, &[Some(job_id.into()), message])
}

/// Counts all attempts of a job that `worker_id` holds as made.
pub fn leave_no_attempts(worker_id: Value, job_id: i64) -> Result<(), Error> {
    static LEAVE_NONE: Plan = plan!("leave_no_attempts", INT8OID, TEXTOID).by_index();
    lock_table()?;
    affected(&LEAVE_NONE, &[Some(job_id.into()), worker_id])?;
    Ok(())
}
