//! The tasks that are registered in this database, and the pauses. No other module names `kongtask.tasks` and
//! `kongtask.pauses`. Each process keeps a copy, and reads the tables again after one of them has changed.

use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::clock::{self, Timestamp};
use crate::pg::interval::{self, Interval};
use crate::pg::invalidation::{self, Watch};
use crate::pg::spi::{Plan, Value, plan};
use crate::pg::text::{self, DbText, quoted, text};
use crate::pg::{background, catalog, heap, role, version, xact};
use crate::schema::job_row::timestamp;
use crate::schema::{self, OwnerSession};
use crate::shared;
use crate::shared::counters::{self, TaskCounters};
use crate::tasks::limits::{self, Limit, Limits};
use crate::tasks::pauses::{Pause, Pauses};
use crate::tasks::task_rows;
use pgrx::IntoDatum;
use pgrx::pg_sys::{InvalidOid, Oid};
use rustc_hash::FxHashMap;
use std::cell::{OnceCell, RefCell};
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
    pub retry: Retry,
    /// Which attempts leave a row in kongtask.runs.
    pub keep: Keep,
    /// True if that row has the payload.
    pub keep_payload: bool,
    /// How long the row is to stay, at least.
    pub keep_for: Duration,
    /// The role's name, quoted where SQL needs that.
    pub role_name: DbText,
    /// The limits that its jobs fall under.
    pub limits: Vec<Rc<Limit>>,
    /// Found when they are first asked for. They stay while the task is registered.
    counters: OnceCell<Option<&'static TaskCounters>>,
}

/// The attempts that leave a row in kongtask.runs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    None,
    /// Those that did not succeed.
    Failures,
    All,
}

impl Keep {
    /// Reads the column `keep`, or an argument of that name.
    pub fn parse(word: &DbText) -> Option<Keep> {
        match word.as_bytes() {
            b"none" => Some(Keep::None),
            b"failures" => Some(Keep::Failures),
            b"all" => Some(Keep::All),
            _ => None,
        }
    }
}

/// Where the rows of kongtask.runs are written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RunTable {
    pub number: i32,
    pub oid: Oid,
}

/// How often a failed job is tried again, and when.
#[derive(Clone, Default)]
pub struct Retry {
    /// The pause after each attempt, of which the last repeats; none for graphile-worker's formula.
    backoff: Vec<Interval>,
    /// How many attempts a job has at most, if that is less than its own number.
    max_attempts: Option<i32>,
}

impl Retry {
    /// Returns how many attempts a job has that was added with so many.
    pub fn attempts_of(&self, of_job: i32) -> i32 {
        self.max_attempts.map_or(of_job, |of_task| of_task.min(of_job))
    }

    /// Returns the parameters of statements that record a failed attempt: an `interval[]` and an `integer`.
    pub fn values(&self) -> Result<[Value; 2], Error> {
        Ok([interval::array(&self.backoff)?, self.max_attempts.into_datum()])
    }
}

impl Task {
    /// Returns true if one call of its handler takes many jobs.
    pub fn takes_sets(&self) -> bool {
        takes_sets(&self.handler)
    }
}

/// Returns true if a handler of this name takes an array.
pub fn takes_sets(handler: &DbText) -> bool {
    handler.as_bytes().ends_with(b"[])")
}

impl Task {
    /// Returns the counters of the task; `None` where the library was not preloaded.
    pub fn counters(&self) -> Option<&'static TaskCounters> {
        *self.counters.get_or_init(|| counters::of(background::database(), self.tag, &self.identifier))
    }
}

/// The tasks at one moment.
#[derive(Default)]
pub struct Tasks {
    by_identifier: FxHashMap<DbText, Rc<Task>>,
    by_tag: FxHashMap<(Oid, u32), Rc<Task>>,
    /// The tasks whose role does not exist, each with the name of that role.
    pub waiting: Vec<(DbText, DbText)>,
    /// True if the table calls a role by a former name: see [`rename_roles`].
    pub has_former_names: bool,
    pub pauses: Pauses,
    /// Read when it is first asked for, as few processes need it.
    run_table: OnceCell<Option<RunTable>>,
    pub limits: Limits,
    /// What [`shared::tasks_changes`] was before the tables were read.
    pub changes: u64,
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

