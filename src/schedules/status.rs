//! What `kongtask.schedules` shows of a schedule that it does not find in a table.

use super::fire::forbids;
use super::{Cron, zone};
use crate::error::{Error, headline};
use crate::pg::clock::Timestamp;
use crate::pg::function::Call;
use crate::pg::role;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::schema;
use crate::schema::job_row::timestamp;
use crate::tasks::{command, registry};
use pgrx::IntoDatum;

/// When it fires next, and what is wrong: of its row, as the arguments have it. An expression or a zone that is invalid
/// is told, not raised: the view shows the others too.
pub fn of(call: &Call) -> Result<[Value; 2], Error> {
    let texts = [0, 1, 2, 3].map(|n| call.text(n).map(|text| text.read()).unwrap_or_default());
    let [cron, timezone, task, named] = texts;
    let active = call.bool(5).unwrap_or(false);
    let [after, starts_at, ends_at] = [6, 7, 8].map(|n| timestamp(call.value(n)));
    let error = call.text(9).map(|text| text.read());
    let role = call.oid(4).filter(|&role| role::name(role).is_some());
    let role = match role {
        None => call.text(3).and_then(|name| role::named(&name.read())),
        known => known,
    };
    let forbidden = {
        let _session = schema::session()?;
        forbids(role, &named)?.map(|(why, _)| why)
    };
    let after = after.unwrap_or(0).max(starts_at.map_or(i64::MIN, |starts_at| starts_at.saturating_sub(1)));
    let (next, invalid) = match next(&cron, &timezone, after) {
        Ok(next) => (next.filter(|&next| ends_at.is_none_or(|ends_at| next <= ends_at)), None),
        Err(error) => (None, Some(headline(&error.read()))),
    };
    let unknown = if task == *command::TASK {
        let is_unknown = role.is_some_and(|role| matches!(command::task_of(role), Ok(None)));
        is_unknown.then(|| format!("role {named} has no task for its commands: schedule it again"))
    } else {
        let is_unknown = registry::tasks()?.get(&task).is_none();
        is_unknown
            .then(|| format!("task \"{task}\" is not registered in this database: only external workers run its jobs"))
    };
    let unknown = unknown.map(DbText::from);
    let next = next.filter(|_| active && forbidden.is_none());
    let problem = invalid.or(forbidden).or(error).or(unknown);
    Ok([next.map(|next| next.into_datum()).unwrap_or(None), problem.as_ref().and_then(text)])
}

fn next(cron: &DbText, timezone: &DbText, after: Timestamp) -> Result<Option<Timestamp>, Error> {
    let zone = zone(timezone)?;
    Ok(Cron::parse(&cron.to_string())?.next_after(&zone, after))
}
