//! Releasing what dead workers of this server held.

use super::complete::unlock_queue;
use super::{affected, plan};
use crate::error::Error;
use crate::pg::spi::{Plan, Value, text, texts};
use crate::schema;

/// Releases the jobs, with ids from one to another, that a worker holds and does not run, or died with: they can run again
/// at once, and the attempt is not counted. How many there were.
pub fn release(worker_id: Value, ids: (i64, i64)) -> Result<usize, Error> {
    static RELEASE: Plan = plan!("release", INT8OID, INT8OID, TEXTOID).by_index();
    let session = schema::session()?;
    let rows = session.execute(&RELEASE, &[Some(ids.0.into()), Some(ids.1.into()), worker_id])?;
    for row in 0..rows.count() {
        unlock_queue(rows.value(row, 0), worker_id)?;
    }
    Ok(rows.count())
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
