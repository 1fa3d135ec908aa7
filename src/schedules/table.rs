//! What SQL can do with schedules: `kongtask.crontab`, as the owner of the tables. Each function checks that the caller
//! may.

use super::fire::{Kind, forbids};
use super::{Cron, CrontabEntry, crontab, zone};
use crate::error::Error;
use crate::jobs::new_job::{self, KeyMode};
use crate::pg::args::{self, Row, Text};
use crate::pg::clock;
use crate::pg::function::Call;
use crate::pg::procedure;
use crate::pg::spi::{Plan, Value, plan};
use crate::pg::text::{DbText, text, texts};
use crate::pg::xact::Settings;
use crate::pg::{role, version};
use crate::schema::job_row::attribute;
use crate::schema::{self, affected, one_row};
use crate::tasks::command;
use crate::tasks::handler::Handler;
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;

/// What can be said of a schedule, each NULL where it is not said.
#[derive(Clone, Copy, Default)]
pub struct Terms {
    pub cron: Value,
    pub task: Value,
    pub payload: Value,
    pub timezone: Value,
    pub queue_name: Value,
    pub priority: Value,
    pub max_attempts: Value,
    pub job_key: Value,
    pub job_key_mode: Value,
    pub flags: Value,
    pub missed: Value,
    pub missed_within: Value,
    pub overlap: Value,
    pub jitter: Value,
    pub starts_at: Value,
    pub ends_at: Value,
}

const LONGEST_NAME: i32 = 120;

impl Terms {
    /// Checks what is said, and has the zone as pg_timezone_names spells it. Errors: 22023, and those of add_job.
    fn checked(mut self) -> Result<Terms, Error> {
        let length = |value: Value| value.map_or(0, |value| Text::new(value).characters());
        if let Some(cron) = self.cron {
            Cron::parse(&Text::new(cron).read().to_string())?;
        }
        if self.task.is_some() && length(self.task) == 0 {
            return Err(Error::InvalidTaskIdentifier);
        }
        let max_attempts = self.max_attempts.map_or(1, |value| value.value() as i32);
        new_job::check(length(self.task), length(self.queue_name), length(self.job_key), max_attempts)?;
        KeyMode::parse(self.job_key_mode.map(Text::new))?;
        if let Some(timezone) = self.timezone {
            self.timezone = text(&zone(&Text::new(timezone).read())?.name());
        }
        one_of("missed", self.missed, &["skip", "once", "all"])?;
        one_of("overlap", self.overlap, &["allow", "skip", "queue"])?;
        for (name, interval) in [("missed_within", self.missed_within), ("jitter", self.jitter)] {
            if interval.is_some_and(|interval| args::milliseconds(interval) < 0) {
                return Err(Error::InvalidScheduleOption {
                    message: format!("{name} must not be negative"),
                    hint: "Give an interval such as '5 minutes'.".into(),
                });
            }
        }
        if let (Some(starts_at), Some(ends_at)) = (self.starts_at, self.ends_at)
            && ends_at.value() as i64 <= starts_at.value() as i64
        {
            return Err(Error::InvalidScheduleOption {
                message: "ends_at must be later than starts_at".into(),
                hint: "A schedule fires from starts_at on, up to ends_at.".into(),
            });
        }
        Ok(self)
    }

    /// Returns the first parameters of the statements that write them: the name, and the terms in their order.
    fn values(&self, name: &DbText) -> [Value; 17] {
        [
            text(name),
            self.cron,
            self.task,
            self.payload,
            self.timezone,
            self.queue_name,
            self.priority,
            self.max_attempts,
            self.job_key,
            self.job_key_mode,
            self.flags,
            self.missed,
            self.missed_within,
            self.overlap,
            self.jitter,
            self.starts_at,
            self.ends_at,
        ]
    }
}

