//! A dump that is being restored: its jobs would find half of their tables, and what they do would be done again, or
//! collide with what is still to be loaded. So nothing runs in that database from the COPY of `jobs` on, until
//!
//! - the session that loads them ends, or turns check_function_bodies on again, as DISCARD ALL does; and so has every session
//!   that makes indexes, constraints or triggers of a dump meanwhile (those of a parallel restore, or of a later section);
//! - some of these are there: were, when the load began (data that is restored into a schema that is whole), or have been made
//!   since. Otherwise the section post-data is still to come, and is waited for, but not for ever.
//!
//! What sessions and databases are held is in shared memory: see [`crate::shared::Restores`].

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

/// How long a post-data section is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same, where the session that has loaded the data had created the extension: of a dump that was restored as a whole, all
/// is there, and it just has no index.
const PATIENCE_WITH_A_WHOLE: Duration = Duration::from_secs(5);

thread_local! {
    /// The generation of what this session holds, if it does.
    static HELD: Cell<Option<u32>> = const { Cell::new(None) };
    static WATCHES_EXIT: Cell<bool> = const { Cell::new(false) };
    /// Whether this session has created the extension, out of a dump.
    static CREATED: Cell<bool> = const { Cell::new(false) };
}

/// To be called before CREATE EXTENSION of ours runs.
pub fn note_created() {
    if !xact::checks_function_bodies() && schema::extension().is_none() {
        CREATED.set(true);
    }
}

/// To be called before a COPY out of a dump, into this table, runs.
pub fn note_load(of_schema: &DbText, table: &DbText) {
    if *table == *"jobs" && schema::queue().is_ok_and(|queue| queue.name == *of_schema) {
        hold(schema_is_whole().unwrap_or(false));
    }
}

/// To be called before an index, a constraint or a trigger out of a dump is made.
pub fn note_completion() {
    // Also before the load begins: it may begin, and not see this yet, before this commits.
    if schema::extension().is_some() {
        hold(true);
    }
}

/// Whether any table of a user's has an index or a trigger, or there is no table to have one.
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

/// Called at the end of each transaction; must not raise.
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

/// Has jobs run in this database whatever is being restored; whether anything was.
pub fn release_all() -> bool {
    shared::board().is_some_and(|board| board.release_restores(background::database()))
}
