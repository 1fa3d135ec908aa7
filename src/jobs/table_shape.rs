//! Checks that the table `jobs` is exactly as the extension installs it: its columns, defaults, constraints, triggers
//! and indexes. Only then may a row be added, claimed or deleted without the executor, by code that knows what to check, to fire
//! and to index. The check is made again whenever any of it may have changed. Where anything differs (a user's trigger,
//! say), or the session is not an ordinary one, the operation is an INSERT, an UPDATE or a DELETE.

use super::plan;
use crate::error::Error;
use crate::pg::heap;
use crate::pg::invalidation::Watch;
use crate::pg::spi::Plan;
use crate::pg::xact::LatestSnapshot;
use crate::schema;
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::cell::Cell;

/// The table and its indexes, as installed.
#[derive(Clone, Copy)]
pub struct Installed {
    pub table: Oid,
    pub sequence: Oid,
    /// The indexes.
    pub key: Oid,
    pub primary_key: Oid,
    pub order: Oid,
    pub queue: Oid,
    pub run_at: Oid,
    /// True if a row may also be updated without the executor.
    pub may_update: bool,
}

/// Returns the table, locked, if it is as installed.
pub fn table() -> Result<Option<Installed>, Error> {
    static WATCH: Watch = Watch::new();
    static AS_INSTALLED: Plan = plan!("table_shape", OIDOID);
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
        let [key, primary_key, order, queue, run_at] = indexes[..] else { return None };
        let may_update = rows.get(0, 2).unwrap_or(false);
        Some(Installed { table, sequence: rows.get(0, 0)?, key, primary_key, order, queue, run_at, may_update })
    });
    INSTALLED.set(found.flatten());
    Ok(INSTALLED.get())
}
