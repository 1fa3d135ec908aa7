//! Releasing what dead workers of this server held.

use super::complete::unlock_queue;
use super::{affected, one_row, plan};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::spi::{Plan, Value, text, texts};
use crate::queue::job::attribute;

/// Releases a job that a worker was asked to drop, or died with: it can run again at once, and the attempt is not
/// counted. Whether it was still held.
pub fn release(worker_id: Value, job_id: i64) -> Result<bool, Error> {
    static RELEASE: Plan = plan!("release", INT8OID, TEXTOID);
    let row = one_row(&RELEASE, &[Some(job_id.into()), worker_id])?;
    unlock_queue(row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME)), worker_id)?;
    Ok(row.is_some())
}

/// Releases every job whose lock bears our mark but belongs to none of the `living`: after a crash of the server, a
/// promotion, a restore. The attempts count, but a job's last one is given again. How many jobs were released.
///
/// Reads all of `jobs`: for the start of a scheduler only.
pub fn release_all_but(prefix: &str, living: &[String]) -> Result<usize, Error> {
    static JOBS: Plan = plan!("recover_jobs", TEXTOID, TEXTARRAYOID);
    static QUEUES: Plan = plan!("recover_queues", TEXTOID, TEXTARRAYOID);
    let values = [text(prefix), texts(living)];
    let released = affected(&JOBS, &values)?;
    affected(&QUEUES, &values)?;
    Ok(released)
}

/// Unlocks all that these workers hold. `workers` is a `text[]`.
pub fn unlock(workers: Value) -> Result<(), Error> {
    static JOBS: Plan = plan!("unlock_jobs", TEXTARRAYOID);
    static QUEUES: Plan = plan!("unlock_queues", TEXTARRAYOID);
    affected(&JOBS, &[workers])?;
    affected(&QUEUES, &[workers])?;
    Ok(())
}
