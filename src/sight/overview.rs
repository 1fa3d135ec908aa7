//! How many jobs are in which state.

use super::states::{Outlook, Seen, State};
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::clock::Timestamp;
use crate::pg::scan::{self, ScannedRow};
use crate::schema;
use crate::schema::job_row::{attribute, timestamp};

/// How many jobs are in each state, by the order of [`State`], and since when the oldest that is ready has been due.
#[derive(Default)]
pub struct Overview {
    counts: [i64; 6],
    pub ready_since: Option<Timestamp>,
}

impl Overview {
    pub fn of(&self, state: State) -> i64 {
        self.counts[state as usize]
    }
}

/// Counts all jobs. Checks no privileges.
pub fn count() -> Result<Overview, Error> {
    let outlook = Outlook::new()?;
    let mut overview = Overview::default();
    scan::each_row(schema::queue()?.table, attribute::FLAGS, |row| {
        let (state, due) = look_at(&outlook, row)?;
        overview.counts[state as usize] += 1;
        if state == State::Ready {
            overview.ready_since = Some(overview.ready_since.map_or(due, |since| since.min(due)));
        }
        Ok::<_, Error>(())
    })?;
    Ok(overview)
}

/// Returns the state of a job, and since when it has been due.
fn look_at(outlook: &Outlook, row: &ScannedRow) -> Result<(State, Timestamp), Error> {
    let number = |attribute| row.value(attribute).map_or(0, |datum| datum.value() as i64);
    let words = |attribute| row.value(attribute).map(Text::new);
    let (task, queue_name) = (words(attribute::TASK_IDENTIFIER), words(attribute::QUEUE_NAME));
    let locked_by = words(attribute::LOCKED_BY);
    let (run_at, created_at) = (number(attribute::RUN_AT), number(attribute::CREATED_AT));
    let state = outlook.state(&Seen {
        id: number(attribute::ID),
        task: task.as_ref().map_or(&[], |task| task.bytes()),
        queue_name: queue_name.as_ref().map(Text::bytes),
        run_at,
        attempts: number(attribute::ATTEMPTS) as i32,
        max_attempts: number(attribute::MAX_ATTEMPTS) as i32,
        locked_at: timestamp(row.value(attribute::LOCKED_AT)),
        locked_by: locked_by.as_ref().map(Text::bytes),
        flags: row.value(attribute::FLAGS),
        payload: row.value(attribute::PAYLOAD),
        queue: row.value(attribute::QUEUE_NAME),
        deleter: row.deleter(),
    })?;
    Ok((state, run_at.max(created_at)))
}
