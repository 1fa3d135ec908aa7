//! The arguments of `add_job` and `add_jobs`, and their limits.

use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::spi::Value;

/// The arguments of `add_job` that become columns of the row, in its order.
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

/// What happens to the job that has the key already. `Replace` and `PreserveRunAt` differ in run_at only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyMode {
    Replace,
    PreserveRunAt,
    UnsafeDedupe,
}

impl KeyMode {
    /// Parses a mode. NULL is `Replace`, as in graphile-worker.
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

/// Checks lengths in characters, and max_attempts. Errors: GWBID, GWBQN, GWBJK, GWBMA, checked in this order.
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
