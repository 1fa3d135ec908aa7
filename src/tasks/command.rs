//! The task `kongtask.sql`, which runs commands of schedules.
//!
//! Whoever may add jobs may add one with any payload, so a job's command proves nothing. It is run only if it is the
//! command of a schedule of the role as which it would run; what that role did not schedule fails for good. A worker is
//! logged in as one role, so each role that schedules commands has a task of its own, all with the same handler.

use super::registry::{self, Options};
use crate::error::Error;
use crate::pg::role;
use crate::pg::spi::{Plan, plan};
use crate::pg::text::DbText;
use crate::schema;
use crate::schema::job_row::Job;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};
use std::ffi::CString;

/// The name by which schedules call it.
pub const TASK: &str = "kongtask.sql";

/// The handler of the roles' own tasks: a procedure that does nothing itself.
pub const HANDLER: &str = "kongtask.sql(json)";

/// Returns the identifier of the role's own task, if it has one.
pub fn task_of(role: Oid) -> Result<Option<DbText>, Error> {
    let tasks = registry::tasks()?;
    let mut own: Vec<_> = tasks.of_role(role).into_iter().filter(|name| is_own(&tasks, name)).collect();
    own.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(own.into_iter().next())
}

fn is_own(tasks: &registry::Tasks, identifier: &DbText) -> bool {
    tasks.get(identifier).is_some_and(|task| task.handler == *HANDLER)
}

/// Registers the role's own task, unless it has one. It keeps its identifier when the role is renamed, so another role
/// may have the one that the role's name suggests. Errors: 28000 (the role cannot log in).
pub fn register_for(role: Oid) -> Result<(), Error> {
    if task_of(role)?.is_some() {
        return Ok(());
    }
    registry::check_login(role)?;
    let tasks = registry::tasks()?;
    let first = DbText::from(format!("{TASK}:{}", role::name(role).unwrap_or_default()));
    let others = (2..).map(|number| DbText::from(format!("{first}:{number}")));
    let Some(identifier) = std::iter::once(first.clone()).chain(others).find(|name| tasks.get(name).is_none()) else {
        return Ok(());
    };
    registry::register(&identifier, &HANDLER.into(), role)?;
    let options = Options {
        max_batch: 1.into_datum(),
        in_place: false.into_datum(),
        timeout: None,
        backoff: None,
        max_attempts: None,
        keep: None,
        keep_for: None,
        keep_payload: None,
        concurrency: None,
    };
    registry::set_options(&identifier, &options)?;
    Ok(())
}

/// Checks the payload of a schedule. Errors: 22023 if it has no command.
pub fn check_payload(payload: Datum) -> Result<(), Error> {
    static COMMAND: Plan = plan!("command_of", JSONOID);
    let session = schema::session()?;
    let rows = session.execute(&COMMAND, &[Some(payload)])?;
    match rows.get::<DbText>(0, 0) {
        Some(command) if !command.as_bytes().trim_ascii().is_empty() => Ok(()),
        _ => Err(Error::InvalidScheduleOption {
            message: "the payload has no command".into(),
            hint: "Give the task kongtask.sql a payload such as '{\"command\": \"vacuum app.orders\"}'.".into(),
        }),
    }
}

/// Returns the command of a job, if `role` has scheduled it. Errors: 42501.
pub fn check(job: &Job, role: Oid) -> Result<CString, Error> {
    static SCHEDULED: Plan = plan!("command_scheduled", JSONOID, OIDOID);
    let session = schema::session()?;
    let rows = session.execute(&SCHEDULED, &[job.payload(), role.into_datum()])?;
    match (rows.get::<DbText>(0, 0), rows.get(0, 1)) {
        (Some(command), Some(true)) => Ok(command.c_string()),
        _ => Err(Error::CommandNotScheduled { role: role::name(role).unwrap_or_default() }),
    }
}
