//! Pausing and resuming, and giving failed jobs further attempts.

use crate::error::Error;
use crate::jobs::admin;
use crate::pg::args::Text;
use crate::pg::catch::{Failure, Level, log_with};
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::pg::trigger::{Trigger, nothing};
use crate::pg::{clock, notify, role};
use crate::signals::commit_notes;
use crate::tasks::registry;
use pgrx::IntoDatum;

/// Errors: 22023 (an empty or long name, a time that has passed), 42501.
pub fn pause(call: &mut Call) -> Result<Value, Error> {
    for (number, name) in [(0, "task"), (1, "queue_name")] {
        if call.text(number).is_some_and(|text| !(1..=128).contains(&text.characters())) {
            return Err(Error::InvalidPausedName(name));
        }
    }
    if call.timestamp(2).is_some_and(|until| until <= clock::now()) {
        return Err(Error::PauseEndsBefore);
    }
    let task = call.value(0);
    let row = registry::pause(task, call.value(1), call.value(2), call.value(3), role::current())?;
    if let Some(task) = unregistered(task)? {
        log_with(
            Level::Notice,
            format!("task \"{task}\" is not registered"),
            Some("Only external workers run its jobs; they are paused.".into()),
            Some("SELECT identifier FROM kongtask.tasks lists those that are registered.".into()),
        );
    }
    Ok(row)
}

/// Errors: 42501.
pub fn resume(call: &mut Call) -> Result<Value, Error> {
    let (task, queue_name) = (call.value(0), call.value(1));
    let resumed = registry::resume(task, queue_name, role::current())?;
    if resumed && (task.is_none() || unregistered(task)?.is_some()) {
        // External workers may wait for what is resumed.
        notify::notify(c"jobs:insert", c"");
    }
    if task.is_none() && queue_name.is_none() {
        let left = registry::pauses_left()?;
        if left > 0 {
            log_with(
                Level::Notice,
                format!("{left} other pauses last"),
                None,
                Some("SELECT * FROM kongtask.pauses lists them; resume each with its own task and queue_name.".into()),
            );
        }
    }
    Ok(resumed.into_datum())
}

/// Returns the name of a task that is not registered.
fn unregistered(task: Value) -> Result<Option<DbText>, Error> {
    let Some(task) = task.map(|task| Text::new(task).read()) else { return Ok(None) };
    Ok(registry::tasks()?.get(&task).is_none().then_some(task))
}

/// Errors: 22023 (most), 42501.
pub fn redrive(call: &mut Call) -> Result<Value, Error> {
    if call.int4(2).is_some_and(|most| most < 0) {
        return Err(Error::NegativeMost);
    }
    let (task, most) = (call.value(0), call.int4(2).map(i64::from).into_datum());
    registry::may_control_task(task, role::current())?;
    Ok((admin::redrive(task, call.value(1), most, call.value(3))? as i64).into_datum())
}

/// After any statement that has changed kongtask.pauses: has every process read it again, with the tasks.
pub fn pauses_changed(call: &mut Call) -> Result<Value, Failure> {
    Trigger::of(call)?;
    registry::tell_of_changes()?;
    commit_notes::note_tasks_changed();
    Ok(nothing())
}
