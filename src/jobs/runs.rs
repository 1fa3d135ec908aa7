//! What became of jobs: the rows of kongtask.runs. A row is written in the transaction that completes a job, or that
//! records a failed attempt, so it is there exactly if the effects are.
//!
//! The rows are in four tables. One is open: it is written to. When it has been open for half of the time that rows are
//! kept for, the scheduler closes it and opens the next. When it has been closed for the whole of that time, the
//! scheduler truncates it. So no row is deleted one by one.
//!
//! ```text
//!  empty ──► open ──► closed ──► truncated, and empty again
//! ```
//!
//! A worker locks the table that is open, as any INSERT does, before it looks again whether it still is: the lock
//! receives the messages that tell of a change. So a row goes to a closed table only if its transaction had locked that
//! table before, and the truncation waits for that transaction. It does not wait with a lock request that others would
//! queue behind: the scheduler tries, and tries again later.

use super::plan;
use crate::error::{Error, headline};
use crate::pg::args::Text;
use crate::pg::catch::{Level, log};
use crate::pg::clock::{self, NEVER, Timestamp, after};
use crate::pg::heap;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, text};
use crate::pg::xact::LatestSnapshot;
use crate::pg::{background, catalog, xact};
use crate::schema;
use crate::schema::job_row::{Job, attribute, timestamp};
use crate::shared;
use crate::signals::commit_notes;
use crate::tasks::registry::{self, Keep, Task};
use pgrx::IntoDatum;
use pgrx::pg_sys::{
    CHAROID, Datum, INT4OID, INT8OID, InvalidOid, JSONBOID, JSONOID, Oid, TEXTOID, TIMESTAMPTZOID, TransactionId,
};
use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Succeeded,
    /// Its handler has put the job off.
    Snoozed,
    /// It failed, and another attempt follows.
    Retrying,
    /// It failed, and the job has failed for good.
    Failed,
    Cancelled,
}

impl Ended {
    /// Returns how an attempt ends whose handler has returned.
    pub fn of_return(is_snoozed: bool) -> Ended {
        if is_snoozed { Ended::Snoozed } else { Ended::Succeeded }
    }

    /// Returns what the tables say, a `"char"`.
    fn letter(self) -> u8 {
        match self {
            Ended::Succeeded => b's',
            Ended::Snoozed => b'n',
            Ended::Retrying => b'r',
            Ended::Failed => b'f',
            Ended::Cancelled => b'c',
        }
    }

    fn is_failure(self) -> bool {
        matches!(self, Ended::Retrying | Ended::Failed | Ended::Cancelled)
    }
}

/// Returns true if a task keeps attempts that ended in this way.
fn keeps(task: &Task, ended: Ended) -> bool {
    match task.keep {
        Keep::None => false,
        Keep::Failures => ended.is_failure(),
        Keep::All => true,
    }
}

/// Writes the rows of attempts of a task that end with the current transaction, if the task keeps them. To be called
/// before the commit, as the table's lock is held until then.
pub fn keep_all<'j>(task: &Task, attempts: impl Iterator<Item = (&'j Job, Ended)>) -> Result<(), Error> {
    let kept = attempts.filter(|&(_, ended)| keeps(task, ended));
    write(task, kept.map(|(job, ended)| Run::of(job, ended)))
}

/// Writes the row of a failed attempt as [`keep_all`] does. `error` is what last_error says.
pub fn keep_failure(job: &Job, task: &Task, ended: Ended, error: Option<&DbText>) -> Result<(), Error> {
    if !keeps(task, ended) {
        return Ok(());
    }
    write(task, std::iter::once(Run { error, ..Run::of(job, ended) }))
}

/// Writes the row of an attempt whose worker has crashed.
pub fn keep_crash(job: &Job, task: &Task, attempt: i32, for_good: bool, error: &DbText) -> Result<(), Error> {
    let ended = if for_good { Ended::Failed } else { Ended::Retrying };
    if !keeps(task, ended) {
        return Ok(());
    }
    write(task, std::iter::once(Run { attempt: Some(attempt), error: Some(error), ..Run::of(job, ended) }))
}

/// An attempt that has ended.
struct Run<'a> {
    job: &'a Job,
    ended: Ended,
    /// `None` for a job that was cancelled while it waited.
    attempt: Option<i32>,
    /// `None` also if its worker has crashed.
    began_at: Option<Timestamp>,
    error: Option<&'a DbText>,
}

