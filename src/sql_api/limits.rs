//! Limits: setting and dropping them, throttling, and what is known of them.

use crate::error::Error;
use crate::pg::clock::{self, after};
use crate::pg::function::Call;
use crate::pg::interval::Interval;
use crate::pg::spi::Value;
use crate::pg::text::{self, DbText, text};
use crate::pg::{args, background, role};
use crate::run::marks;
use crate::shared;
use crate::shared::limits::{self, Claim, NO_KEY};
use crate::tasks::limits::{By, Limit, OF_TASK, key};
use crate::tasks::registry::{self, LimitOptions};
use pgrx::IntoDatum;
use std::time::Duration;

const TEN_YEARS: i64 = 3660;

/// Sets a limit. Errors: 22004 (no name), 22023, 42501.
pub fn set_limit(call: &mut Call) -> Result<Value, Error> {
    let name = call.text(0).ok_or(Error::NullArgument("name"))?;
    if !(1..=128).contains(&name.characters()) || name.bytes().starts_with(OF_TASK.as_bytes()) {
        return Err(Error::InvalidLimitName);
    }
    let tasks = call.value(1);
    if tasks.is_some_and(|_| text::elements(tasks).is_empty()) {
        return Err(Error::InvalidLimit("tasks must have an element, or be NULL for all tasks".into()));
    }
    if call.text(2).is_some_and(|by| !(1..=128).contains(&by.characters())) {
        return Err(Error::InvalidLimit("by must have 1 to 128 characters".into()));
    }
    let (concurrency, rate, burst) = (call.int4(3), call.int4(4), call.int4(6).unwrap_or(1));
    match (concurrency, rate, call.value(5)) {
        (Some(..=0), ..) => return Err(Error::InvalidConcurrency),
        (_, Some(..=0), _) => return Err(Error::InvalidLimit("rate must be at least 1".into())),
        (None, None, _) => return Err(Error::InvalidLimit("a limit must have a concurrency or a rate".into())),
        (_, Some(_), None) => return Err(Error::InvalidLimit("rate needs per, the time that it is for".into())),
        (_, None, Some(_)) => return Err(Error::InvalidLimit("per is the time of a rate, which is missing".into())),
        (_, _, Some(per)) if !Interval::read(per).is_positive_within(TEN_YEARS) => {
            return Err(Error::InvalidLimit("per must be between 1 millisecond and 10 years".into()));
        }
        _ => (),
    }
    if burst < 1 {
        return Err(Error::InvalidLimit("burst must be at least 1".into()));
    }
    let tasks = tasks.and_then(|_| text::texts(&text::elements(tasks)));
    let options = LimitOptions {
        tasks,
        by: call.value(2),
        concurrency: call.value(3),
        rate: call.value(4),
        per: call.value(5),
        burst: burst.into_datum(),
    };
    registry::set_limit(&name.read(), &options, role::current())
}

/// Removes a limit. Errors: 42501.
pub fn drop_limit(call: &mut Call) -> Result<Value, Error> {
    let Some(name) = call.text(0) else { return Ok(false.into_datum()) };
    Ok(registry::drop_limit(&name.read(), role::current())?.into_datum())
}

/// Lets no job begin under a limit for a while. Errors: 22004, 22023, 42501, 42704, 53400, 55000.
pub fn throttle(call: &mut Call) -> Result<Value, Error> {
    let name = call.text(0).ok_or(Error::NullArgument("name"))?.read();
    let delay = call.value(1).ok_or(Error::NullArgument("delay"))?;
    let tasks = registry::tasks()?;
    let Some(limit) = tasks.limits.named(&name) else { return Err(Error::NoSuchLimit(name)) };
    if !may_throttle(limit)? {
        return Err(Error::MayNotThrottle(name));
    }
    if !Interval::read(delay).is_positive_within(TEN_YEARS) {
        return Err(Error::InvalidLimit("delay must be between 1 millisecond and 10 years".into()));
    }
    if shared::board().is_none() {
        return Err(Error::NotPreloaded);
    }
    let value = call.text(2).map(|value| value.read());
    let key = if limit.by.is_some() { key(value.as_ref()) } else { NO_KEY };
    let delay = Duration::from_millis(u64::try_from(args::milliseconds(delay)).unwrap_or(0));
    let claim = Claim { terms: &limit.terms, key };
    let is_noted = limits::throttle(background::database(), &claim, after(clock::tick(), delay));
    is_noted.then_some(None).ok_or(Error::TooManyLimitKeys)
}

/// Returns true if a handler of a task under the limit runs here, or the current role may set the limit.
fn may_throttle(limit: &Limit) -> Result<bool, Error> {
    let running = marks::caller("throttle").ok().and_then(|me| me.running());
    if running.is_some_and(|running| limit.covers(&DbText::new(&running.task))) {
        return Ok(true);
    }
    let names = limit.tasks.as_ref().and_then(|tasks| text::texts(tasks));
    match registry::may_control_tasks(names, role::current()) {
        Ok(()) => Ok(true),
        Err(Error::TaskOfAnother { .. } | Error::MayNotControl) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the value by which a job is limited; NULL if it has none.
pub fn limit_key(call: &mut Call) -> Result<Value, Error> {
    let Some(by) = call.text(2) else { return Ok(None) };
    Ok(By::of(by.read()).value(call.value(0), call.value(1)).and_then(|value| text(&value)))
}

/// Returns what is known of limits, each given by its name and the value of its key, in their order.
pub fn live_limits(call: &mut Call) -> Result<Value, Error> {
    let names = text::elements(call.value(0));
    let keys = call.value(1).map(text::nullable_elements).unwrap_or_default();
    let tasks = registry::tasks()?;
    let (database, now) = (background::database(), clock::now());
    let rows: Vec<[Value; 3]> = (1i64..)
        .zip(names.iter().zip(keys))
        .map(|(number, (name, value))| {
            let known = tasks.limits.named(name).zip(shared::board()).map(|(limit, board)| {
                let key = if limit.by.is_some() { key(value.as_ref()) } else { NO_KEY };
                limits::known(board, database, &Claim { terms: &limit.terms, key })
            });
            let running = known.as_ref().map_or(0, |known| known.running as i64);
            let next_start = known.map_or(0, |known| known.next_start);
            let next_start = (next_start > 0).then(|| now + (next_start - clock::tick()).max(0));
            [number.into_datum(), running.into_datum(), next_start.map(Into::into)]
        })
        .collect();
    call.return_values(rows.into_iter());
    Ok(None)
}
