//! Cancelling jobs that do not run. Those that run are cancelled by their workers: see [`crate::shared::cancels`].

use super::runs::{self, Ended};
use super::{affected, one_row, plan};
use crate::error::Error;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, text, texts};
use crate::schema;
use crate::schema::job_row::Job;
use crate::shared;
use crate::signals::commit_notes::{self, Change};
use crate::tasks::registry;

/// A job as a cancel finds it.
pub struct Found {
    pub task: DbText,
    /// True if it has failed for good.
    pub is_over: bool,
    /// True if an external worker has claimed it.
    pub is_external: bool,
}

/// Returns a job; `None` if there is none.
pub fn look(id: i64) -> Result<Option<Found>, Error> {
    static LOOK: Plan = plan!("cancel_look", INT8OID).by_index();
    let session = schema::session()?;
    let rows = session.execute(&LOOK, &[Some(id.into())])?;
    Ok((rows.count() > 0).then(|| Found {
        task: rows.get(0, 0).unwrap_or_default(),
        is_over: rows.get(0, 1).unwrap_or(false),
        is_external: rows.get(0, 2).unwrap_or(false),
    }))
}

/// Fails a job for good that no worker has. Returns its row, or `None` if a worker has it, another transaction has
/// locked it, or it has failed for good. Never waits.
pub fn cancel_idle(id: i64, said: &DbText) -> Result<Value, Error> {
    static CANCEL: Plan = plan!("cancel_idle", INT8OID, TEXTOID, TEXTARRAYOID).by_index();
    let row = one_row(&CANCEL, &[Some(id.into()), text(said), texts(&shared::living_workers())])?;
    if let Some(row) = row {
        let job = Job::new(row);
        if let Some(task) = registry::tasks()?.get(&job.task()) {
            runs::keep_failure(&job, task, Ended::Cancelled, Some(said))?;
            if let Some(counters) = task.counters() {
                commit_notes::note_change(counters, Change::Cancelled);
            }
        }
        commit_notes::note_ended(id);
    }
    Ok(row)
}

/// Takes the further attempts of a job that an external worker runs. Returns false if that is no longer so, or another
/// transaction has locked the row. Never waits.
pub fn cancel_external(id: i64, said: &DbText) -> Result<bool, Error> {
    static CANCEL: Plan = plan!("cancel_external", INT8OID, TEXTOID).by_index();
    Ok(affected(&CANCEL, &[Some(id.into()), text(said)])? > 0)
}
