//! Renewing the locks of jobs that run for long, so that no external worker takes them to be dead.

use super::{affected, plan};
use crate::error::Error;
use crate::pg::spi::{Plan, texts};
use pgrx::IntoDatum;

/// Renews the locks of these jobs, held by these workers, and of their queues. Skips what is being completed.
pub fn renew(jobs: Vec<i64>, workers: &[String]) -> Result<(), Error> {
    static JOBS: Plan = plan!("renew_jobs", INT8ARRAYOID, TEXTARRAYOID);
    static QUEUES: Plan = plan!("renew_queues", TEXTARRAYOID);
    let workers = texts(workers);
    affected(&JOBS, &[jobs.into_datum(), workers])?;
    affected(&QUEUES, &[workers])?;
    Ok(())
}