impl<'a> Run<'a> {
    fn of(job: &'a Job, ended: Ended) -> Run<'a> {
        let began_at = Some(job.times().began_at).filter(|&began_at| began_at != 0);
        Run { job, ended, attempt: began_at.map(|_| job.attempts()), began_at, error: None }
    }

    /// Returns the columns of its row. `role` is the name of the task's role.
    fn row(&self, task: &Task, role: Value) -> [Value; 13] {
        use attribute::{KEY, PAYLOAD, QUEUE_NAME, TASK_IDENTIFIER};
        let &Run { job, ended, attempt, began_at, error } = self;
        let [identifier, queue_name, key, payload] = job.columns([TASK_IDENTIFIER, QUEUE_NAME, KEY, PAYLOAD]);
        let took = job.times().took;
        let ended_at = match began_at {
            Some(began_at) if took != Duration::ZERO => after(began_at, took),
            _ => clock::now(),
        };
        [
            Some(job.id.into()),
            began_at.map(|_| job.due().into()),
            began_at.map(Into::into),
            Some(ended_at.into()),
            attempt.into_datum(),
            Some(usize::from(ended.letter()).into()),
            identifier,
            role,
            queue_name,
            key,
            error.and_then(text),
            job.result().filter(|_| ended == Ended::Succeeded),
            payload.filter(|_| task.keep_payload),
        ]
    }
}

const TYPES: [Oid; 13] = [
    INT8OID,
    TIMESTAMPTZOID,
    TIMESTAMPTZOID,
    TIMESTAMPTZOID,
    INT4OID,
    CHAROID,
    TEXTOID,
    TEXTOID,
    TEXTOID,
    TEXTOID,
    TEXTOID,
    JSONBOID,
    JSONOID,
];

fn write<'a>(task: &Task, runs: impl Iterator<Item = Run<'a>>) -> Result<(), Error> {
    let mut runs = runs.peekable();
    if runs.peek().is_none() {
        return Ok(());
    }
    let Some((number, table)) = open_table()? else { return Ok(()) };
    let role = text(&task.role_name);
    let rows: Vec<[Value; 13]> = runs.map(|run| run.row(task, role)).collect();
    if !heap::may_write() || !heap::append(table, &TYPES, &rows)? {
        rows.into_iter().try_for_each(|row| insert(number, row))?;
    }
    tell_scheduler(table);
    Ok(())
}

/// Returns the number of the table that is open, and the table, which is locked then; `None` in a schema of an older
/// version.
fn open_table() -> Result<Option<(i32, Oid)>, Error> {
    let mut locked = InvalidOid;
    loop {
        let Some(open) = registry::tasks()?.run_table()? else { return Ok(None) };
        if open.oid == locked {
            return Ok(Some((open.number, open.oid)));
        }
        heap::lock(open.oid)?;
        locked = open.oid;
    }
}

/// Adds a row by an INSERT.
fn insert(number: i32, row: [Value; 13]) -> Result<(), Error> {
    static ADD: Plan = plan!(
        "run_add",
        INT8OID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        INT4OID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        JSONBOID,
        JSONOID,
        INT4OID
    );
    let mut parameters = [None; 14];
    parameters[..13].copy_from_slice(&row);
    // The state is a text there.
    parameters[5] = row[5].and_then(|letter| text(&DbText::new(&[letter.value() as u8])));
    parameters[13] = number.into_datum();
    schema::affected(&ADD, &parameters)?;
    Ok(())
}

/// Tells the scheduler that a table is in use, so that it knows when to close it. Once in a process is enough: it looks
/// at the size of the file, which has grown whether or not the transaction commits.
fn tell_scheduler(table: Oid) {
    thread_local! {
        static TOLD: Cell<Oid> = const { Cell::new(InvalidOid) };
    }
    let database = background::database();
    if TOLD.replace(table) != table
        && let Some(board) = shared::board()
        && let Some(entry) = board.database(database)
    {
        entry.has_new_runs.store(true, SeqCst);
        match entry.attendance.has_scheduler() {
            true => entry.scheduler.set(),
            // A session has cancelled a job.
            false => board.want(database),
        }
    }
}

/// A table, as the scheduler finds it.
struct RunTable {
    opened_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    has_rows: bool,
}

/// How many tables there are.
const TABLES: usize = 4;

