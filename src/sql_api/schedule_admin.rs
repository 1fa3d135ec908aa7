//! Schedules.

use crate::error::Error;
use crate::pg::catch::Failure;
use crate::pg::function::Call;
use crate::pg::invalidation;
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::pg::trigger::{Trigger, nothing};
use crate::schedules;
use crate::schedules::table::{self, Terms};
use crate::signals::commit_notes;
use pgrx::IntoDatum;

/// The arguments from the second on.
fn terms(call: &Call) -> Terms {
    Terms {
        cron: call.value(1),
        task: call.value(2),
        payload: call.value(3),
        timezone: call.value(4),
        queue_name: call.value(5),
        priority: call.value(6),
        max_attempts: call.value(7),
        job_key: call.value(8),
        job_key_mode: call.value(9),
        flags: call.value(10),
        missed: call.value(11),
        missed_within: call.value(12),
        overlap: call.value(13),
        jitter: call.value(14),
        starts_at: call.value(15),
        ends_at: call.value(16),
    }
}

fn name(call: &Call) -> Result<DbText, Error> {
    Ok(call.text(0).ok_or(Error::NullArgument("name"))?.read())
}

/// Errors: 22004 (NULL), 22023 (what is invalid), those of add_job, 42501 (no EXECUTE on add_job, another role's
/// schedule).
pub fn schedule(call: &mut Call) -> Result<Value, Error> {
    let name = name(call)?;
    let terms = terms(call);
    for (argument, value) in [
        ("cron", terms.cron),
        ("task", terms.task),
        ("payload", terms.payload),
        ("timezone", terms.timezone),
        ("missed", terms.missed),
        ("overlap", terms.overlap),
        ("jitter", terms.jitter),
    ] {
        value.ok_or(Error::NullArgument(argument))?;
    }
    table::schedule(&name, terms)
}

/// Errors: 42704 (no such schedule), and as [`schedule`].
pub fn alter_schedule(call: &mut Call) -> Result<Value, Error> {
    table::alter(&name(call)?, terms(call), call.value(17))
}

/// Errors: 42501 (another role's schedule).
pub fn unschedule(call: &mut Call) -> Result<Value, Error> {
    Ok(table::unschedule(&name(call)?)?.into_datum())
}

/// Errors: 42704 (no such schedule), 42501 (another role's).
pub fn run_schedule(call: &mut Call) -> Result<Value, Error> {
    table::run(&name(call)?)
}

/// Errors: 22023 (what is invalid), 42501 (no EXECUTE on add_job, another role's schedule).
pub fn import_crontab(call: &mut Call) -> Result<Value, Error> {
    let crontab = call.text(0).ok_or(Error::NullArgument("crontab"))?.read();
    table::import_crontab(call, &crontab).map(|()| None)
}

/// Errors: 55000 (pg_cron is not here).
pub fn import_pg_cron(call: &mut Call) -> Result<Value, Error> {
    schedules::import_pg_cron::import(call).map(|()| None)
}

/// The handler of commands, which workers run in its stead.
pub fn sql(_: &mut Call) -> Result<Value, Error> {
    Err(Error::OnlyForWorkers)
}

/// What the view shows of when a schedule fires next, and of what is wrong with it.
pub fn schedule_status(call: &mut Call) -> Result<Value, Error> {
    let row = schedules::status::of(call)?;
    call.return_values(std::iter::once(row));
    Ok(None)
}

/// After kongtask.crontab was changed, by whatever statement.
pub fn crontab_changed(call: &mut Call) -> Result<Value, Failure> {
    invalidation::relation_changed(Trigger::of(call)?.relation());
    commit_notes::note_schedules_changed();
    Ok(nothing())
}
