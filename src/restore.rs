//! A dump that is being restored: its jobs would find half of their tables, and what they do would be done again, or
//! collide with what is still to be loaded. So nothing runs in that database until the session that loads the jobs ends,
//! or turns check_function_bodies on again, as DISCARD ALL does.

use crate::pg::background;
use crate::pg::catch::{Level, log};
use crate::pg::hooks;
use crate::pg::xact;
use crate::{schema, shmem, wake};
use pgrx::pg_sys::Oid;
use std::cell::Cell;

thread_local! {
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    static WATCHES_EXIT: Cell<bool> = const { Cell::new(false) };
}

/// To be called for each job that is added, before that commits.
pub fn note_job_added() {
    if !xact::checks_function_bodies()
        && schema::queue().is_ok_and(|queue| hooks::is_loading_a_dump(&queue.name, "jobs"))
        && !HOLDS.replace(true)
    {
        hold();
    }
}

fn hold() {
    let database = background::database();
    if shmem::board().and_then(|board| board.hold(database)).is_none() {
        return;
    }
    if !WATCHES_EXIT.replace(true) {
        background::at_exit(release, database.to_u32() as usize);
    }
    wake::watch_transactions();
    log(Level::Log, "a dump is being restored: kongtask runs no job in this database until this session ends");
}

/// To be called at the end of each transaction; must not raise.
pub fn note_transaction_end() {
    if HOLDS.get() && xact::checks_function_bodies() {
        release(background::database().to_u32() as usize);
    }
}

fn release(database: usize) {
    if !HOLDS.replace(false) {
        return;
    }
    if let Some(board) = shmem::board() {
        board.release(Oid::from(database as u32));
    }
}
