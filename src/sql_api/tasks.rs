//! Registering tasks.

use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::catch::Failure;
use crate::pg::function::Call;
use crate::pg::interval::{self, Interval};
use crate::pg::spi::Value;
use crate::pg::text::text;
use crate::pg::trigger::{Trigger, nothing};
use crate::pg::{args, invalidation, role};
use crate::run;
use crate::schema;
use crate::signals::commit_notes;
use crate::tasks::command;
use crate::tasks::handler::Handler;
use crate::tasks::registry::{self, Keep, Options};
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;

/// Registers a task for the current role. Locks the task's row. Errors: 22004 (NULL), 22023 and GWBMA (identifier,
/// options), those of [`Handler::check`], 28000 (the role cannot log in), 42501 (another role's task).
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
    let kind = Kind { takes_sets: handler.takes_sets(), has_steps: handler.has_steps() };
    let usual = if kind.takes_sets { run::USUAL_SET as i32 } else { 1 };
    let max_batch = kind.check_max_batch(call.int4(2).unwrap_or(usual))?;
    let in_place = call.bool(3).unwrap_or(true) && !kind.has_steps;
    let timeout = call.value(4).map(check_timeout).transpose()?;
    let backoff = call.value(5).map(check_backoff).transpose()?.flatten();
    let max_attempts = call.int4(6).map(check_max_attempts).transpose()?;
    let keep = check_keep(call.text(7))?;
    let keep_for = call.value(8).map(check_keep_for).transpose()?;
    let concurrency = call.int4(10).map(check_concurrency).transpose()?;
    registry::check_login(caller)?;
    let identifier = identifier.read();
    let row = registry::register(&identifier, &schema::name_of(function)?, caller)?;
    let options = Options {
        max_batch: max_batch.into_datum(),
        in_place: in_place.into_datum(),
        timeout,
        backoff,
        max_attempts: max_attempts.into_datum(),
        keep,
        keep_for,
        keep_payload: call.value(9),
        concurrency: concurrency.into_datum(),
    };
    Ok(registry::set_options(&identifier, &options)?.or(row))
}

/// Changes those options of a task that are not NULL. Locks the task's row. Errors: 22004 (NULL), 22023, GWBMA (an
/// option), 42704 (no such task), 42501 (another role's task).
pub fn alter_task(call: &mut Call) -> Result<Value, Error> {
    let identifier = call.text(0).ok_or(Error::NullArgument("identifier"))?.read();
    registry::alter(&identifier, role::current(), |now, handler| {
        // One that is gone has no steps.
        let has_steps = Handler::find(handler).is_ok_and(|handler| handler.has_steps());
        let kind = Kind { takes_sets: registry::takes_sets(handler), has_steps };
        let max_batch = call.int4(1).map(|given| kind.check_max_batch(given)).transpose()?;
        let in_place = call.bool(2).map(|given| given && !has_steps);
        let timeout = match call.value(3) {
            Some(timeout) if args::milliseconds(timeout) == 0 => None,
            Some(timeout) => Some(check_timeout(timeout)?),
            None => now.timeout,
        };
        let backoff = match call.value(4) {
            Some(backoff) if interval::elements(backoff).is_empty() => None,
            Some(backoff) => check_backoff(backoff)?,
            None => now.backoff,
        };
        let max_attempts = match call.int4(5) {
            Some(0) => None,
            Some(given) => check_max_attempts(given)?.into_datum(),
            None => now.max_attempts,
        };
        let keep_for = call.value(7).map(check_keep_for).transpose()?;
        let concurrency = match call.int4(9) {
            Some(0) => None,
            Some(given) => check_concurrency(given)?.into_datum(),
            None => now.concurrency,
        };
        Ok(Options {
            keep: check_keep(call.text(6))?.or(now.keep),
            keep_for: keep_for.or(now.keep_for),
            keep_payload: call.value(8).or(now.keep_payload),
            max_batch: max_batch.into_datum().or(now.max_batch),
            in_place: in_place.into_datum().or(now.in_place),
            timeout,
            backoff,
            max_attempts,
            concurrency,
        })
    })
}

/// What kind of handler a task has.
struct Kind {
    takes_sets: bool,
    /// It is a procedure.
    has_steps: bool,
}

impl Kind {
    fn check_max_batch(&self, given: i32) -> Result<i32, Error> {
        let most = match self {
            Kind { takes_sets: true, .. } => run::LARGEST_SET,
            Kind { has_steps: true, .. } => 1,
            _ => run::LARGEST_BATCH,
        };
        let fits = usize::try_from(given).is_ok_and(|given| (1..=most).contains(&given));
        fits.then_some(given).ok_or(Error::InvalidMaxBatch { most, is_set: self.takes_sets })
    }
}

fn check_timeout(timeout: Datum) -> Result<Datum, Error> {
    let fits = (1..=i64::from(i32::MAX)).contains(&args::milliseconds(timeout));
    fits.then_some(timeout).ok_or(Error::InvalidTimeout)
}

/// Returns the intervals as an array of one dimension that begins at 1, as statements index it.
fn check_backoff(backoff: Datum) -> Result<Value, Error> {
    const MOST: usize = 100;
    const TEN_YEARS: i64 = 3660;
    let given = interval::elements(backoff);
    let pauses: Vec<Interval> = given.iter().flatten().copied().collect();
    let detail = if given.is_empty() {
        "It has no element."
    } else if given.len() > MOST {
        "It has more than 100 elements."
    } else if pauses.len() < given.len() {
        "One of its elements is NULL."
    } else if !pauses.iter().all(|pause| pause.is_positive_within(TEN_YEARS)) {
        "One of its elements is shorter than 1 millisecond, or longer than 10 years."
    } else {
        return Ok(interval::array(&pauses)?);
    };
    Err(Error::InvalidBackoff { detail })
}

fn check_keep(keep: Option<Text>) -> Result<Value, Error> {
    let Some(word) = keep.map(|keep| keep.read()) else { return Ok(None) };
    if Keep::parse(&word).is_none() {
        return Err(Error::InvalidKeep(word));
    }
    Ok(text(&word))
}

fn check_keep_for(keep_for: Datum) -> Result<Datum, Error> {
    // As the table compares them: a year has 360 days.
    const TEN_YEARS: i64 = 3600;
    let fits = Interval::read(keep_for).is_positive_within(TEN_YEARS);
    fits.then_some(keep_for).ok_or(Error::InvalidKeepFor)
}

fn check_max_attempts(given: i32) -> Result<i32, Error> {
    if given < 1 { Err(Error::MaxAttemptsTooLow) } else { Ok(given) }
}

fn check_concurrency(given: i32) -> Result<i32, Error> {
    if given < 1 { Err(Error::InvalidConcurrency) } else { Ok(given) }
}

/// Unregisters a task. Locks the task's row. Errors: 42501 (another role's task).
pub fn unregister_task(call: &mut Call) -> Result<Value, Error> {
    let Some(identifier) = call.text(0) else { return Ok(None) };
    let deleted = registry::unregister(&identifier.read(), role::current())?;
    Ok(Some(deleted.into()))
}

/// Returns the role that a row of kongtask.tasks names; NULL if it does not exist.
pub fn role_named(call: &mut Call) -> Result<Value, Error> {
    Ok(call.text(0).and_then(|name| role::named(&name.read())).and_then(IntoDatum::into_datum))
}

/// After any statement that has changed kongtask.tasks: has every process read it again.
pub fn tasks_changed(call: &mut Call) -> Result<Value, Failure> {
    invalidation::relation_changed(Trigger::of(call)?.relation());
    commit_notes::note_tasks_changed();
    Ok(nothing())
}
