//! Hooks for the statements that concern kongtask: those that need a database empty, those that create, update or drop
//! the extension, COMMIT PREPARED, those of a dump that is restored, and those on subscriptions.
//!
//! A session stops the workers only by a statement that it has the right to run, and not by a drop that is certain to
//! be refused.

use crate::error::Error;
use crate::holds::restore;
use crate::pg::clock::{self, after};
use crate::pg::hooks::{self, Statement};
use crate::pg::spi::{Home, Plan, Session, plan};
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::pg::{background, fault, heap, latch, role, version};
use crate::schema;
use crate::settings;
use crate::shared::{self, Board, DatabaseEntry, State, counters, limits};
use crate::signals::commit_notes;
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Watches utility statements. To be called while preloading.
pub fn watch() {
    hooks::before_statement(|statement| Ok(before(&statement)?));
}

fn before(statement: &Statement) -> Result<(), Error> {
    match statement {
        Statement::Creates => {
            restore::note_created();
            if schema::extension().is_none() {
                // What is counted here was of an extension that has been dropped.
                counters::forget(|database| database == background::database());
                limits::forget(|database| database == background::database());
                if let Some(board) = shared::board() {
                    board.cancels().free_of(|database| database == background::database());
                }
            }
            commit_notes::note_created();
        }
        Statement::HasCommittedPrepared => note_what_was_prepared(),
        Statement::Loads { schema, table } => restore::note_load(schema, table),
        Statement::Completes => restore::note_completion(),
        // The scheduler looks whether one feeds the queue.
        Statement::ChangesSubscriptions => commit_notes::note_tasks_changed(),
        Statement::Empties(database) if version::owns_database(*database, role::current()) => empty(*database),
        Statement::Empties(_) => (),
        Statement::Updates if owns_the_extension() => lock_jobs(),
        drop if drops_the_queue(drop) => {
            refuse_what_postgres_would(drop)?;
            empty(background::database());
            let _ = fault::point("emptied");
            lock_jobs();
        }
        _ => (),
    }
    Ok(())
}

/// Refuses a drop that Postgres is certain to refuse, before any worker has to stop for it. Where that is uncertain,
/// Postgres decides, once the workers have left. Errors: 2BP01.
fn refuse_what_postgres_would(drop: &Statement) -> Result<(), Error> {
    static REFUSED: Plan = plan!("drop_refused", OIDOID, OIDARRAYOID);
    let (names_extension, roles) = match drop {
        Statement::Drops { restrict: true } => (true, Vec::new()),
        Statement::DropsOwned { roles, restrict: true } if schema::queue()?.is_dropped_with_all_of(roles) => {
            (false, roles.clone())
        }
        _ => return Ok(()),
    };
    let _snapshot = LatestSnapshot::take();
    let session = Session::open(&Home::none());
    let rows = session.read(&REFUSED, &[schema::extension().into_datum(), roles.into_datum()])?;
    let why: Vec<DbText> = (0..rows.count()).filter_map(|row| rows.get(row, 0)).collect();
    if why.is_empty() { Ok(()) } else { Err(Error::StillNeeded { names_extension, why }) }
}

/// Notes that a prepared transaction may have added jobs, or the extension: what it had noted itself was forgotten when
/// it was prepared.
fn note_what_was_prepared() {
    let Some(board) = shared::board() else { return };
    let is_served = board.database(background::database()).is_some_and(|entry| entry.serving.load(SeqCst));
    if is_served {
        commit_notes::note_anything();
    } else if schema::extension().is_some() {
        commit_notes::note_created();
    }
}

/// Returns true if the current role may run a statement that drops the extension, or its schema and the extension with
/// it.
fn drops_the_queue(statement: &Statement) -> bool {
    let me = role::current();
    match statement {
        Statement::Drops { .. } => owns_the_extension(),
        Statement::DropsSchemas(names) => {
            schema::queue().is_ok_and(|queue| names.contains(&queue.name) && queue.is_of(me))
        }
        // Postgres refuses a role that may drop the objects of only some of them.
        Statement::DropsOwned { roles, .. } => {
            roles.iter().all(|&role| role::has_privileges_of(me, role))
                && schema::queue().is_ok_and(|queue| queue.owners().iter().any(|owner| roles.contains(owner)))
        }
        _ => false,
    }
}

fn owns_the_extension() -> bool {
    schema::extension().is_some_and(|extension| version::owns_extension(extension, role::current()))
}

/// Makes kongtask's processes leave a database, and keeps them away until this transaction ends. Running jobs get
/// kongtask.shutdown_timeout to end.
fn empty(database: Oid) {
    let Some(board) = shared::board() else { return };
    let me = background::pid();
    if board.workers_of(database).any(|(_, worker)| worker.pid.load(SeqCst) == me) {
        // A handler that drops the extension it runs in: waiting for itself would take for ever.
        return;
    }
    let Some(entry) = board.hold(database) else { return };
    commit_notes::note_held(database);
    // Then the statement itself says who is in the way.
    let patience = after(clock::tick(), settings::shutdown_timeout() + Duration::from_secs(5));
    while is_inhabited(board, entry, database) && clock::tick() < patience {
        latch::wait_a_moment(Duration::from_millis(5));
    }
}

/// Locks the table `jobs` first, as every session does that adds a job, and every process that reads the tasks. A drop
/// alone would lock its sequence before it, and the scripts of some updates kongtask.tasks, and deadlock with those.
fn lock_jobs() {
    if let Ok(queue) = schema::queue() {
        heap::lock_all(queue.table);
    }
}

fn is_inhabited(board: Board, entry: &DatabaseEntry, database: Oid) -> bool {
    entry.attendance.has_scheduler() || board.workers_of(database).any(|(_, worker)| worker.state() != State::Gone)
}
