//! What happens by itself when rows of `jobs` and `job_queues` change.

use super::{affected, plan};
use crate::error::Error;
use crate::pg::catch::Failure;
use crate::pg::clock;
use crate::pg::function::Call;
use crate::pg::notify;
use crate::pg::spi::{Plan, Value};
use crate::pg::trigger::{Trigger, TriggerRow, nothing};
use crate::queue::job::{attribute, timestamp};
use crate::{registry, restore, schema, wake};
use pgrx::IntoDatum;

/// Before an update of a job: updated_at is now, or a millisecond after what it was.
pub fn update_timestamp(call: &mut Call) -> Result<Value, Failure> {
    let trigger = Trigger::of(call)?;
    let Some(new) = trigger.updated_row() else { return Ok(nothing()) };
    let before = timestamp(trigger.row().value(attribute::UPDATED_AT)).unwrap_or(i64::MIN);
    let updated_at = clock::transaction_start().max(before.saturating_add(1000));
    Ok(new.with(&[(attribute::UPDATED_AT, Some(updated_at.into()))]))
}

/// Before a job is added that bears the lock of a worker of ours. Ours take jobs that are there: this one comes out of a
/// dump, and its worker is of another server. It can run again at once, as after a crash.
pub fn unlock_arriving(call: &mut Call) -> Result<Value, Failure> {
    let row = Trigger::of(call)?.row();
    let number = |attribute| row.get::<i32>(attribute).unwrap_or(0);
    let attempts = number(attribute::ATTEMPTS).min(number(attribute::MAX_ATTEMPTS) - 1);
    Ok(row.with(&[
        (attribute::ATTEMPTS, attempts.into_datum()),
        (attribute::LOCKED_AT, None),
        (attribute::LOCKED_BY, None),
    ]))
}

/// After a job entered a queue.
pub fn increase_job_queue_count(call: &mut Call) -> Result<Value, Failure> {
    static INCREASE: Plan = plan!("queue_increase", TEXTOID);
    let trigger = Trigger::of(call)?;
    let row = trigger.updated_row().unwrap_or_else(|| trigger.row());
    affected(&INCREASE, &[row.value(attribute::QUEUE_NAME)])?;
    Ok(nothing())
}

/// After a job left a queue; the queue goes with its last job.
pub fn decrease_job_queue_count(call: &mut Call) -> Result<Value, Failure> {
    static DECREASE: Plan = plan!("queue_decrease", TEXTOID);
    static DELETE: Plan = plan!("queue_delete", TEXTOID);
    let queue_name = Trigger::of(call)?.row().value(attribute::QUEUE_NAME);
    let last = {
        let session = schema::session()?;
        let rows = session.execute(&DECREASE, &[queue_name]).map_err(Error::from)?;
        rows.count() == 1 && rows.get::<i32>(0, 0).is_some_and(|count| count <= 0)
    };
    if last {
        affected(&DELETE, &[queue_name])?;
    }
    Ok(nothing())
}

/// After a job was added, or changed and left unlocked: notes who is to be woken at commit.
pub fn note_job(call: &mut Call) -> Result<Value, Failure> {
    let trigger = Trigger::of(call)?;
    let (row, is_news) = match trigger.updated_row() {
        None => (trigger.row(), trigger.is_insert()),
        // Replaced by its key: an external worker is told as if the job were new, as the reference does.
        Some(new) => {
            let is_news = revision(&new) != revision(&trigger.row());
            (new, is_news)
        }
    };
    if trigger.is_insert() {
        restore::note_job_added();
    }
    let attempts = |attribute| row.get::<i32>(attribute).unwrap_or(0);
    let can_run =
        attempts(attribute::ATTEMPTS) < attempts(attribute::MAX_ATTEMPTS) && row.value(attribute::LOCKED_AT).is_none();
    if !can_run {
        return Ok(nothing());
    }
    let identifier: String = row.get(attribute::TASK_IDENTIFIER).unwrap_or_default();
    let tasks = registry::tasks()?;
    match tasks.get(&identifier) {
        Some(task) => {
            if row.value(attribute::QUEUE_NAME).is_some() && tasks.roles().len() > 1 {
                // Its queue is locked by this transaction meanwhile: whoever looks for the queue's first job, which may
                // be another role's, finds it locked and goes to sleep.
                wake::note_queue_released();
            }
            let run_at = timestamp(row.value(attribute::RUN_AT)).unwrap_or(0);
            wake::note_job(task.role, run_at);
        }
        None if is_news => notify::notify(c"jobs:insert", c""),
        None => (),
    }
    Ok(nothing())
}

fn revision(row: &TriggerRow) -> Option<i32> {
    row.get(attribute::REVISION)
}

/// After a queue was released.
pub fn note_queue(call: &mut Call) -> Result<Value, Failure> {
    Trigger::of(call)?;
    wake::note_queue_released();
    Ok(nothing())
}

/// Before a migration of graphile-worker's is noted that it would apply itself: refused, as it would rewrite these tables.
pub fn refuse_migration(call: &mut Call) -> Result<Value, Failure> {
    const ID: i16 = 1;
    let trigger = Trigger::of(call)?;
    let row = trigger.updated_row().unwrap_or_else(|| trigger.row());
    let id = row.get(ID).unwrap_or(0);
    Err(Error::ForeignMigration { id, schema: schema::queue()?.home.schema.to_string() }.into())
}
