//! What can run, and when the next job can. These only read: they assign no transaction id and write no WAL.

use super::plan;
use crate::error::Error;
use crate::pg::clock::Timestamp;
use crate::pg::spi::{Plan, interval, texts, texts_or_null};
use crate::queue::job::timestamp;
use crate::schema;
use std::time::Duration;

/// How many jobs of these tasks could be taken now, where `others` are tasks that others see to; counts to `most` only.
pub fn runnable(
    tasks: &[String],
    others: &[String],
    job_expiry: Duration,
    forbidden_flags: &[String],
    now: Timestamp,
    most: usize,
) -> Result<usize, Error> {
    static RUNNABLE: Plan =
        plan!("runnable", TEXTARRAYOID, INTERVALOID, TEXTARRAYOID, TIMESTAMPTZOID, INT8OID, TEXTARRAYOID)
            .in_index_order();
    let session = schema::session()?;
    let values = [
        texts(tasks),
        interval(job_expiry),
        texts(forbidden_flags),
        Some(now.into()),
        Some(i64::try_from(most).unwrap_or(i64::MAX).into()),
        texts_or_null(others),
    ];
    let count: Option<i64> = session.read(&RUNNABLE, &values)?.get(0, 0);
    Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
}

/// The earliest run_at after `now`.
pub fn next_due(now: Timestamp) -> Result<Option<Timestamp>, Error> {
    static NEXT_DUE: Plan = plan!("next_due", TIMESTAMPTZOID).in_index_order();
    let session = schema::session()?;
    Ok(timestamp(session.read(&NEXT_DUE, &[Some(now.into())])?.value(0, 0)))
}
