//! Adding a job.

use super::{add_plain, one_row, plan};
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::spi::{Plan, Value};

/// The arguments of `add_job` that end up in the row, in its order.
pub struct NewJob {
    pub identifier: Value,
    pub payload: Value,
    pub queue_name: Value,
    pub run_at: Value,
    pub max_attempts: Value,
    pub job_key: Value,
    pub priority: Value,
    pub flags: Value,
}

/// What to do where a job with the key exists. `Replace` and `PreserveRunAt` differ in run_at only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyMode {
    Replace,
    PreserveRunAt,
    UnsafeDedupe,
}

impl KeyMode {
    /// NULL is `Replace`, as in the reference.
    pub fn parse(mode: Option<Text>) -> Result<KeyMode, Error> {
        match mode {
            None => Ok(KeyMode::Replace),
            Some(mode) if mode.is("replace") => Ok(KeyMode::Replace),
            Some(mode) if mode.is("preserve_run_at") => Ok(KeyMode::PreserveRunAt),
            Some(mode) if mode.is("unsafe_dedupe") => Ok(KeyMode::UnsafeDedupe),
            Some(_) => Err(Error::UnknownJobKeyMode),
        }
    }
}

/// What is too long, in characters, or too little. Errors: GWBID, GWBQN, GWBJK, GWBMA, in this order.
pub fn check(identifier: i32, queue_name: i32, job_key: i32, max_attempts: i32) -> Result<(), Error> {
    if identifier > 128 {
        return Err(Error::IdentifierTooLong);
    }
    if queue_name > 128 {
        return Err(Error::QueueNameTooLong);
    }
    if job_key > 512 {
        return Err(Error::JobKeyTooLong);
    }
    if max_attempts < 1 {
        return Err(Error::MaxAttemptsTooLow);
    }
    Ok(())
}

static ADD: Plan =
    plan!(["add", "returning"], TEXTOID, JSONOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TEXTOID, INT4OID, TEXTARRAYOID);
static ADD_DEDUPE: Plan =
    plan!(["add", "add_dedupe"], TEXTOID, JSONOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TEXTOID, INT4OID, TEXTARRAYOID);
static ADD_REPLACE: Plan = plan!(
    ["add", "add_replace"],
    TEXTOID,
    JSONOID,
    TEXTOID,
    TIMESTAMPTZOID,
    INT4OID,
    TEXTOID,
    INT4OID,
    TEXTARRAYOID,
    BOOLOID
);
static SUPERSEDE: Plan = plan!("supersede", TEXTOID);

/// Adds a job, or changes the one that has its key; the row. Waits only for a transaction that is adding, changing or
/// completing a job with the same key.
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
    // The job with this key is running: it may finish, with what it knows, but this call may be news to it. It loses its
    // key and its further attempts to the new job.
    one_row(&SUPERSEDE, &[job.job_key])?;
    one_row(&ADD, &values)
}
