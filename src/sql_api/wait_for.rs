//! Waiting for a job to end.

use crate::error::Error;
use crate::jobs::runs;
use crate::pg::args::{self, Row};
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::{background, clock, fault, role, xact};
use crate::schema::job_row::attribute;
use crate::settings;
use crate::signals::waits::Waiting;
use crate::tasks::handler;
use crate::tasks::registry::{self, Keep};
use std::time::Duration;

/// Returns the row of kongtask.runs that ends a job, once there is one; NULL at the end of the timeout. Errors: 22004,
/// 22023, 42501, 42704, 53400, 55000.
pub fn wait_for(call: &mut Call) -> Result<Value, Error> {
    let job = call.int8(0).ok_or(Error::NullArgument("job_id"))?;
    let timeout = call.value(1).map(args::milliseconds);
    let timeout = timeout.map(|ms| u64::try_from(ms).map(Duration::from_millis)).transpose();
    let until = timeout.map_err(|_| Error::NegativeTimeout)?.map(|timeout| clock::after(clock::tick(), timeout));
    if let Some(run) = look(job)? {
        return Ok(Some(run));
    }
    if background::is_standby() {
        return Err(Error::StandbyCannotWait);
    }
    let waiting = Waiting::begin(job)?;
    fault::point("waiting")?;
    loop {
        if let Some(run) = look(job)? {
            return Ok(Some(run));
        }
        let left = until.and_then(clock::until_tick);
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        // Nothing tells of a job that was deleted by a DELETE.
        waiting.sleep(left.unwrap_or(Duration::MAX).min(settings::poll_interval()))?;
    }
}

/// Returns the row that ends a job, or `None` if it has not ended. Errors: 42501, 42704, 55000.
fn look(job: i64) -> Result<Value, Error> {
    let Some(found) = runs::look(job)? else {
        // It has ended, if it was ever there.
        let (run, role) = runs::last(job, None)?.ok_or(Error::NoSuchJob(job))?;
        let may = registry::may_control(role::current(), role::named(&role.read()))?;
        return if may { Ok(Some(run)) } else { Err(Error::MayNotWait(job)) };
    };
    let tasks = registry::tasks()?;
    let task = tasks.get(&found.task);
    if !registry::may_control(role::current(), task.map(|task| task.role))? {
        return Err(Error::MayNotWait(job));
    }
    if found.is_over {
        let kept = runs::last(job, found.last_error.as_ref())?;
        return Ok(Some(kept.map_or(found.row, |(run, _)| run)));
    }
    let is_running_here = || handler::current_row().and_then(|row| Row::new(row).get(attribute::ID)) == Some(job);
    if [found.written_by, found.locked_by].into_iter().any(xact::is_mine) || is_running_here() {
        return Err(Error::WaitsForItself(job));
    }
    if task.is_none_or(|task| task.keep != Keep::All) {
        return Err(Error::KeepsNoRuns { task: found.task, is_registered: task.is_some() });
    }
    Ok(None)
}
