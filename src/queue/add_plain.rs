//! Adding a job that has no key, no queue and no flags, as most have, without the executor.
//!
//! What an INSERT would do is written down here once more, and is right only for the table as the extension installs it:
//! its columns, defaults, constraints, triggers and indexes. They are compared with that whenever any of them may have
//! changed. Where anything differs (a trigger of a user's, say), or a session is not an ordinary one, it is an INSERT.

use super::add::NewJob;
use super::plan;
use super::triggers;
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::clock;
use crate::pg::heap::{self, Index};
use crate::pg::invalidation::Watch;
use crate::pg::spi::{Plan, Value};
use crate::pg::xact::LatestSnapshot;
use crate::queue::job::attribute;
use crate::{restore, schema};
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::cell::Cell;

/// The table as it is installed.
#[derive(Clone, Copy)]
struct Installed {
    table: Oid,
    sequence: Oid,
    key: Oid,
    primary_key: Oid,
    order: Oid,
}

/// Adds a job, and returns its row; `None` if it is to be added by an INSERT.
pub fn add(job: &NewJob) -> Result<Value, Error> {
    let is_plain = job.job_key.is_none() && job.queue_name.is_none() && job.flags.is_none();
    let Some(identifier) = job.identifier.filter(|_| is_plain && heap::may_insert()) else { return Ok(None) };
    let Some(installed) = installed()? else { return Ok(None) };
    let now = clock::transaction_start();
    let run_at = job.run_at.unwrap_or(now.into());
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
        ],
    )?;
    restore::note_job_added();
    triggers::note(&triggers::Changed {
        id,
        identifier: Text::new(identifier).read(),
        priority: priority.value() as i32,
        run_at: run_at.value() as i64,
        attempts: 0,
        max_attempts: max_attempts.value() as i32,
        is_queued: false,
        has_key: false,
        is_locked: false,
        is_news: true,
    })?;
    Ok(Some(row))
}

/// The table, locked, if it is as installed.
fn installed() -> Result<Option<Installed>, Error> {
    static WATCH: Watch = Watch::new();
    static AS_INSTALLED: Plan = plan!("as_installed", OIDOID);
    thread_local! {
        static INSTALLED: Cell<Option<Installed>> = const { Cell::new(None) };
    }
    let table = schema::queue()?.table;
    heap::lock(table)?;
    if !WATCH.is_stale() && WATCH.is_of(table) {
        return Ok(INSTALLED.get());
    }
    WATCH.renew();
    WATCH.relation(table);
    let _snapshot = LatestSnapshot::take();
    let session = schema::session().inspect_err(|_| WATCH.spoil())?;
    let rows = session.read(&AS_INSTALLED, &[table.into_datum()]).inspect_err(|_| WATCH.spoil())?;
    let found = (rows.count() > 0).then(|| {
        let indexes: Vec<Oid> = rows.get(0, 1)?;
        let [key, primary_key, order, _queue] = indexes[..] else { return None };
        Some(Installed { table, sequence: rows.get(0, 0)?, key, primary_key, order })
    });
    INSTALLED.set(found.flatten());
    Ok(INSTALLED.get())
}
