//! What a handler may ask for instead of completion or the usual back-off: its job due again at a time of its own, or
//! failed for good.

use super::{affected, one_row, plan, queues, triggers};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::interval::Interval;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, text};
use crate::schema::job_row::{Job, attribute};

/// Unlocks a job of this worker, due again after `delay`, and does not count the attempt. Returns false if the worker no
/// longer holds it, or if add_job or remove_job has taken its key and further attempts: it is to be completed then.
pub fn snooze_held(job: &Job, worker_id: Value, delay: Interval) -> Result<bool, Error> {
    static SNOOZE: Plan = plan!("snooze_held", INT8OID, TEXTOID, INTERVALOID, INT4OID, TEXTOID).by_index();
    let (attempts, key) = (Some(job.attempts().into()), Row::new(job.row()).value(attribute::KEY));
    let row = one_row(&SNOOZE, &[Some(job.id.into()), worker_id, Some(delay.datum()), attempts, key])?;
    queues::release_with_job(row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME)), worker_id)?;
    Ok(row.is_some())
}

/// Makes a job that this transaction has locked due again after `delay`.
pub fn snooze_locked(id: i64, delay: Interval) -> Result<(), Error> {
    static SNOOZE: Plan = plan!("snooze_locked", INT8OID, INTERVALOID).by_index();
    affected(&SNOOZE, &[Some(id.into()), Some(delay.datum())])?;
    Ok(())
}

/// Puts a job back that this transaction has deleted to run it in place, due after `delay`. Other sessions see a job that has
/// only changed. A column that a user has added to the table has its default then.
pub fn snooze_deleted(job: &Job, delay: Interval) -> Result<(), Error> {
    static PUT_BACK: Plan = plan!(
        "put_back",
        INT8OID,
        TEXTOID,
        JSONOID,
        INT4OID,
        INT4OID,
        TEXTOID,
        TIMESTAMPTZOID,
        INT4OID,
        JSONBOID,
        INTERVALOID,
        TEXTOID
    );
    let row = Row::new(job.row());
    let [id, task, payload, priority, max_attempts, last_error, created_at, revision, flags, queue_name] = [
        attribute::ID,
        attribute::TASK_IDENTIFIER,
        attribute::PAYLOAD,
        attribute::PRIORITY,
        attribute::MAX_ATTEMPTS,
        attribute::LAST_ERROR,
        attribute::CREATED_AT,
        attribute::REVISION,
        attribute::FLAGS,
        attribute::QUEUE_NAME,
    ]
    .map(|column| row.value(column));
    let delay = Some(delay.datum());
    let values =
        [id, task, payload, priority, max_attempts, last_error, created_at, revision, flags, delay, queue_name];
    triggers::put_back(|| affected(&PUT_BACK, &values))?;
    Ok(())
}

/// Makes a job whose failure this transaction has recorded due again after `delay`, instead of the back-off. Returns the
/// row.
pub fn retry_in(id: i64, delay: Interval) -> Result<Value, Error> {
    static RETRY: Plan = plan!("retry_in", INT8OID, INTERVALOID).by_index();
    one_row(&RETRY, &[Some(id.into()), Some(delay.datum())])
}

/// Fails a job for good whose failure this transaction has recorded. Returns the row.
pub fn give_up(id: i64, message: &DbText) -> Result<Value, Error> {
    static GIVE_UP: Plan = plan!("give_up", INT8OID, TEXTOID).by_index();
    one_row(&GIVE_UP, &[Some(id.into()), text(message)])
}
