//! Registering tasks.

use crate::error::Error;
use crate::handler::Handler;
use crate::pg::catch::Failure;
use crate::pg::function::Call;
use crate::pg::spi::{Plan, Session, Value, text};
use crate::pg::trigger::{Trigger, nothing};
use crate::pg::{invalidation, procedure, role, version};
use crate::queue::plan;
use crate::{schema, wake};
use pgrx::IntoDatum;

/// Errors: 22004 (NULL), 22023 (identifier), those of [`Handler::check`], 28000 (the role cannot log in), 42501 (another
/// role's task). Locks the task's row.
pub fn register_task(call: &mut Call) -> Result<Value, Error> {
    static REGISTER: Plan = plan!("task_register", TEXTOID, TEXTOID, OIDOID, BOOLOID);
    let identifier = call.text(0).ok_or(Error::NullArgument("identifier"))?;
    let function = call.oid(1).ok_or(Error::NullArgument("handler"))?;
    if !(1..=128).contains(&identifier.characters()) {
        return Err(Error::InvalidTaskIdentifier);
    }
    let caller = role::current();
    Handler::check(function, caller)?;
    if version::WORKER_NEEDS_LOGIN && !role::can_login(caller) {
        return Err(Error::RoleCannotLogIn(role::name(caller).unwrap_or_default()));
    }
    let handler = procedure::name(function);
    let superuser = role::is_superuser(caller);
    let row = {
        let _as_owner = role::As::role(schema::owner()?);
        let session = Session::open();
        let values = [call.value(0), text(&handler), caller.into_datum(), Some(superuser.into())];
        session.execute(&REGISTER, &values)?.carry()
    };
    if row.is_none() { Err(of_another(&identifier.read(), call.value(0))?) } else { Ok(row) }
}

/// Errors: 42501 (another role's task). Locks the task's row.
pub fn unregister_task(call: &mut Call) -> Result<Value, Error> {
    static UNREGISTER: Plan = plan!("task_unregister", TEXTOID, OIDOID, BOOLOID);
    let caller = role::current();
    let superuser = role::is_superuser(caller);
    let deleted = {
        let _as_owner = role::As::role(schema::owner()?);
        let session = Session::open();
        session.execute(&UNREGISTER, &[call.value(0), caller.into_datum(), Some(superuser.into())])?.count() > 0
    };
    if !deleted && registered_by(call.value(0))?.is_some() {
        let identifier = call.text(0).map(|text| text.read()).unwrap_or_default();
        return Err(of_another(&identifier, call.value(0))?);
    }
    Ok(Some(deleted.into()))
}

fn of_another(task: &str, identifier: Value) -> Result<Error, Error> {
    Ok(Error::TaskOfAnother { task: task.into(), role: registered_by(identifier)?.unwrap_or_default() })
}

fn registered_by(identifier: Value) -> Result<Option<String>, Error> {
    static ROLE: Plan = plan!("task_role", TEXTOID);
    let _as_owner = role::As::role(schema::owner()?);
    let session = Session::open();
    let rows = session.execute(&ROLE, &[identifier])?;
    Ok(if rows.count() == 0 { None } else { rows.get(0, 0) })
}

/// After kongtask.tasks was changed, by whatever statement.
pub fn tasks_changed(call: &mut Call) -> Result<Value, Failure> {
    invalidation::relation_changed(Trigger::of(call)?.relation());
    wake::note_tasks_changed();
    Ok(nothing())
}
