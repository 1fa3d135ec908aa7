//! Makes schedules of the jobs of pg_cron.
//!
//! pg_cron makes a new run wait for the last one of its job, but for intervals, whose run it then leaves out; it tries
//! once. So do the schedules that are made.

use super::cron::Cron;
use super::table::{self, Terms};
use crate::error::{Error, headline};
use crate::pg::catch::{Level, log_with};
use crate::pg::function::Call;
use crate::pg::role;
use crate::pg::spi::{Home, Plan, Rows, Session, plan};
use crate::pg::text::{DbText, text};
use crate::pg::{args, version, xact};
use crate::tasks::command;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};

/// A job of pg_cron.
struct PgCronJob {
    id: i64,
    name: Option<DbText>,
    cron: DbText,
    payload: Datum,
    is_elsewhere: Option<DbText>,
    role: Option<Oid>,
    named: DbText,
    active: bool,
    timezone: DbText,
}

impl PgCronJob {
    fn read(rows: &Rows, row: usize) -> Option<PgCronJob> {
        Some(PgCronJob {
            id: rows.get(row, 0)?,
            name: rows.get(row, 1),
            cron: rows.get(row, 2)?,
            payload: rows.value(row, 3)?,
            is_elsewhere: rows.get(row, 4),
            role: rows.get(row, 5),
            named: rows.get(row, 6)?,
            active: rows.get(row, 7)?,
            timezone: rows.get(row, 8)?,
        })
    }

    /// Returns the name of its schedule, and true if there is a schedule of that name.
    fn schedule_name(&self) -> Result<(DbText, bool), Error> {
        let own = self.name.clone().filter(table::is_name);
        let name = own.unwrap_or_else(|| DbText::from(format!("pg_cron {}", self.id)));
        let exists = table::exists(&name)?;
        Ok((name, exists))
    }

    /// Makes its schedule. Errors: what keeps it from being taken.
    fn take(&self, name: &DbText, caller: Oid) -> Result<(), Error> {
        if let Some(place) = &self.is_elsewhere {
            return Err(Error::PgCronElsewhere(place.clone()));
        }
        let Some(role) = self.role else { return Err(Error::NoSuchRole(self.named.clone())) };
        if !role::is_superuser(caller) && !version::may_become(caller, role) {
            return Err(Error::ScheduleOfAnother { schedule: name.clone(), role: self.named.clone() });
        }
        let cron = Cron::from_pg_cron(&self.cron.to_string())?;
        let is_interval = matches!(Cron::parse(&cron), Ok(Cron::Interval(_)));
        let terms = Terms {
            cron: text(&DbText::from(cron)),
            task: text(command::TASK),
            payload: Some(self.payload),
            timezone: text(&self.timezone),
            max_attempts: 1.into_datum(),
            job_key_mode: text("replace"),
            missed: text("skip"),
            overlap: text(if is_interval { "skip" } else { "queue" }),
            jitter: Some(args::interval(0)),
            ..Terms::default()
        };
        table::put_for(name, terms, role, self.active)
    }
}

/// Makes a schedule of each job that `cron.job` shows to the caller, and returns those that it has made. Errors: 55000 if
/// the table is not pg_cron's.
pub fn import(call: &mut Call) -> Result<(), Error> {
    static IS_HERE: Plan = plan!("pg_cron_is_here");
    static JOBS: Plan = plan!("pg_cron_jobs");
    let caller = role::current();
    let _path = table::pinned_path();
    // As the caller, so that row level security shows the jobs that are its own.
    let session = Session::open(&Home::none());
    if session.execute(&IS_HERE, &[])?.count() == 0 {
        return Err(Error::NoPgCron);
    }
    let rows = session.execute(&JOBS, &[])?;
    let mut made = Vec::new();
    for job in (0..rows.count()).filter_map(|row| PgCronJob::read(&rows, row)) {
        let (name, exists) = job.schedule_name()?;
        if exists {
            log_with(
                Level::Notice,
                format!("schedule \"{name}\" exists and is left alone: job {} of pg_cron is not taken", job.id),
                None,
                None,
            );
            continue;
        }
        // Read before the rollback frees it.
        match xact::in_subtransaction(|| job.take(&name, caller).map_err(|error| error.read())) {
            Ok(()) => made.push(name),
            Err(error) => log_with(
                Level::Warning,
                format!("job {} of pg_cron is not taken: {}", job.id, headline(&error)),
                error.detail.map(|detail| detail.to_string()),
                error.hint.map(|hint| hint.to_string()),
            ),
        }
    }
    table::return_rows(call, &made)
}