/// Opens, closes and empties tables whose time has come; rows are kept for `keep_for`. Returns when to look again, or
/// `NEVER` if there are no rows. To be called by the scheduler, in a transaction of its own.
pub fn turn(keep_for: Duration) -> Result<Timestamp, Error> {
    static TABLES_NOW: Plan = plan!("run_tables");
    if !schema::queue()?.is_0_3 {
        return Ok(NEVER);
    }
    let tables: Vec<RunTable> = {
        let session = schema::session()?;
        let rows = session.read(&TABLES_NOW, &[])?;
        let table = |row| RunTable {
            opened_at: timestamp(rows.value(row, 0)),
            closed_at: timestamp(rows.value(row, 1)),
            has_rows: rows.get(row, 2).unwrap_or(false),
        };
        (0..rows.count()).map(table).collect()
    };
    let is_open = |number: &usize| tables[*number].opened_at.is_some() && tables[*number].closed_at.is_none();
    let open = (0..tables.len()).filter(is_open).max_by_key(|&number| tables[number].opened_at).unwrap_or(0);
    let now = clock::now();
    let mut next = NEVER;
    let mut is_next_empty = true;
    for (number, table) in tables.iter().enumerate().filter(|(number, table)| *number != open && table.has_rows) {
        if table.closed_at.is_none() {
            // Its rows came out of a dump, and the row that says so did not.
            close(number, now)?;
        }
        let old_at = after(table.closed_at.unwrap_or(now), keep_for);
        if old_at > now || !empty(number)? {
            is_next_empty &= number != (open + 1) % TABLES;
            next = next.min(if old_at > now { old_at } else { after(now, pause(keep_for)) });
        }
    }
    if tables[open].has_rows {
        let opened_at = match tables[open].opened_at {
            Some(opened_at) => opened_at,
            None => self::open(open, now).map(|()| now)?,
        };
        let closes_at = after(opened_at, keep_for / 2);
        if closes_at > now {
            next = next.min(closes_at);
        } else if is_next_empty {
            close(open, now)?;
            self::open((open + 1) % TABLES, now)?;
            // Every process reads anew which one is open.
            registry::tell_of_changes()?;
            commit_notes::note_tasks_changed();
            next = next.min(after(now, keep_for));
        }
    }
    Ok(next)
}

/// Returns the time until a table that a transaction has locked is tried again.
fn pause(keep_for: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    (keep_for / 100).clamp(SHORTEST, LONGEST)
}

fn open(number: usize, now: Timestamp) -> Result<(), Error> {
    static OPEN: Plan = plan!("run_table_open", INT4OID, TIMESTAMPTZOID);
    schema::affected(&OPEN, &[(number as i32).into_datum(), Some(now.into())])?;
    Ok(())
}

fn close(number: usize, now: Timestamp) -> Result<(), Error> {
    static CLOSE: Plan = plan!("run_table_close", INT4OID, TIMESTAMPTZOID);
    schema::affected(&CLOSE, &[(number as i32).into_datum(), Some(now.into())])?;
    Ok(())
}

/// Empties a table, unless a transaction has locked it. Returns true if it is empty now.
fn empty(number: usize) -> Result<bool, Error> {
    static EMPTY: Plan = plan!("run_table_empty", INT4OID);
    let Some(table) = catalog::relation("kongtask", &format!("runs_{number}")) else { return Ok(false) };
    if !heap::try_lock_all(table)? {
        return Ok(false);
    }
    // A user may have put a trigger on the table, whose error is no reason for the scheduler to fail.
    let emptied = xact::in_subtransaction(|| {
        schema::affected(&EMPTY, &[(number as i32).into_datum()]).map_err(|error| error.read())
    });
    if let Err(error) = &emptied {
        let message = format!("kongtask.runs_{number} cannot be emptied: {}", headline(error));
        log(Level::Warning, message);
    }
    Ok(emptied.is_ok())
}

/// A job of the table, as one that waits for its end finds it.
pub struct Found {
    /// What its row says of it as a row of kongtask.runs.
    pub row: Datum,
    pub task: DbText,
    /// True if it has failed for good.
    pub is_over: bool,
    /// The transactions that have written and locked its row last.
    pub written_by: TransactionId,
    pub locked_by: TransactionId,
    pub last_error: Option<DbText>,
}

/// Returns a job as it is now; `None` if the table does not have it.
pub fn look(job: i64) -> Result<Option<Found>, Error> {
    static LOOK: Plan = plan!("wait_look", INT8OID).by_index();
    let _snapshot = LatestSnapshot::take();
    let session = schema::session()?;
    let rows = session.read(&LOOK, &[Some(job.into())])?;
    let Some(row) = (rows.count() > 0).then(|| rows.carry(0)).flatten() else { return Ok(None) };
    let xid = |column| TransactionId::from(rows.value(0, column).map_or(0, |xid| xid.value() as u32));
    Ok(Some(Found {
        row,
        task: rows.get(0, 1).unwrap_or_default(),
        is_over: rows.get(0, 2).unwrap_or(false),
        written_by: xid(3),
        locked_by: xid(4),
        last_error: rows.get(0, 5),
    }))
}

/// Returns the row of kongtask.runs that has ended a job, with `error` if that is given, and the name of the role that
/// the job ran as; `None` if there is none.
pub fn last(job: i64, error: Option<&DbText>) -> Result<Option<(Datum, Text)>, Error> {
    static LAST: Plan = plan!("run_last", INT8OID, TEXTOID).by_index();
    let _snapshot = LatestSnapshot::take();
    let session = schema::session()?;
    let rows = session.read(&LAST, &[Some(job.into()), error.and_then(text)])?;
    let run = (rows.count() > 0).then(|| (rows.carry(0), session.carry(rows.value(0, 1))));
    Ok(run.and_then(|(run, role)| Some((run?, Text::new(role?)))))
}