fn one_of(name: &str, value: Value, known: &[&str]) -> Result<(), Error> {
    let is_known = value.is_none_or(|value| known.iter().any(|known| Text::new(value).is(*known)));
    let quoted: Vec<_> = known.iter().map(|known| format!("'{known}'")).collect();
    if is_known {
        return Ok(());
    }
    Err(Error::InvalidScheduleOption {
        message: format!("invalid value for {name}"),
        hint: format!("It is one of {}.", quoted.join(", ")),
    })
}

/// What is unqualified in statements, and in operators that have no name, is Postgres's own.
pub fn pinned_path() -> Settings {
    Settings::with(c"search_path", c"pg_catalog, pg_temp")
}

/// Locks a schedule for its role, whoever has its rights, and the owners of the extension; `None` if there is none.
/// Errors: 42501.
fn find(name: &DbText, caller: Oid) -> Result<Option<()>, Error> {
    static OWNER: Plan = plan!("schedule_owner", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&OWNER, &[text(name)])?;
    if rows.count() == 0 {
        return Ok(None);
    }
    let is_its = rows.get::<Oid>(0, 0).is_some_and(|owner| role::has_privileges_of(caller, owner));
    let queue = schema::queue()?;
    if is_its || role::is_superuser(caller) || queue.owners().contains(&caller) {
        return Ok(Some(()));
    }
    Err(Error::ScheduleOfAnother { schedule: name.clone(), role: rows.get(0, 1).unwrap_or_default() })
}

fn found(name: &DbText, caller: Oid) -> Result<(), Error> {
    find(name, caller)?.ok_or_else(|| Error::NoSuchSchedule(name.clone()))
}

fn row(name: &DbText) -> Result<Value, Error> {
    static ROW: Plan = plan!("schedule_row", TEXTOID);
    one_row(&ROW, &[text(name)])
}

/// Returns true if a schedule may have this name.
pub fn is_name(name: &DbText) -> bool {
    (1..=LONGEST_NAME).contains(&text(name).map_or(0, |name| Text::new(name).characters()))
}

/// Returns true if there is a schedule of this name.
pub fn exists(name: &DbText) -> Result<bool, Error> {
    static EXISTS: Plan = plan!("schedule_exists", TEXTOID);
    Ok(affected(&EXISTS, &[text(name)])? > 0)
}

/// Adds a schedule for a role. Errors: as [`schedule`].
pub fn put_for(name: &DbText, terms: Terms, role: Oid, active: bool) -> Result<(), Error> {
    put(name, terms.checked()?, role, None)?;
    if !active {
        change(name, &Terms::default(), Some(false.into()))?;
    }
    Ok(())
}

/// Adds a schedule for `caller`, or replaces it. Where it is new, or its times are, it fires for what comes after
/// `since`, or after now.
fn put(name: &DbText, terms: Terms, caller: Oid, since: Value) -> Result<(), Error> {
    static UPSERT: Plan = plan!(
        "schedule_upsert",
        TEXTOID,
        TEXTOID,
        TEXTOID,
        JSONOID,
        TEXTOID,
        TEXTOID,
        INT4OID,
        INT4OID,
        TEXTOID,
        TEXTOID,
        TEXTARRAYOID,
        TEXTOID,
        INTERVALOID,
        TEXTOID,
        INTERVALOID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        OIDOID,
        TIMESTAMPTZOID
    );
    static KNOWN: Plan = plan!("schedule_known", TEXTOID);
    if !is_name(name) {
        return Err(Error::InvalidScheduleOption {
            message: format!("a schedule's name has 1 to {LONGEST_NAME} characters"),
            hint: "Give a shorter name.".into(),
        });
    }
    find(name, caller)?;
    may_add_jobs(caller)?;
    if is_command(terms.task) {
        check_command(terms.payload, caller)?;
    }
    let values = [&terms.values(name)[..], &[caller.into_datum(), since]].concat();
    affected(&UPSERT, &values)?;
    affected(&KNOWN, &[text(name)])?;
    Ok(())
}

