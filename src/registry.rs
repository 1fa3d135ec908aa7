//! Which tasks are handled inside this database, and by whom. The only room that names `kongtask.tasks`; it keeps a copy,
//! read again when the table has changed.

use crate::error::Error;
use crate::pg::invalidation::Watch;
use crate::pg::spi::{Plan, Value, plan, text};
use crate::pg::{catalog, role, xact};
use crate::schema;
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

#[derive(Clone)]
pub struct Task {
    /// The function, schema and argument types included, as `regprocedure` reads it.
    pub handler: String,
    /// The role it runs as.
    pub role: Oid,
}

/// The tasks at some moment.
#[derive(Default)]
pub struct Tasks(HashMap<String, Task>);

impl Tasks {
    pub fn get(&self, identifier: &str) -> Option<&Task> {
        self.0.get(identifier)
    }

    /// The identifiers whose handlers run as `role`, and the rest.
    pub fn split(&self, role: Oid) -> (Vec<String>, Vec<String>) {
        let (own, others): (Vec<_>, Vec<_>) = self.0.iter().partition(|(_, task)| task.role == role);
        let identifiers = |tasks: Vec<(&String, &Task)>| tasks.into_iter().map(|(name, _)| name.clone()).collect();
        (identifiers(own), identifiers(others))
    }

    /// The roles that have tasks, in order of their OIDs.
    pub fn roles(&self) -> Vec<Oid> {
        let mut roles: Vec<_> = self.0.values().map(|task| task.role).collect();
        roles.sort_unstable_by_key(|role| role.to_u32());
        roles.dedup();
        roles
    }
}

thread_local! {
    static TASKS: RefCell<Option<Rc<Tasks>>> = const { RefCell::new(None) };
}

/// The tasks as they are now. Within a transaction.
pub fn tasks() -> Result<Rc<Tasks>, Error> {
    static WATCH: Watch = Watch::new();
    static TASKS_NOW: Plan = plan!("tasks");
    if !WATCH.is_stale()
        && let Some(tasks) = TASKS.with_borrow(Clone::clone)
    {
        return Ok(tasks);
    }
    WATCH.renew();
    WATCH.relation(catalog::relation("kongtask", "tasks").ok_or(Error::NotInstalled).inspect_err(|_| WATCH.spoil())?);
    let _snapshot = xact::LatestSnapshot::take();
    let session = schema::session().inspect_err(|_| WATCH.spoil())?;
    let rows = session.read(&TASKS_NOW, &[]).inspect_err(|_| WATCH.spoil())?;
    let tasks = (0..rows.count())
        .filter_map(|row| {
            let task = Task { handler: rows.get(row, 1)?, role: rows.get(row, 2)? };
            Some((rows.get(row, 0)?, task))
        })
        .collect();
    let tasks = Rc::new(Tasks(tasks));
    TASKS.set(Some(tasks.clone()));
    Ok(tasks)
}

/// Registers a task for `caller`, or replaces it; its row, in the caller's memory context. Errors: 42501 if another role
/// has registered it, and `caller` is no superuser. Locks the row.
pub fn register(identifier: &str, handler: &str, caller: Oid) -> Result<Value, Error> {
    static REGISTER: Plan = plan!("task_register", TEXTOID, TEXTOID, OIDOID, BOOLOID);
    let superuser = role::is_superuser(caller);
    let values = [text(identifier), text(handler), caller.into_datum(), Some(superuser.into())];
    let row = schema::one_row(&REGISTER, &values)?;
    if row.is_none() {
        let role = registered_by(identifier)?.unwrap_or_default();
        return Err(Error::TaskOfAnother { task: identifier.into(), role });
    }
    Ok(row)
}

/// Unregisters a task; whether it was registered. Errors and locks as for [`register`].
pub fn unregister(identifier: &str, caller: Oid) -> Result<bool, Error> {
    static UNREGISTER: Plan = plan!("task_unregister", TEXTOID, OIDOID, BOOLOID);
    let superuser = role::is_superuser(caller);
    let values = [text(identifier), caller.into_datum(), Some(superuser.into())];
    let deleted = schema::affected(&UNREGISTER, &values)? > 0;
    match registered_by(identifier)? {
        Some(role) if !deleted => Err(Error::TaskOfAnother { task: identifier.into(), role }),
        _ => Ok(deleted),
    }
}

/// The name of the role that registered a task.
fn registered_by(identifier: &str) -> Result<Option<String>, Error> {
    static ROLE: Plan = plan!("task_role", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&ROLE, &[text(identifier)])?;
    Ok(if rows.count() == 0 { None } else { rows.get(0, 0) })
}
