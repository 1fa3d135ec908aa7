//! Claims the next job for an external worker, as get_job does. Workers of kongtask take jobs from their ready list:
//! see [`super::take`].

use super::queues::{self, Free};
use super::search::{NEXT_PRIORITY, next_priority, paused_queues};
use super::{lock_table, one_row, plan};
use crate::error::Error;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::texts;
use crate::pg::{clock, procedure};
use crate::schema;
use crate::schema::job_row::timestamp;
use crate::shared;
use crate::tasks::registry;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, TEXTOID};

/// The arguments of get_job, as SQL values.
pub struct Request {
    pub worker_id: Value,
    /// text[]; NULL means every task that is not registered here.
    pub task_identifiers: Value,
    /// interval; a lock of this age is dead.
    pub job_expiry: Value,
    /// text[]; NULL means none.
    pub forbidden_flags: Value,
    pub now: Value,
}

/// Claims the first job that can run, in the order of priority, run_at and id, and locks its queue. Returns the row.
/// Skips jobs that are paused, those that other transactions are about to take, and those that a live kongtask worker
/// runs, however old their locks are.
pub fn get_job(request: &Request) -> Result<Value, Error> {
    static FIND: Plan = plan!(
        "find_runnable",
        TEXTARRAYOID,
        INTERVALOID,
        TEXTARRAYOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        INT4OID
    )
    .by_index();
    static CLAIM: Plan = plan!("claim", INT8OID, TEXTOID, TIMESTAMPTZOID).by_index();
    // A worker that lists tasks may name registered ones. One that asks for any job has no handler for those, and would
    // keep them locked for hours.
    let tasks = registry::tasks()?;
    let mut left_out = match request.task_identifiers {
        None => tasks.identifiers(),
        Some(_) => Vec::new(),
    };
    let time = clock::now();
    if tasks.pauses.is_everything_paused(time) {
        return Ok(None);
    }
    left_out.extend(tasks.pauses.paused_tasks(None, time));
    let [paused, paused_in, paused_tasks] = paused_queues(&tasks.pauses, time);
    let (left_out, living) = (texts(&left_out), texts(&shared::living_workers()));
    lock_table()?;
    let session = schema::session()?;
    // The queues that other transactions are about to lock.
    let mut busy: Vec<Datum> = Vec::new();
    // One priority after another, so that those that are scheduled for later are passed by their first.
    let mut priority = i64::from(i32::MIN) - 1;
    loop {
        let next = session.execute(&NEXT_PRIORITY, &[priority.into_datum(), request.now])?;
        let Some(next) = next_priority(&next) else { return Ok(None) };
        priority = next.into();
        loop {
            let values = [
                request.task_identifiers,
                request.job_expiry,
                request.forbidden_flags,
                request.now,
                paused,
                paused_in,
                paused_tasks,
                left_out,
                living,
                Some(procedure::array(&busy, TEXTOID)?),
                next.into_datum(),
            ];
            let rows = session.execute(&FIND, &values)?;
            if rows.count() == 0 {
                break;
            }
            let id = rows.get(0, 0).unwrap_or(0);
            let queue_name = rows.value(0, 1);
            if let Some(name) = queue_name {
                let expired = timestamp(rows.value(0, 2)).unwrap_or(i64::MIN);
                let free = queues::find_free(queue_name, expired)?;
                let lock = |free: Free| free.lock(request.worker_id, request.now, id);
                if !free.map(lock).transpose()?.unwrap_or(false) {
                    busy.push(name);
                    continue;
                }
            }
            drop(session);
            return one_row(&CLAIM, &[Some(id.into()), request.worker_id, request.now]);
        }
    }
}