fn is_command(task: Value) -> bool {
    task.is_some_and(|task| Text::new(task).is(command::TASK))
}

/// Checks that the payload has a command and that `role` may run commands, and registers the task that will. Errors:
/// 22023, 28000 (the role cannot log in), 42501 (it may not execute kongtask.sql).
fn check_command(payload: Value, role: Oid) -> Result<(), Error> {
    payload.map_or(Ok(()), command::check_payload)?;
    Handler::check_commands(role)?;
    command::register_for(role)
}

/// Checks a change of a schedule that runs a command, or will. It runs as the schedule's role, so who says what it runs
/// must be able to become that role. Errors: 42501, and those of [`check_command`].
fn check_altered_command(name: &DbText, terms: &Terms, caller: Oid) -> Result<(), Error> {
    static NOW: Plan = plan!("schedule_now", TEXTOID);
    let session = schema::session()?;
    let rows = session.execute(&NOW, &[text(name)])?;
    if rows.count() == 0 || !is_command(terms.task.or(rows.value(0, 1))) {
        return Ok(());
    }
    let role = rows.get::<Oid>(0, 0).filter(|&role| role::name(role).is_some());
    let says_what_runs = terms.task.is_some() || terms.payload.is_some();
    if says_what_runs && !role.is_some_and(|role| role::is_superuser(caller) || version::may_become(caller, role)) {
        return Err(Error::ScheduleOfAnother { schedule: name.clone(), role: rows.get(0, 3).unwrap_or_default() });
    }
    role.map_or(Ok(()), |role| check_command(terms.payload.or(rows.value(0, 2)), role))
}

/// Errors: 42501 unless the role may execute add_job: a schedule is as good as calling it.
fn may_add_jobs(caller: Oid) -> Result<(), Error> {
    let _session = schema::session()?;
    let name = role::name(caller).unwrap_or_default();
    match forbids(Some(caller), &name)? {
        None => Ok(()),
        Some((_, hint)) => Err(Error::MayNotAddJobs { role: name, hint: hint.to_string() }),
    }
}

/// Adds or replaces a schedule; its row.
pub fn schedule(name: &DbText, terms: Terms) -> Result<Value, Error> {
    let caller = role::current();
    let _path = pinned_path();
    put(name, terms.checked()?, caller, None)?;
    row(name)
}

/// Changes what is given of a schedule.
fn change(name: &DbText, terms: &Terms, active: Value) -> Result<(), Error> {
    static ALTER: Plan = plan!(
        "schedule_alter",
        TEXTOID,
        TEXTOID,
        TEXTOID,
        JSONOID,
        TEXTOID,
        TEXTOID,
        INT4OID,
        INT4OID,
        TEXTOID,
        TEXTOID,
        TEXTARRAYOID,
        TEXTOID,
        INTERVALOID,
        TEXTOID,
        INTERVALOID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        BOOLOID
    );
    let values = [&terms.values(name)[..], &[active]].concat();
    affected(&ALTER, &values)?;
    Ok(())
}

/// Changes what is given of a schedule; its row. Errors: 42704, 42501, and as [`schedule`].
pub fn alter(name: &DbText, terms: Terms, active: Value) -> Result<Value, Error> {
    let caller = role::current();
    let _path = pinned_path();
    let terms = terms.checked()?;
    found(name, caller)?;
    check_altered_command(name, &terms, caller)?;
    change(name, &terms, active)?;
    row(name)
}

/// Removes a schedule; whether there was one. Errors: 42501.
pub fn unschedule(name: &DbText) -> Result<bool, Error> {
    static DELETE: Plan = plan!("schedule_delete", TEXTOID);
    let caller = role::current();
    let _path = pinned_path();
    if find(name, caller)?.is_none() {
        return Ok(false);
    }
    Ok(affected(&DELETE, &[text(name)])? > 0)
}

