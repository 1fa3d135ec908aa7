//! Registering tasks.

use crate::error::Error;
use crate::pg::catch::Failure;
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::trigger::{Trigger, nothing};
use crate::pg::{args, invalidation, role};
use crate::run;
use crate::schema;
use crate::signals::commit_notes;
use crate::tasks::handler::Handler;
use crate::tasks::{command, registry};
use pgrx::IntoDatum;

/// Registers a task for the current role. Locks the task's row. Errors: 22004 (NULL), 22023 (identifier, max_batch,
/// timeout), those of [`Handler::check`], 28000 (the role cannot log in), 42501 (another role's task).
pub fn register_task(call: &mut Call) -> Result<Value, Error> {
    let identifier = call.text(0).ok_or(Error::NullArgument("identifier"))?;
    let function = call.oid(1).ok_or(Error::NullArgument("handler"))?;
    if !(1..=128).contains(&identifier.characters()) {
        return Err(Error::InvalidTaskIdentifier);
    }
    let caller = role::current();
    if identifier.is(command::TASK) {
        return Err(Error::ReservedTask);
    }
    let handler = Handler::check(function, caller)?;
    let takes_sets = handler.takes_sets();
    let (usual, most) = match takes_sets {
        true => (run::USUAL_SET, run::LARGEST_SET),
        false if handler.has_steps() => (1, 1),
        false => (1, run::LARGEST_BATCH),
    };
    let max_batch = call.int4(2).map_or(Some(usual), |given| usize::try_from(given).ok());
    let max_batch = max_batch
        .filter(|given| (1..=most).contains(given))
        .ok_or(Error::InvalidMaxBatch { most, is_set: takes_sets })?;
    let in_place = call.bool(3).unwrap_or(true) && !handler.has_steps();
    let timeout = call.value(4);
    if timeout.is_some_and(|timeout| !(1..=i64::from(i32::MAX)).contains(&args::milliseconds(timeout))) {
        return Err(Error::InvalidTimeout);
    }
    registry::check_login(caller)?;
    let identifier = identifier.read();
    let row = registry::register(&identifier, &schema::name_of(function)?, caller)?;
    // The function of version 0.1.0 takes no options, and its table has none.
    if call.arguments() == 2 { Ok(row) } else { registry::set_options(&identifier, max_batch, in_place, timeout) }
}

/// Unregisters a task. Locks the task's row. Errors: 42501 (another role's task).
pub fn unregister_task(call: &mut Call) -> Result<Value, Error> {
    let Some(identifier) = call.text(0) else { return Ok(None) };
    let deleted = registry::unregister(&identifier.read(), role::current())?;
    Ok(Some(deleted.into()))
}

/// Returns the role that a row of kongtask.tasks names; NULL if it does not exist.
pub fn role_named(call: &mut Call) -> Result<Value, Error> {
    Ok(call.text(0).and_then(|name| role::named(&name)).and_then(IntoDatum::into_datum))
}

/// After any statement that has changed kongtask.tasks: has every process read it again.
pub fn tasks_changed(call: &mut Call) -> Result<Value, Failure> {
    invalidation::relation_changed(Trigger::of(call)?.relation());
    commit_notes::note_tasks_changed();
    Ok(nothing())
}
