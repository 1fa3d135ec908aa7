//! How many jobs are in which state.

use super::states::{Outlook, Seen, State};
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::clock::Timestamp;
use crate::pg::scan::{self, ScannedRow};
use crate::schema;
use crate::schema::job_row::attribute::{
    ATTEMPTS, CREATED_AT, FLAGS, ID, LOCKED_AT, LOCKED_BY, MAX_ATTEMPTS, PAYLOAD, QUEUE_NAME, RUN_AT, TASK_IDENTIFIER,
};
use crate::schema::job_row::timestamp;
use std::cell::RefCell;

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
    let overview = RefCell::new(Overview::default());
    let count = |job: &Seen, state: State, created_at: Timestamp| {
        let mut overview = overview.borrow_mut();
        overview.counts[state as usize] += 1;
        if state == State::Ready {
            let due = job.run_at.max(created_at);
            overview.ready_since = Some(overview.ready_since.map_or(due, |since| since.min(due)));
        }
    };
    let is_done = |row: &ScannedRow| {
        let has = |attribute| row.value(attribute).is_some();
        let (task, queue_name) = (row.text_in_place(TASK_IDENTIFIER), row.text_in_place(QUEUE_NAME));
        if has(LOCKED_BY) || task.is_none() || queue_name.is_none() && has(QUEUE_NAME) {
            return false;
        }
        let job = seen(row, task.unwrap_or_default(), queue_name, None);
        let state = outlook.known_state(&job);
        state.into_iter().for_each(|state| count(&job, state, number(row, CREATED_AT)));
        state.is_some()
    };
    scan::each_row(schema::queue()?.table, FLAGS, is_done, |row| {
        let words = |attribute| row.value(attribute).map(Text::new);
        let (task, queue_name, locked_by) = (words(TASK_IDENTIFIER), words(QUEUE_NAME), words(LOCKED_BY));
        let task = task.as_ref().map_or(&[][..], Text::bytes);
        let job = seen(row, task, queue_name.as_ref().map(Text::bytes), locked_by.as_ref().map(Text::bytes));
        let state = outlook.state(&job)?;
        count(&job, state, number(row, CREATED_AT));
        Ok::<_, Error>(())
    })?;
    Ok(overview.into_inner())
}

fn seen<'a>(row: &ScannedRow, task: &'a [u8], queue_name: Option<&'a [u8]>, locked_by: Option<&'a [u8]>) -> Seen<'a> {
    Seen {
        id: number(row, ID),
        task,
        queue_name,
        run_at: number(row, RUN_AT),
        attempts: number(row, ATTEMPTS) as i32,
        max_attempts: number(row, MAX_ATTEMPTS) as i32,
        locked_at: timestamp(row.value(LOCKED_AT)),
        locked_by,
        flags: row.value(FLAGS),
        payload: row.value(PAYLOAD),
        queue: row.value(QUEUE_NAME),
        deleter: row.deleter(),
    }
}

fn number(row: &ScannedRow, attribute: i16) -> i64 {
    row.value(attribute).map_or(0, |datum| datum.value() as i64)
}
