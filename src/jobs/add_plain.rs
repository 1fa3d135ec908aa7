//! Adds a job that has no key, no queue and no flags, as most jobs do, without the executor. It repeats what an INSERT
//! would do: see [`super::table_shape`].

use super::new_job::NewJob;
use super::{table_shape, triggers};
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::clock;
use crate::pg::heap::{self, Index};
use crate::pg::spi::Value;
use crate::schema::job_row::attribute;
use pgrx::IntoDatum;

/// Adds a job and returns its row, or `None` if the caller must use an INSERT.
pub fn add(job: &NewJob) -> Result<Value, Error> {
    let is_plain = job.job_key.is_none() && job.queue_name.is_none() && job.flags.is_none();
    let Some(identifier) = job.identifier.filter(|_| is_plain && heap::may_write()) else { return Ok(None) };
    let Some(installed) = table_shape::table()? else { return Ok(None) };
    let now = clock::transaction_start();
    let run_at = job.run_at.unwrap_or(now.into());
    let is_later = run_at.value() as i64 > now;
    let (id, priority) = (heap::next_value(installed.sequence)?, job.priority.unwrap_or(0.into()));
    let max_attempts = job.max_attempts.unwrap_or(25.into());
    let values: [Value; 16] = [
        Some(id.into()),
        None,
        Some(identifier),
        job.payload.or_else(|| "{}".into_datum()),
        Some(priority),
        Some(run_at),
        Some(0.into()),
        Some(max_attempts),
        None,
        Some(now.into()),
        Some(now.into()),
        None,
        None,
        None,
        Some(0.into()),
        None,
    ];
    let row = heap::insert(
        installed.table,
        &values,
        &[Index {
            oid: installed.order,
            is_unique: false,
            attributes: [attribute::PRIORITY, attribute::RUN_AT, attribute::ID, attribute::LOCKED_AT],
        }],
        &[
            Index { oid: installed.primary_key, is_unique: true, attributes: [attribute::ID] },
            Index { oid: installed.key, is_unique: true, attributes: [attribute::KEY] },
            Index { oid: installed.run_at, is_unique: false, attributes: [attribute::RUN_AT] },
        ][..if is_later { 3 } else { 2 }],
    )?;
    triggers::note(&triggers::Changed {
        id,
        identifier: Text::new(identifier).read(),
        priority: priority.value() as i32,
        run_at: run_at.value() as i64,
        attempts: 0,
        max_attempts: max_attempts.value() as i32,
        queue_name: None,
        payload: values[attribute::PAYLOAD as usize - 1],
        has_key: false,
        is_locked: false,
        is_news: true,
        is_added: true,
    })?;
    Ok(Some(row))
}
