//! Renewing the locks of jobs that run for long, so that no external worker takes their locks to be dead.

use super::{affected, plan};
use crate::error::Error;
use crate::pg::spi::Plan;
use crate::pg::text::{DbText, text, texts};

/// Renews the locks of a worker's jobs whose ids are in a range, and of the queues that it holds. Skips jobs that are
/// being completed.
pub fn renew(worker_id: &DbText, ids: (i64, i64)) -> Result<(), Error> {
    static JOBS: Plan = plan!("renew_jobs", INT8OID, INT8OID, TEXTOID).by_index();
    static QUEUES: Plan = plan!("renew_queues", TEXTARRAYOID);
    affected(&JOBS, &[Some(ids.0.into()), Some(ids.1.into()), text(worker_id)])?;
    affected(&QUEUES, &[texts(&[worker_id])])?;
    Ok(())
}
