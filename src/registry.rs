//! Which tasks are handled inside this database, and by whom: a copy of `kongtask.tasks`, read again when it has changed.

use crate::error::Error;
use crate::pg::spi::{Plan, Session};
use crate::pg::{catalog, invalidation, role, xact};
use crate::schema;
use pgrx::pg_sys::{InvalidOid, Oid};
use std::cell::{Cell, RefCell};
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

    /// The identifiers whose handlers run as `role`.
    pub fn of(&self, role: Oid) -> Vec<String> {
        let mut identifiers: Vec<_> =
            self.0.iter().filter(|(_, task)| task.role == role).map(|(identifier, _)| identifier.clone()).collect();
        identifiers.sort_unstable();
        identifiers
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
    static RELATION: Cell<Oid> = const { Cell::new(InvalidOid) };
    static STALE: Cell<bool> = const { Cell::new(true) };
}

/// The tasks as they are now. Within a transaction.
pub fn tasks() -> Result<Rc<Tasks>, Error> {
    static PLAN: Plan = Plan::new(schema::QUEUE, include_str!("../sql/query/tasks.sql"), &[]);
    invalidation::on_relation_change(|relation| {
        if relation == RELATION.get() || relation == InvalidOid {
            STALE.set(true);
        }
    });
    if !STALE.get()
        && let Some(tasks) = TASKS.with_borrow(Clone::clone)
    {
        return Ok(tasks);
    }
    RELATION.set(catalog::relation("kongtask", "tasks").ok_or(Error::NotInstalled)?);
    // Before the read: what changes meanwhile makes it stale again.
    STALE.set(false);
    let _as_owner = role::As::role(schema::owner()?);
    let _snapshot = xact::LatestSnapshot::take();
    let session = Session::open();
    let rows = session.read(&PLAN, &[]).inspect_err(|_| STALE.set(true))?;
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