    /// Returns when the pauses end under which a job of a task falls, given the queue that it is in; `None` if it is not
    /// paused.
    pub fn paused_until(&self, task: &DbText, queue_name: Value) -> Option<Timestamp> {
        if self.pauses.is_empty() {
            return None;
        }
        self.pauses.until(task, queue_name.map(|name| Text::new(name).read()).as_ref(), clock::now())
    }

    /// Returns the identifiers of the tasks that run as `role` and are not paused.
    pub fn running_of_role(&self, role: Oid, now: Timestamp) -> Vec<DbText> {
        if self.pauses.is_everything_paused(now) {
            return Vec::new();
        }
        let mut tasks = self.of_role(role);
        if !self.pauses.is_empty() {
            tasks.retain(|task| self.pauses.until(task, None, now).is_none());
        }
        tasks
    }

    /// Returns how long rows of kongtask.runs stay, at least.
    pub fn keep_for(&self) -> Duration {
        let keeps = self.by_identifier.values().filter(|task| task.keep != Keep::None);
        keeps.map(|task| task.keep_for).max().unwrap_or(USUAL_KEEP_FOR)
    }

    /// Returns all identifiers.
    pub fn identifiers(&self) -> Vec<DbText> {
        self.by_identifier.keys().cloned().collect()
    }

    /// Returns where the rows of kongtask.runs are written to; `None` in a schema of an older version. To be called within a
    /// transaction.
    pub fn run_table(&self) -> Result<Option<RunTable>, Error> {
        if let Some(known) = self.run_table.get() {
            return Ok(*known);
        }
        let found = run_table()?;
        Ok(*self.run_table.get_or_init(|| found))
    }

