//! Functions that only a handler can call, about the job that it runs.

use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::interval::Interval;
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::run::marks;
use crate::shared::{LONGEST_MESSAGE, Progress};

/// Has the job run again later, if the handler returns. Errors: 55000, 22004, 22023, 22008.
pub fn snooze(call: &mut Call) -> Result<Value, Error> {
    marks::snooze(delay(call, "snooze")?).map(|()| None)
}

/// Has the job run again later, if the handler raises. Errors: as [`snooze`].
pub fn retry_in(call: &mut Call) -> Result<Value, Error> {
    marks::retry_in(delay(call, "retry_in")?).map(|()| None)
}

/// Fails the job for good. Errors: KT001, and 55000.
pub fn give_up(call: &mut Call) -> Result<Value, Error> {
    const MOST: usize = 64 * 1024;
    let mut message = call.text(0).map_or_else(|| DbText::from("the handler gave up"), |text| text.read());
    message.clip(MOST);
    marks::give_up(message.clone())?;
    Err(Error::GaveUp(message.to_string()))
}

fn delay(call: &Call, function: &'static str) -> Result<Interval, Error> {
    marks::caller(function)?;
    let delay = Interval::read(call.value(0).ok_or(Error::NullArgument("delay"))?);
    if delay.is_negative() || delay.is_infinite() {
        return Err(Error::InvalidDelay);
    }
    delay.check_from_now()?;
    Ok(delay)
}

/// Publishes how far the job has come. Errors: 55000, 22004.
pub fn progress(call: &mut Call) -> Result<Value, Error> {
    let me = marks::caller("progress")?;
    let done = call.int8(0).ok_or(Error::NullArgument("done"))?;
    let mut message = call.text(2).map(|text| text.read());
    if let Some(message) = &mut message {
        message.clip(LONGEST_MESSAGE);
    }
    me.tell_progress(&Progress { done, total: call.int8(1), message });
    Ok(None)
}
