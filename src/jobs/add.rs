//! Adding a job.

use super::new_job::{KeyMode, NewJob};
use super::{add_plain, one_row, plan};
use crate::error::Error;
use crate::pg::spi::{Plan, Value};

static ADD: Plan = plan!("add", TEXTOID, JSONOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TEXTOID, INT4OID, TEXTARRAYOID);
static ADD_DEDUPE: Plan =
    plan!("add_dedupe", TEXTOID, JSONOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TEXTOID, INT4OID, TEXTARRAYOID);
static ADD_REPLACE: Plan =
    plan!("add_replace", TEXTOID, JSONOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TEXTOID, INT4OID, TEXTARRAYOID, BOOLOID);
static SUPERSEDE: Plan = plan!("supersede", TEXTOID);

/// Adds a job, or changes the one that has its key. Returns the row. Waits only for a transaction that adds, changes or
/// completes a job with the same key.
pub fn add(job: &NewJob, mode: KeyMode) -> Result<Value, Error> {
    if let Some(row) = add_plain::add(job)? {
        return Ok(Some(row));
    }
    let values = [
        job.identifier,
        job.payload,
        job.queue_name,
        job.run_at,
        job.max_attempts,
        job.job_key,
        job.priority,
        job.flags,
    ];
    if job.job_key.is_none() {
        return one_row(&ADD, &values);
    }
    if mode == KeyMode::UnsafeDedupe {
        return one_row(&ADD_DEDUPE, &values);
    }
    let preserve_run_at = Some((mode == KeyMode::PreserveRunAt).into());
    let [a, b, c, d, e, f, g, h] = values;
    let row = one_row(&ADD_REPLACE, &[a, b, c, d, e, f, g, h, preserve_run_at])?;
    if row.is_some() {
        return Ok(row);
    }
    // The job with this key is running, and its handler may not know of this call. So it keeps running, and the new job
    // gets its key and its further attempts.
    one_row(&SUPERSEDE, &[job.job_key])?;
    one_row(&ADD, &values)
}
