//! The tasks that are registered in this database. No other module names `kongtask.tasks`. Each process keeps a copy,
//! and reads the table again after it has changed.

use crate::error::Error;
use crate::pg::invalidation::{self, Watch};
use crate::pg::spi::{Plan, Value, plan};
use crate::pg::text::{DbText, text};
use crate::pg::{catalog, role, version, xact};
use crate::schema;
use pgrx::IntoDatum;
use pgrx::pg_sys::{InvalidOid, Oid};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;
use std::time::Duration;

pub struct Task {
    pub identifier: DbText,
    /// See [`tag`].
    pub tag: u32,
    /// The function with its schema and argument types, as `regprocedure` reads it.
    pub handler: DbText,
    /// The role that its jobs run as; `InvalidOid` while that role does not exist. Its jobs wait then.
    pub role: Oid,
    /// How many jobs may share a transaction or a call.
    pub max_batch: usize,
    /// True if a first attempt may run in the transaction that takes the job.
    pub in_place: bool,
    /// The longest time that a call may take.
    pub timeout: Option<Duration>,
}

impl Task {
    /// Returns true if one call of its handler takes many jobs.
    pub fn takes_sets(&self) -> bool {
        self.handler.as_bytes().ends_with(b"[])")
    }
}

/// The tasks at one moment.
#[derive(Default)]
pub struct Tasks {
    by_identifier: HashMap<DbText, Rc<Task>>,
    by_tag: HashMap<(Oid, u32), Rc<Task>>,
    /// The tasks whose role does not exist, each with the name of that role.
    pub waiting: Vec<(DbText, DbText)>,
    /// True if the table calls a role by a former name: see [`rename_roles`].
    pub has_former_names: bool,
}

/// Returns a short hash by which a ready list tells tasks apart. A collision costs a wasted look at a job, and no more.
pub fn tag(identifier: &DbText) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(identifier.as_bytes());
    hasher.finish() as u32
}

impl Tasks {
    fn of(tasks: impl Iterator<Item = Task>) -> Tasks {
        let mut all = Tasks::default();
        for task in tasks.map(Rc::new) {
            if task.role != InvalidOid {
                all.by_tag.insert((task.role, task.tag), task.clone());
            }
            all.by_identifier.insert(task.identifier.clone(), task);
        }
        all
    }

    pub fn get(&self, identifier: &DbText) -> Option<&Rc<Task>> {
        self.by_identifier.get(identifier)
    }

    /// Returns the task that has this [`tag`].
    pub fn tagged(&self, role: Oid, tag: u32) -> Option<&Rc<Task>> {
        self.by_tag.get(&(role, tag))
    }

    /// Returns the identifiers of the tasks that run as `role`.
    pub fn of_role(&self, role: Oid) -> Vec<DbText> {
        self.by_identifier.values().filter(|task| task.role == role).map(|task| task.identifier.clone()).collect()
    }

    /// Returns all identifiers.
    pub fn identifiers(&self) -> Vec<DbText> {
        self.by_identifier.keys().cloned().collect()
    }

    /// Returns the roles that have tasks, in the order of their OIDs.
    pub fn roles(&self) -> Vec<Oid> {
        let mut roles: Vec<_> = self.by_identifier.values().map(|task| task.role).collect();
        roles.retain(|&role| role != InvalidOid);
        roles.sort_unstable_by_key(|role| role.to_u32());
        roles.dedup();
        roles
    }
}

thread_local! {
    static TASKS: RefCell<Option<Rc<Tasks>>> = const { RefCell::new(None) };
}

static WATCH: Watch = Watch::new().and_roles();

/// Returns true if the table may have changed since it was last read, as far as this backend has been told.
pub fn is_stale() -> bool {
    WATCH.is_stale()
}

/// The columns of `kongtask.tasks`: those of an older version until ALTER EXTENSION UPDATE.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Those of 0.1.0, without options.
    First,
    /// Those of 0.2.0, with `role` as a regrole.
    Second,
    Current,
}

impl Shape {
    /// Reads the catalog. To be called within a transaction.
    fn now() -> Result<(Shape, Oid), Error> {
        let table = catalog::relation("kongtask", "tasks").ok_or(Error::NotInstalled)?;
        let has = |column| catalog::has_column(table, column);
        let shape = if has(c"runs_as") {
            Shape::Current
        } else if has(c"max_batch") {
            Shape::Second
        } else {
            Shape::First
        };
        Ok((shape, table))
    }
}

/// Has every process read the tasks again once this transaction commits. For changes that fire no trigger.
pub fn tell_of_changes() -> Result<(), Error> {
    invalidation::relation_changed(catalog::relation("kongtask", "tasks").ok_or(Error::NotInstalled)?);
    Ok(())
}

