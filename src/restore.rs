//! A dump that is being restored: its jobs would find half of their tables, and what they do would be done again, or
//! collide with what is still to be loaded. So nothing runs in that database until the session that loads the jobs ends.

use crate::pg::background;
use crate::pg::catch::{Level, log};
use crate::pg::hooks;
use crate::shmem;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;

/// To be called for each job that is added, before that commits.
pub fn note_job_added() {
    thread_local! {
        static HOLDING: Cell<bool> = const { Cell::new(false) };
    }
    if hooks::is_loading_a_dump() && !HOLDING.replace(true) {
        hold();
    }
}

fn hold() {
    let database = background::database();
    let Some(entry) = shmem::board().and_then(|board| board.database_or_new(database)) else { return };
    entry.holds.fetch_add(1, SeqCst);
    entry.scheduler.set();
    background::at_exit(release, database.to_u32() as usize);
    log(Level::Log, "a dump is being restored: kongtask runs no job in this database until this session ends");
}

fn release(database: usize) {
    let Some(board) = shmem::board() else { return };
    if let Some(entry) = board.database(Oid::from(database as u32)) {
        entry.wanted.store(true, SeqCst);
        entry.holds.fetch_sub(1, SeqCst);
    }
    board.launcher().set();
}
