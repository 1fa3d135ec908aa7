//! Cancelling a job.

use crate::error::Error;
use crate::jobs::cancel::{self, Found};
use crate::pg::function::Call;
use crate::pg::role;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::schema;
use crate::shared::cancels::LONGEST;
use crate::signals::cancel_requests;
use crate::tasks::registry;
use pgrx::pg_sys::InvalidOid;

/// Cancels a job, once the transaction commits. Errors: 22004, 42501, 55P03, 53400.
pub fn cancel(call: &mut Call) -> Result<Value, Error> {
    let id = call.int8(0).ok_or(Error::NullArgument("job_id"))?;
    Ok(text(cancel_job(id, call.text(1).map(|reason| reason.read()))?))
}

fn cancel_job(id: i64, reason: Option<DbText>) -> Result<&'static str, Error> {
    const GONE: &str = "gone";
    let Some(found) = cancel::look(id)? else { return Ok(GONE) };
    if !may_cancel(&found)? {
        return Err(Error::MayNotCancel { job: id, task: found.task });
    }
    let said = last_error(reason);
    if cancel::cancel_idle(id, &said)?.is_some() {
        return Ok("cancelled");
    }
    // It is running, has just been settled, or another session has its row. Its worker may have committed since the
    // first look.
    let Some(found) = cancel::look(id)?.filter(|found| !found.is_over) else { return Ok(GONE) };
    if !found.is_external || !cancel::cancel_external(id, &said)? {
        cancel_requests::note(id, &said)?;
    }
    Ok("stopping")
}

/// Returns true if the current role may cancel jobs of this task.
fn may_cancel(found: &Found) -> Result<bool, Error> {
    let me = role::current();
    let tasks = registry::tasks()?;
    let is_its =
        tasks.get(&found.task).is_some_and(|task| task.role != InvalidOid && role::has_privileges_of(me, task.role));
    Ok(is_its || role::is_superuser(me) || schema::queue()?.owners().contains(&me))
}

/// Returns what last_error is to say.
fn last_error(reason: Option<DbText>) -> DbText {
    let mut said = DbText::from("cancelled by ");
    said.push(&role::name(role::current()).unwrap_or_default());
    if let Some(reason) = reason {
        said.push(": ");
        said.push(&reason);
    }
    let mut said = said.valid();
    said.clip(LONGEST);
    said
}
