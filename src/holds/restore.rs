//! Keeps jobs from running in a database that is being restored. A handler would find half of its tables, and its
//! effects would collide with rows that are still to be loaded. A hold begins with the COPY of `jobs` and lasts until
//! both of these are true:
//!
//! - The session that loaded the jobs has ended, or has turned check_function_bodies on again, as DISCARD ALL does. So
//!   have all sessions that meanwhile made indexes, constraints or triggers of the dump (those of a parallel restore,
//!   or of a later section).
//! - The database has some of these: either it had them when the load began (data restored into a complete schema), or
//!   they were made since. Otherwise the post-data section is still to come. It is waited for, for a limited time.
//!
//! Shared memory has the sessions and databases that are held: see [`crate::shared::Restores`].

use crate::error::Error;
use crate::pg::background;
use crate::pg::catch::{Level, log_with};
use crate::pg::spi::{self, Home, Plan, plan};
use crate::pg::text::DbText;
use crate::pg::xact::{self, LatestSnapshot};
use crate::schema;
use crate::shared;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::time::Duration;

/// How long the post-data section is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same, where the session that loaded the data had also created the extension. Such a dump is restored as a whole:
/// it merely has no index.
const PATIENCE_WITH_A_WHOLE: Duration = Duration::from_secs(5);

thread_local! {
    /// The generation of the hold that this session has, if it has one.
    static HELD: Cell<Option<u32>> = const { Cell::new(None) };
    static WATCHES_EXIT: Cell<bool> = const { Cell::new(false) };
    /// True if this session has created the extension as part of a dump.
    static CREATED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that CREATE EXTENSION kongtask is about to run.
pub fn note_created() {
    if !xact::checks_function_bodies() && schema::extension().is_none() {
        CREATED.set(true);
    }
}

/// Begins a hold if a COPY of a dump into `jobs` is about to run.
pub fn note_load(of_schema: &DbText, table: &DbText) {
    if *table == *"jobs" && schema::queue().is_ok_and(|queue| queue.name == *of_schema) {
        hold(schema_is_whole().unwrap_or(false));
    }
}

/// Joins or begins a hold if an index, constraint or trigger of a dump is about to be made.
pub fn note_completion() {
    // Also before the load begins: the load may begin, without seeing this index, before the index is committed.
    if schema::extension().is_some() {
        hold(true);
    }
}

/// Returns true if a user table has an index or a trigger, or there is no user table.
fn schema_is_whole() -> Result<bool, Error> {
    static WHOLE: Plan = plan!("schema_is_whole");
    let _snapshot = LatestSnapshot::take();
    let session = spi::Session::open(&Home::none());
    let rows = session.read(&WHOLE, &[])?;
    Ok(rows.get(0, 0).unwrap_or(false))
}

fn hold(whole: bool) {
    let database = background::database();
    let Some(board) = shared::board() else { return };
    let Some((generation, is_new)) = board.hold_for_restore(database, background::pid(), HELD.get(), whole) else {
        return;
    };
    HELD.set(Some(generation));
    if !is_new {
        return;
    }
    if !WATCHES_EXIT.replace(true) {
        background::at_exit(release, database.to_u32() as usize);
    }
    xact::at_end(at_transaction_end);
    log_with(
        Level::Log,
        "a dump is being restored: kongtask runs no job in this database until this session ends",
        None,
        Some("If this session belongs to a connection pool and goes on, run DISCARD ALL in it, or SELECT kongtask.release_holds() in any session of this database.".into()),
    );
}

/// Ends the hold if check_function_bodies is on again. Runs at the end of each transaction, so it must not raise.
fn at_transaction_end(_committed: bool) {
    if HELD.get().is_some() && xact::checks_function_bodies() {
        release(background::database().to_u32() as usize);
    }
}

fn release(database: usize) {
    let (Some(generation), Some(board)) = (HELD.take(), shared::board()) else { return };
    let patience = if CREATED.replace(false) { PATIENCE_WITH_A_WHOLE } else { PATIENCE };
    board.end_restore(Oid::from(database as u32), background::pid(), generation, patience);
}

/// Ends all holds of this database that are due to a restore. Returns true if there was one.
pub fn release_all() -> bool {
    shared::board().is_some_and(|board| board.release_restores(background::database()))
}
