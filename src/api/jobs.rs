//! graphile-worker's functions.

use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::queue::{add, admin, claim, complete, fail};

/// Errors: GWBID, GWBQN, GWBJK, GWBMA, GWBKM, in this order; and those of the table, such as 23502 for no identifier.
pub fn add_job(call: &mut Call) -> Result<Value, Error> {
    let longer_than = |n, most| call.text(n).is_some_and(|text| text.characters() > most);
    if longer_than(0, 128) {
        return Err(Error::IdentifierTooLong);
    }
    if longer_than(2, 128) {
        return Err(Error::QueueNameTooLong);
    }
    if longer_than(5, 512) {
        return Err(Error::JobKeyTooLong);
    }
    if call.int4(4).is_some_and(|max_attempts| max_attempts < 1) {
        return Err(Error::MaxAttemptsTooLow);
    }
    let job = add::NewJob {
        identifier: call.value(0),
        payload: call.value(1),
        queue_name: call.value(2),
        run_at: call.value(3),
        max_attempts: call.value(4),
        job_key: call.value(5),
        priority: call.value(6),
        flags: call.value(7),
    };
    let mode = match job.job_key {
        Some(_) => add::KeyMode::parse(call.text(8))?,
        None => add::KeyMode::Replace,
    };
    add::add(&job, mode)
}

/// Errors: P0001 for a worker id of less than ten characters.
pub fn get_job(call: &mut Call) -> Result<Value, Error> {
    if call.text(0).is_none_or(|worker_id| worker_id.characters() < 10) {
        return Err(Error::InvalidWorkerId);
    }
    claim::claim(&claim::Claim {
        worker_id: call.value(0),
        task_identifiers: call.value(1),
        job_expiry: call.value(2),
        forbidden_flags: call.value(3),
        now: call.value(4),
    })
}

pub fn complete_job(call: &mut Call) -> Result<Value, Error> {
    complete::complete(call.value(0), call.value(1))
}

pub fn fail_job(call: &mut Call) -> Result<Value, Error> {
    fail::fail(call.value(0), call.value(1), call.value(2))
}

pub fn complete_jobs(call: &mut Call) -> Result<Value, Error> {
    let ids = call.value(0);
    admin::complete_many(call, ids).map(|()| None)
}

pub fn permanently_fail_jobs(call: &mut Call) -> Result<Value, Error> {
    let (ids, message) = (call.value(0), call.value(1));
    admin::fail_many(call, ids, message).map(|()| None)
}

pub fn reschedule_jobs(call: &mut Call) -> Result<Value, Error> {
    let (ids, changes) = (call.value(0), [1, 2, 3, 4].map(|n| call.value(n)));
    admin::reschedule_many(call, ids, changes).map(|()| None)
}

pub fn remove_job(call: &mut Call) -> Result<Value, Error> {
    admin::remove(call.value(0))
}
