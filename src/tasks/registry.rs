//! Which tasks are handled inside this database, and by whom. The only room that names `kongtask.tasks`; it keeps a copy,
//! read again when the table has changed.

use crate::error::Error;
use crate::pg::invalidation::{self, Watch};
use crate::pg::spi::{Plan, Value, plan};
use crate::pg::text::{DbText, text};
use crate::pg::{catalog, role, xact};
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
    /// The function, schema and argument types included, as `regprocedure` reads it.
    pub handler: DbText,
    /// The role it runs as; `InvalidOid` while there is none: its jobs wait then.
    pub role: Oid,
    /// How many jobs may share a transaction, or a call.
    pub max_batch: usize,
    /// Whether first attempts may run in the transaction that takes the job.
    pub in_place: bool,
    /// How long a call may take.
    pub timeout: Option<Duration>,
}

impl Task {
    /// Whether one call of its handler takes many jobs.
    pub fn takes_sets(&self) -> bool {
        self.handler.as_bytes().ends_with(b"[])")
    }
}

/// The tasks at some moment.
#[derive(Default)]
pub struct Tasks {
    by_identifier: HashMap<DbText, Rc<Task>>,
    by_tag: HashMap<(Oid, u32), Rc<Task>>,
    /// The tasks that wait for their role, and what the table calls that.
    pub waiting: Vec<(DbText, DbText)>,
    /// Whether the table calls a role by a name that it no longer has: see [`rename_roles`].
    pub has_former_names: bool,
}

/// Tells a task from others in few bytes. Two may have the same, seldom enough for a hint.
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

    /// The task with this [`tag`].
    pub fn tagged(&self, role: Oid, tag: u32) -> Option<&Rc<Task>> {
        self.by_tag.get(&(role, tag))
    }

    /// The identifiers of those that run as `role`.
    pub fn of_role(&self, role: Oid) -> Vec<DbText> {
        self.by_identifier.values().filter(|task| task.role == role).map(|task| task.identifier.clone()).collect()
    }

    /// The identifiers of all.
    pub fn identifiers(&self) -> Vec<DbText> {
        self.by_identifier.keys().cloned().collect()
    }

    /// The roles that have tasks, in order of their OIDs.
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

/// Whether the tasks may have changed since they were last read, as far as this backend has been told.
pub fn is_stale() -> bool {
    WATCH.is_stale()
}

/// What `kongtask.tasks` looks like: that of an older version until ALTER EXTENSION UPDATE.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Of 0.1.0: it has no options.
    First,
    /// Of 0.2.0: `role` is a regrole.
    Second,
    Current,
}

impl Shape {
    /// Within a transaction.
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

/// Has every session read the tasks again, once this transaction commits: after changes that no trigger was fired for.
pub fn tell_of_changes() -> Result<(), Error> {
    invalidation::relation_changed(catalog::relation("kongtask", "tasks").ok_or(Error::NotInstalled)?);
    Ok(())
}

/// The tasks as they are now. Within a transaction.
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
            // Whoever owns the table could write anybody's name into it.
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

/// Registers a task for `caller`, or replaces it; its row, in the caller's memory context. Errors: 42501 if another role
/// has registered it, and `caller` is no superuser. Locks the row.
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

/// Sets a task's options; its row.
pub fn set_options(identifier: &DbText, max_batch: usize, in_place: bool, timeout: Value) -> Result<Value, Error> {
    static OPTIONS: Plan = plan!("task_options", TEXTOID, INT4OID, BOOLOID, INTERVALOID);
    let max_batch = i32::try_from(max_batch).ok().into_datum();
    schema::one_row(&OPTIONS, &[text(identifier), max_batch, Some(in_place.into()), timeout])
}

/// Unregisters a task; whether it was registered. Errors and locks as for [`register`].
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

/// The name of the role that registered a task.
fn registered_by(identifier: &DbText) -> Result<Option<DbText>, Error> {
    static ROLE: Plan = plan!("task_role", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&ROLE, &[text(identifier)])?;
    Ok(if rows.count() == 0 { None } else { rows.get(0, 0) })
}

/// Writes down the names that roles have by now, so that a dump has them.
pub fn rename_roles() -> Result<(), Error> {
    static RENAME: Plan = plan!("tasks_rename");
    schema::affected(&RENAME, &[])?;
    Ok(())
}
