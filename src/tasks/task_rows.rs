//! The rows of `kongtask.tasks`. Those of the current version are read without the executor: a session that has just begun
//! would take longer to plan a statement than for its first job.

use crate::error::Error;
use crate::pg::interval::Interval;
use crate::pg::scan::{self, ScannedRow};
use crate::pg::spi::{Plan, Rows, plan};
use crate::pg::text::{DbText, Read};
use crate::pg::{definition, heap, role};
use crate::schema::OwnerSession;
use pgrx::pg_sys::Oid;

/// A row, in any version's columns.
pub struct TaskRow {
    pub identifier: DbText,
    pub handler: DbText,
    /// `None` if it does not exist.
    pub role: Option<Oid>,
    /// The role's name in the table.
    pub role_name: DbText,
    /// True if that name is out of date.
    pub has_former_name: bool,
    pub max_batch: Option<i32>,
    pub in_place: Option<bool>,
    /// In seconds.
    pub timeout: Option<f64>,
    pub backoff: Vec<Interval>,
    pub max_attempts: Option<i32>,
    pub keep: Option<DbText>,
    pub keep_payload: Option<bool>,
    /// In seconds.
    pub keep_for: Option<f64>,
    pub concurrency: Option<i32>,
}

/// Reads the rows in a schema of version 0.1.0.
pub fn of_version_0_1(session: &OwnerSession) -> Result<Vec<TaskRow>, Error> {
    static FIRST: Plan = plan!("tasks_0_1");
    Ok(of_former(&session.read(&FIRST, &[])?))
}

/// Reads the rows in a schema of version 0.2.0.
pub fn of_version_0_2(session: &OwnerSession) -> Result<Vec<TaskRow>, Error> {
    static SECOND: Plan = plan!("tasks_0_2");
    Ok(of_former(&session.read(&SECOND, &[])?))
}

fn of_former(rows: &Rows<'_>) -> Vec<TaskRow> {
    let row = |row| {
        Some(TaskRow {
            identifier: rows.get(row, 0)?,
            handler: rows.get(row, 1)?,
            role: rows.get(row, 2).filter(|&role| role::name(role).is_some()),
            role_name: rows.get(row, 3)?,
            has_former_name: false,
            max_batch: rows.get(row, 4),
            in_place: rows.get(row, 5),
            timeout: rows.get(row, 6),
            backoff: Vec::new(),
            max_attempts: None,
            keep: None,
            keep_payload: None,
            keep_for: None,
            concurrency: None,
        })
    };
    (0..rows.count()).filter_map(row).collect()
}

/// Reads the rows of a table of the current version, by the active snapshot. Locks it as a SELECT does.
pub fn of_current(table: Oid) -> Result<Vec<TaskRow>, Error> {
    heap::lock_to_read(table)?;
    let names = definition::column_names(table)?;
    let mut rows = Vec::new();
    let add = |row: &ScannedRow| {
        rows.extend(NamedRow { row, names: &names }.task());
        Ok(())
    };
    scan::each_row::<Error>(table, names.len() as i16, |_| false, add)?;
    Ok(rows)
}

/// A row whose columns are found by their names: where a table was upgraded, their numbers have gaps.
struct NamedRow<'r> {
    row: &'r ScannedRow,
    names: &'r [DbText],
}

impl NamedRow<'_> {
    fn get<T: Read>(&self, name: &str) -> Option<T> {
        let at = self.names.iter().position(|of| of.as_bytes() == name.as_bytes())?;
        self.row.get(at as i16 + 1)
    }

    fn task(&self) -> Option<TaskRow> {
        let role_name: DbText = self.get("role")?;
        let (runs_as, named) = (self.get::<Oid>("runs_as"), role::named(&role_name));
        let seconds = |interval: Interval| interval.seconds();
        Some(TaskRow {
            identifier: self.get("identifier")?,
            handler: self.get("handler")?,
            role: runs_as.or(named).filter(|&role| role::name(role).is_some()),
            // Renamed, or dropped, since the row was written.
            has_former_name: runs_as
                .is_some_and(|runs_as| named != Some(runs_as) && role_name != role::written(runs_as)),
            role_name,
            max_batch: self.get("max_batch"),
            in_place: self.get("in_place"),
            timeout: self.get("timeout").map(seconds),
            backoff: self.get("backoff").unwrap_or_default(),
            max_attempts: self.get("max_attempts"),
            keep: self.get("keep"),
            keep_payload: self.get("keep_payload"),
            keep_for: self.get("keep_for").map(seconds),
            concurrency: self.get("concurrency"),
        })
    }
}