/// Returns the tasks as they are now. To be called within a transaction. Errors: 55000 if the extension is not
/// installed.
pub fn tasks() -> Result<Rc<Tasks>, Error> {
    static CURRENT: Plan = plan!("tasks");
    static SECOND: Plan = plan!("tasks_0_2");
    static FIRST: Plan = plan!("tasks_0_1");
    if !WATCH.is_stale()
        && let Some(tasks) = TASKS.with_borrow(Clone::clone)
    {
        return Ok(tasks);
    }
    WATCH.renew();
    let (shape, table) = Shape::now().inspect_err(|_| WATCH.spoil())?;
    WATCH.relation(table);
    let _snapshot = xact::LatestSnapshot::take();
    let session = schema::session().inspect_err(|_| WATCH.spoil())?;
    let plan = match shape {
        Shape::Current => &CURRENT,
        Shape::Second => &SECOND,
        Shape::First => &FIRST,
    };
    let rows = session.read(plan, &[]).inspect_err(|_| WATCH.spoil())?;
    let owner = catalog::owner(table);
    let may_say = |role| owner.is_some_and(|owner| role::has_privileges_of(owner, role));
    let mut waiting = Vec::new();
    let tasks = (0..rows.count()).filter_map(|row| {
        let identifier: DbText = rows.get(row, 0)?;
        let role = rows.get(row, 2).filter(|&role| role::name(role).is_some());
        match role {
            None => waiting.push((identifier.clone(), rows.get(row, 3)?)),
            // The owner of the table could write any role's name into it, so the owner must be allowed to act as that
            // role.
            Some(role) if !may_say(role) => return None,
            Some(_) => (),
        }
        Some(Task {
            tag: tag(&identifier),
            identifier,
            handler: rows.get(row, 1)?,
            role: role.unwrap_or(InvalidOid),
            max_batch: rows.get::<i32>(row, 4).and_then(|most| usize::try_from(most).ok()).unwrap_or(1),
            in_place: rows.get(row, 5).unwrap_or(true),
            timeout: rows.get(row, 6).map(Duration::from_secs_f64),
        })
    });
    let mut tasks = Tasks::of(tasks);
    tasks.waiting = waiting;
    tasks.has_former_names = (0..rows.count()).any(|row| rows.get(row, 7).unwrap_or(false));
    let tasks = Rc::new(tasks);
    TASKS.set(Some(tasks.clone()));
    Ok(tasks)
}

/// Errors: 28000 if no worker can log in as the role.
pub fn check_login(role: Oid) -> Result<(), Error> {
    if version::WORKER_NEEDS_LOGIN && !role::can_login(role) {
        return Err(Error::RoleCannotLogIn(role::name(role).unwrap_or_default()));
    }
    Ok(())
}

/// Registers a task for `caller`, or replaces it. Returns its row in the caller's memory context. Locks the row.
/// Errors: 42501 if another role has registered the task and `caller` is no superuser.
pub fn register(identifier: &DbText, handler: &DbText, caller: Oid) -> Result<Value, Error> {
    static CURRENT: Plan = plan!("task_register", TEXTOID, TEXTOID, OIDOID, BOOLOID);
    static FORMER: Plan = plan!("task_register_0_2", TEXTOID, TEXTOID, OIDOID, BOOLOID);
    let plan = if Shape::now()?.0 == Shape::Current { &CURRENT } else { &FORMER };
    let superuser = role::is_superuser(caller);
    let values = [text(identifier), text(handler), caller.into_datum(), Some(superuser.into())];
    let row = schema::one_row(plan, &values)?;
    if row.is_none() {
        let role = registered_by(identifier)?.unwrap_or_default();
        return Err(Error::TaskOfAnother { task: identifier.clone(), role });
    }
    Ok(row)
}

/// Sets the options of a task. Returns its row.
pub fn set_options(identifier: &DbText, max_batch: usize, in_place: bool, timeout: Value) -> Result<Value, Error> {
    static OPTIONS: Plan = plan!("task_options", TEXTOID, INT4OID, BOOLOID, INTERVALOID);
    let max_batch = i32::try_from(max_batch).ok().into_datum();
    schema::one_row(&OPTIONS, &[text(identifier), max_batch, Some(in_place.into()), timeout])
}

/// Unregisters a task. Returns true if it was registered. Errors and locks as for [`register`].
pub fn unregister(identifier: &DbText, caller: Oid) -> Result<bool, Error> {
    static CURRENT: Plan = plan!("task_unregister", TEXTOID, OIDOID, BOOLOID);
    static FORMER: Plan = plan!("task_unregister_0_2", TEXTOID, OIDOID, BOOLOID);
    let plan = if Shape::now()?.0 == Shape::Current { &CURRENT } else { &FORMER };
    let superuser = role::is_superuser(caller);
    let values = [text(identifier), caller.into_datum(), Some(superuser.into())];
    let deleted = schema::affected(plan, &values)? > 0;
    match registered_by(identifier)? {
        Some(role) if !deleted => Err(Error::TaskOfAnother { task: identifier.clone(), role }),
        _ => Ok(deleted),
    }
}

/// Returns the name of the role that registered a task.
fn registered_by(identifier: &DbText) -> Result<Option<DbText>, Error> {
    static ROLE: Plan = plan!("task_role", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&ROLE, &[text(identifier)])?;
    Ok(if rows.count() == 0 { None } else { rows.get(0, 0) })
}

/// Updates the names of roles that were renamed, so that a dump has the new ones.
pub fn rename_roles() -> Result<(), Error> {
    static RENAME: Plan = plan!("tasks_rename");
    schema::affected(&RENAME, &[])?;
    Ok(())
}
