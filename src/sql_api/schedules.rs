//! What cron expressions mean.

use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::latch::serve_interrupts;
use crate::pg::spi::Value;
use crate::pg::text::text;
use crate::schedules::{self, Cron};

/// The next `count` instants after `after` at which `cron` fires in `timezone`.
///
/// Errors: 22023 (cron, zone, count).
pub fn next_runs(call: &mut Call) -> Result<Value, Error> {
    let cron = Cron::parse(&call.text(0).ok_or(Error::NullArgument("cron"))?.read().to_string())?;
    let zone = schedules::zone(&call.text(1).ok_or(Error::NullArgument("timezone"))?.read())?;
    let after = call.timestamp(2).ok_or(Error::NullArgument("after"))?;
    let count = call.int4(3).ok_or(Error::NullArgument("count"))?;
    let count = usize::try_from(count).map_err(|_| Error::NegativeCount)?;
    let next = |&after: &i64| {
        serve_interrupts();
        cron.next_after(&zone, after)
    };
    call.return_values(std::iter::successors(next(&after), next).take(count).map(|run| [Some(run.into())]));
    Ok(None)
}

/// When a cron expression fires, in English.
///
/// Errors: 22023.
pub fn describe_cron(call: &mut Call) -> Result<Value, Error> {
    let cron = call.text(0).ok_or(Error::NullArgument("cron"))?;
    Ok(text(&Cron::parse(&cron.read().to_string())?.describe()))
}