    /// Returns true if no session of this server has changed them since they were read.
    fn is_current(&self) -> bool {
        self.changes == shared::tasks_changes()
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

/// Returns true if these are the tasks that were read last, and the tables have not changed since, as far as this backend
/// knows: outside a transaction, it may not have been told. Of changes by sessions of this server,
/// [`shared::tasks_changes`] tells.
pub fn is_latest(tasks: &Rc<Tasks>) -> bool {
    !WATCH.is_stale()
        && tasks.is_current()
        && TASKS.with_borrow(|latest| latest.as_ref().is_some_and(|latest| Rc::ptr_eq(latest, tasks)))
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
    if !WATCH.is_stale()
        && let Some(tasks) = TASKS.with_borrow(Clone::clone).filter(|tasks| tasks.is_current())
    {
        return Ok(tasks);
    }
    let changes = shared::tasks_changes();
    WATCH.renew();
    // Before kongtask.tasks: sessions that add jobs lock the two in this order, and so does ALTER EXTENSION UPDATE, which
    // would deadlock with a process that locks them the other way round.
    schema::queue().and_then(|queue| Ok(heap::lock_to_read(queue.table)?)).inspect_err(|_| WATCH.spoil())?;
    let (shape, table) = Shape::now().inspect_err(|_| WATCH.spoil())?;
    WATCH.relation(table);
    let _snapshot = xact::LatestSnapshot::take();
    let session = schema::session().inspect_err(|_| WATCH.spoil())?;
    let rows = match shape {
        Shape::Current => task_rows::of_current(table),
        Shape::Second => task_rows::of_version_0_2(&session),
        Shape::First => task_rows::of_version_0_1(&session),
    };
    let rows = rows.inspect_err(|_| WATCH.spoil())?;
    let settings = if shape == Shape::Current { limits(&session).inspect_err(|_| WATCH.spoil())? } else { Vec::new() };
    let of_tasks = rows.iter().filter_map(|row| Some(Limit::of_task(&row.identifier, row.concurrency?, tag)));
    let limits = Limits::of(of_tasks.chain(settings));
    let owner = catalog::owner(table);
    let may_say = |role| owner.is_some_and(|owner| role::has_privileges_of(owner, role));
    let mut waiting = Vec::new();
    let has_former_names = rows.iter().any(|row| row.has_former_name);
    let tasks = rows.into_iter().filter_map(|row| {
        match row.role {
            None => waiting.push((row.identifier.clone(), row.role_name)),
            // The owner of the table could write any role's name into it, so the owner must be allowed to act as that
            // role.
            Some(role) if !may_say(role) => return None,
            Some(_) => (),
        }
        Some(Task {
            tag: tag(&row.identifier),
            limits: if limits.is_empty() { Vec::new() } else { limits.of_task(&row.identifier) },
            identifier: row.identifier,
            handler: row.handler,
            role: row.role.unwrap_or(InvalidOid),
            max_batch: row.max_batch.and_then(|most| usize::try_from(most).ok()).unwrap_or(1),
            in_place: row.in_place.unwrap_or(true),
            timeout: row.timeout.map(Duration::from_secs_f64),
            keep: row.keep.and_then(|word| Keep::parse(&word)).unwrap_or_default(),
            keep_payload: row.keep_payload.unwrap_or(false),
            keep_for: row.keep_for.map_or(USUAL_KEEP_FOR, Duration::from_secs_f64),
            role_name: row.role.and_then(role::name).map(|name| quoted(&name)).unwrap_or_default(),
            retry: Retry { backoff: row.backoff, max_attempts: row.max_attempts },
            counters: OnceCell::new(),
        })
    });
    let mut tasks = Tasks::of(tasks);
    tasks.limits = limits;
    tasks.waiting = waiting;
    tasks.has_former_names = has_former_names;
    tasks.changes = changes;
    if shape == Shape::Current {
        tasks.pauses = pauses(&session).inspect_err(|_| WATCH.spoil())?;
    }
    let tasks = Rc::new(tasks);
    TASKS.set(Some(tasks.clone()));
    Ok(tasks)
}

fn may_have_rows(table: &str) -> Result<bool, Error> {
    Ok(catalog::relation("kongtask", table).map_or(Ok(true), heap::may_have_rows)?)
}

fn pauses(session: &OwnerSession) -> Result<Pauses, Error> {
    static PAUSES: Plan = plan!("pauses");
    if !may_have_rows("pauses")? {
        return Ok(Pauses::of(std::iter::empty()));
    }
    let rows = session.read(&PAUSES, &[])?;
    Ok(Pauses::of((0..rows.count()).map(|row| Pause {
        task: rows.get(row, 0),
        queue_name: rows.get(row, 1),
        until: timestamp(rows.value(row, 2)),
    })))
}

/// How long rows of kongtask.runs stay unless a task says otherwise.
const USUAL_KEEP_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

fn run_table() -> Result<Option<RunTable>, Error> {
    static NUMBER: Plan = plan!("run_table");
    if Shape::now()?.0 != Shape::Current {
        return Ok(None);
    }
    let _snapshot = xact::LatestSnapshot::take();
    let session = schema::session()?;
    let rows = session.read(&NUMBER, &[])?;
    let number = if rows.count() == 0 { 0 } else { rows.get(0, 0).unwrap_or(0) };
    Ok(catalog::relation("kongtask", &format!("runs_{number}")).map(|oid| RunTable { number, oid }))
}

fn limits(session: &OwnerSession) -> Result<Vec<Limit>, Error> {
    static LIMITS: Plan = plan!("limits");
    if !may_have_rows("limit_settings")? {
        return Ok(Vec::new());
    }
    let rows = session.read(&LIMITS, &[])?;
    let settings = |row| limits::Settings {
        name: rows.get(row, 0).unwrap_or_default(),
        tasks: rows.value(row, 1).map(|tasks| text::elements(Some(tasks))),
        by: rows.get(row, 2),
        concurrency: rows.get(row, 3),
        rate: rows.get(row, 4),
        per: rows.get(row, 5),
        burst: rows.get(row, 6).unwrap_or(1),
    };
    Ok((0..rows.count()).map(|row| Limit::new(settings(row), tag)).collect())
}

/// The arguments of [`set_limit`] that become columns of the row, as SQL values.
pub struct LimitOptions {
    pub tasks: Value,
    pub by: Value,
    pub concurrency: Value,
    pub rate: Value,
    pub per: Value,
    pub burst: Value,
}

/// Sets a limit, or replaces it. Returns the row. Errors: 42501.
pub fn set_limit(name: &DbText, options: &LimitOptions, caller: Oid) -> Result<Value, Error> {
    static SET: Plan =
        plan!("limit_set", TEXTOID, TEXTARRAYOID, TEXTOID, INT4OID, INT4OID, INTERVALOID, INT4OID, OIDOID);
    let LimitOptions { tasks, by, concurrency, rate, per, burst } = *options;
    may_control_tasks(tasks, caller)?;
    may_replace_limit(name, caller)?;
    schema::one_row(&SET, &[text(name), tasks, by, concurrency, rate, per, burst, caller.into_datum()])
}

/// Removes a limit. Returns true if there was one. Errors: 42501.
pub fn drop_limit(name: &DbText, caller: Oid) -> Result<bool, Error> {
    static DROP: Plan = plan!("limit_drop", TEXTOID);
    may_replace_limit(name, caller)?;
    Ok(schema::affected(&DROP, &[text(name)])? > 0)
}

/// Locks a limit, if there is one. Errors: 42501 if the caller may not change it.
fn may_replace_limit(name: &DbText, caller: Oid) -> Result<(), Error> {
    static LOCK: Plan = plan!("limit_lock", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&LOCK, &[text(name)])?;
    if rows.count() > 0 { may_control_tasks(rows.value(0, 0), caller) } else { Ok(()) }
}

/// Errors: 42501 unless the caller may control all of these tasks, a `text[]`; NULL for all there are.
pub fn may_control_tasks(tasks: Value, caller: Oid) -> Result<(), Error> {
    match tasks {
        None => may_control_task(None, caller),
        Some(_) => text::elements(tasks).iter().try_for_each(|task| may_control_task(text(task), caller)),
    }
}

/// Pauses what `task` and `queue_name` name, NULL for all; `until` and `reason` may be NULL. Returns the row. Errors:
/// 42501.
pub fn pause(task: Value, queue_name: Value, until: Value, reason: Value, caller: Oid) -> Result<Value, Error> {
    static PAUSE: Plan = plan!("pause", TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, OIDOID);
    may_control_task(task, caller)?;
    schema::one_row(&PAUSE, &[task, queue_name, until, reason, caller.into_datum()])
}

/// Ends a pause. Returns true if there was one. Errors: 42501.
pub fn resume(task: Value, queue_name: Value, caller: Oid) -> Result<bool, Error> {
    static RESUME: Plan = plan!("resume", TEXTOID, TEXTOID);
    may_control_task(task, caller)?;
    Ok(schema::affected(&RESUME, &[task, queue_name])? > 0)
}

/// Returns the reason that was given for the pause of a job; `None` if none was.
pub fn pause_reason(task: &DbText, queue_name: Option<&DbText>) -> Result<Option<DbText>, Error> {
    static REASON: Plan = plan!("pause_reason", TEXTOID, TEXTOID);
    let session = schema::session()?;
    let rows = session.read(&REASON, &[text(task), queue_name.and_then(text)])?;
    Ok((rows.count() > 0).then(|| rows.get(0, 0)).flatten())
}

/// Returns how many pauses last.
pub fn pauses_left() -> Result<i64, Error> {
    static LEFT: Plan = plan!("pauses_left");
    Ok(schema::value(&LEFT, &[])?.map_or(0, |count| count.value() as i64))
}

/// Removes the pauses that have ended.
pub fn remove_ended_pauses() -> Result<(), Error> {
    static ENDED: Plan = plan!("pauses_ended");
    schema::affected(&ENDED, &[])?;
    Ok(())
}

/// Errors: 42501 unless the caller may control a task; NULL for all tasks.
pub fn may_control_task(task: Value, caller: Oid) -> Result<(), Error> {
    let task = task.map(|task| Text::new(task).read());
    let role = task.as_ref().map(role_of).transpose()?.flatten();
    match task {
        _ if may_control(caller, role.as_ref().map(|(role, _)| *role))? => Ok(()),
        Some(task) if let Some((_, role)) = role => Err(Error::TaskOfAnother { task, role }),
        _ => Err(Error::MayNotControl),
    }
}

/// Returns the role of a task and that role's name; `None` if it is not registered.
fn role_of(task: &DbText) -> Result<Option<(Oid, DbText)>, Error> {
    let tasks = tasks()?;
    let role = tasks.get(task).map(|task| task.role);
    Ok(role.map(|role| (role, role::name(role).unwrap_or_default())))
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

/// The options of a task, as SQL values; NULL stands for what a new task has.
pub struct Options {
    pub max_batch: Value,
    pub in_place: Value,
    pub timeout: Value,
    pub backoff: Value,
    pub max_attempts: Value,
    pub keep: Value,
    pub keep_for: Value,
    pub keep_payload: Value,
    pub concurrency: Value,
}

/// Sets the options of a task. Returns its row; `None` for version 0.1.0, whose table has no options.
pub fn set_options(identifier: &DbText, options: &Options) -> Result<Value, Error> {
    static CURRENT: Plan = plan!(
        "task_options",
        TEXTOID,
        INT4OID,
        BOOLOID,
        INTERVALOID,
        INTERVALARRAYOID,
        INT4OID,
        TEXTOID,
        INTERVALOID,
        BOOLOID,
        INT4OID
    );
    static SECOND: Plan = plan!("task_options_0_2", TEXTOID, INT4OID, BOOLOID, INTERVALOID);
    let Options { max_batch, in_place, timeout, backoff, max_attempts, keep, keep_for, keep_payload, concurrency } =
        *options;
    let values = [
        text(identifier),
        max_batch,
        in_place,
        timeout,
        backoff,
        max_attempts,
        keep,
        keep_for,
        keep_payload,
        concurrency,
    ];
    match Shape::now()?.0 {
        Shape::Current => schema::one_row(&CURRENT, &values),
        Shape::Second => schema::one_row(&SECOND, &values[..4]),
        Shape::First => Ok(None),
    }
}

/// Changes options of a task: `change` gets those it has, and its handler. Locks its row, and returns it. Errors: 42704
/// if there is no such task; 42501 if it is another role's.
pub fn alter(
    identifier: &DbText,
    caller: Oid,
    change: impl FnOnce(Options, &DbText) -> Result<Options, Error>,
) -> Result<Value, Error> {
    static LOCK: Plan = plan!("task_lock", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&LOCK, &[text(identifier)])?;
    if rows.count() == 0 {
        return Err(Error::NoSuchTask(identifier.clone()));
    }
    if !may_control(caller, rows.get(0, 0))? {
        return Err(Error::TaskOfAnother { task: identifier.clone(), role: rows.get(0, 1).unwrap_or_default() });
    }
    let column = |number| rows.value(0, number);
    let options = Options {
        max_batch: column(3),
        in_place: column(4),
        timeout: column(5),
        backoff: column(6),
        max_attempts: column(7),
        keep: column(8),
        keep_for: column(9),
        keep_payload: column(10),
        concurrency: column(11),
    };
    let row = set_options(identifier, &change(options, &rows.get(0, 2).unwrap_or_default())?)?;
    Ok(session.carry(row))
}

/// Returns true if `caller` may control the tasks of `role`: that role and its members, the owner of the extension and
/// superusers may. `None` stands for what concerns no role, or one that does not exist.
pub fn may_control(caller: Oid, role: Option<Oid>) -> Result<bool, Error> {
    Ok(role.is_some_and(|role| role::has_privileges_of(caller, role))
        || role::is_superuser(caller)
        || schema::queue()?.owners().contains(&caller))
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