/// Adds a job of a schedule, for now; its row. Errors: 42704, 42501. Waits for nobody, and nobody waits for it: a
/// handler may run its own schedule.
pub fn run(name: &DbText) -> Result<Value, Error> {
    static LOOK: Plan = plan!("schedule_look", TEXTOID);
    static RUN: Plan = plan!("schedule_run", INT8OID, TEXTOID);
    let caller = role::current();
    let path = pinned_path();
    let job = {
        let session = schema::session()?;
        let rows = session.execute(&LOOK, &[text(name)])?;
        if rows.count() == 0 {
            return Err(Error::NoSuchSchedule(name.clone()));
        }
        let is_its = rows.get::<Oid>(0, 12).is_some_and(|owner| role::has_privileges_of(caller, owner));
        if !is_its && !role::is_superuser(caller) && !schema::queue()?.owners().contains(&caller) {
            let role = rows.get(0, 13).unwrap_or_default();
            return Err(Error::ScheduleOfAnother { schedule: name.clone(), role });
        }
        let now = clock::now();
        let job = Kind::read(&rows)?.add_at(&rows, now, false, clock::transaction_start())?;
        let id = job.and_then(|job| Row::new(job).get::<i64>(attribute::ID));
        session.execute(&RUN, &[id.into_datum(), text(name)])?;
        session.carry(job)
    };
    drop(path);
    Ok(job)
}

/// Makes a schedule of each line of a crontab, and returns them. Errors: 22023, 42501.
pub fn import_crontab(call: &mut Call, lines: &DbText) -> Result<(), Error> {
    static LAST: Plan = plan!("schedule_last_known", TEXTOID);
    let caller = role::current();
    let _path = pinned_path();
    let entries = crontab(lines)?;
    let mut names = Vec::new();
    for entry in &entries {
        let name = DbText::from(entry.identifier.clone());
        let terms = terms_of(entry)?.checked()?;
        // Only what makes up for missed runs goes on from them.
        let since = if entry.fill_ms > 0 { schema::value(&LAST, &[text(&name)])? } else { None };
        put(&name, terms, caller, since)?;
        names.push(name);
    }
    return_rows(call, &names)
}

/// Returns the schedules of these names, as the view shows them.
pub fn return_rows(call: &mut Call, names: &[DbText]) -> Result<(), Error> {
    static ROWS: Plan = plan!("schedule_rows", TEXTARRAYOID);
    let session = schema::session()?;
    let rows = session.execute(&ROWS, &[texts(names)])?;
    call.return_rows(&[rows]);
    Ok(())
}

fn terms_of(entry: &CrontabEntry) -> Result<Terms, Error> {
    let optional = |value: &Option<String>| value.as_ref().and_then(|value| text(&DbText::from(value.clone())));
    let fill = (entry.fill_ms > 0).then(|| args::interval(entry.fill_ms));
    Ok(Terms {
        cron: text(&DbText::from(entry.cron.clone())),
        task: text(&DbText::from(entry.task.clone())),
        payload: Some(procedure::json_of(&DbText::from(entry.payload.clone().unwrap_or_else(|| "{}".into())))?),
        timezone: text("UTC"),
        queue_name: optional(&entry.queue_name),
        priority: entry.priority.into_datum(),
        max_attempts: entry.max_attempts.into_datum(),
        job_key: optional(&entry.job_key),
        job_key_mode: optional(&entry.job_key_mode).or_else(|| text("replace")),
        flags: None,
        missed: text(if fill.is_some() { "all" } else { "skip" }),
        missed_within: fill,
        overlap: text("allow"),
        jitter: Some(args::interval(0)),
        starts_at: None,
        ends_at: None,
    })
}

/// Writes down the names that roles have by now, so that a dump has them.
pub fn rename_roles() -> Result<(), Error> {
    static RENAME: Plan = plan!("schedules_rename");
    affected(&RENAME, &[])?;
    Ok(())
}
