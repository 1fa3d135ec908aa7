//! Taking the next job: what get_job does for external workers. Ours take what their shelf has, see [`super::take`].

use super::{affected, one_row, plan};
use crate::error::Error;
use crate::pg::args::Row;
use crate::pg::spi::{Plan, Value};
use crate::queue::job::attribute;

/// Who takes, and what may be taken. The values are SQL's.
pub struct Claim {
    pub worker_id: Value,
    /// text[]; NULL: any task.
    pub task_identifiers: Value,
    /// interval: the age at which a lock is taken to be dead.
    pub job_expiry: Value,
    /// text[]; NULL: none.
    pub forbidden_flags: Value,
    pub now: Value,
}

/// Takes the first job that can run, by priority, run_at and id, and locks its queue; the row. Skips what others are
/// about to take.
pub fn claim(claim: &Claim) -> Result<Value, Error> {
    static CLAIM: Plan = plan!("claim", TEXTOID, TEXTARRAYOID, INTERVALOID, TEXTARRAYOID, TIMESTAMPTZOID).by_index();
    static LOCK_QUEUE: Plan = plan!("lock_queue", TEXTOID, TEXTOID, TIMESTAMPTZOID);
    let row = one_row(
        &CLAIM,
        &[claim.worker_id, claim.task_identifiers, claim.job_expiry, claim.forbidden_flags, claim.now],
    )?;
    let queue_name = row.and_then(|row| Row::new(row).value(attribute::QUEUE_NAME));
    if queue_name.is_some() {
        affected(&LOCK_QUEUE, &[queue_name, claim.worker_id, claim.now])?;
    }
    Ok(row)
}
