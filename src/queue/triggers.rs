//! What happens by itself when rows of `jobs` and `job_queues` change.

use super::{affected, plan};
use crate::error::Error;
use crate::pg::catch::Failure;
use crate::pg::clock::{self, Timestamp};
use crate::pg::function::Call;
use crate::pg::spi::{Plan, Value};
use crate::pg::trigger::{Trigger, TriggerRow, not_ours, nothing};
use crate::pg::{catalog, notify};
use crate::queue::job::{attribute, timestamp};
use crate::queue::ready;
use crate::ready::{Hint, Place};
use crate::{guc, registry, schema, wake};
use pgrx::IntoDatum;

/// A firing for a row of one of our tables; an error (39P01) for any other: whoever may call the function can make a trigger on
/// a table of theirs, whose columns are of other types.
fn firing(call: &Call, table: &str) -> Result<Trigger, Failure> {
    let trigger = Trigger::of(call)?;
    let queue = schema::queue()?;
    let is_ours = match table {
        "jobs" => trigger.relation() == queue.table,
        _ => catalog::relation(&queue.name, table) == Some(trigger.relation()),
    };
    if is_ours && trigger.is_for_row() {
        return Ok(trigger);
    }
    Err(not_ours(&format!("this function can only be called by a row trigger of {}.{table}", queue.home.schema)))
}

/// Before an update of a job: updated_at is now, or a millisecond after what it was.
pub fn update_timestamp(call: &mut Call) -> Result<Value, Failure> {
    let trigger = firing(call, "jobs")?;
    let Some(new) = trigger.updated_row() else { return Ok(nothing()) };
    let before = timestamp(trigger.row().value(attribute::UPDATED_AT)).unwrap_or(i64::MIN);
    let updated_at = clock::transaction_start().max(before.saturating_add(1000));
    Ok(new.with(&[(attribute::UPDATED_AT, Some(updated_at.into()))]))
}

/// Before a job is added that bears the lock of a worker of ours. Ours take jobs that are there: this one comes out of a
/// dump, and its worker is of another server. It can run again at once, as after a crash.
pub fn unlock_arriving(call: &mut Call) -> Result<Value, Failure> {
    let row = firing(call, "jobs")?.row();
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
    let trigger = firing(call, "jobs")?;
    let row = trigger.updated_row().unwrap_or_else(|| trigger.row());
    affected(&INCREASE, &[row.value(attribute::QUEUE_NAME)])?;
    Ok(nothing())
}

/// After a job left a queue; the queue goes with its last job.
pub fn decrease_job_queue_count(call: &mut Call) -> Result<Value, Failure> {
    static DECREASE: Plan = plan!("queue_decrease", TEXTOID);
    static DELETE: Plan = plan!("queue_delete", TEXTOID);
    let queue_name = firing(call, "jobs")?.row().value(attribute::QUEUE_NAME);
    let left = {
        let session = schema::session()?;
        let rows = session.execute(&DECREASE, &[queue_name]).map_err(Error::from)?;
        (rows.count() == 1).then(|| (rows.get::<i32>(0, 0).unwrap_or(0), rows.get::<bool>(0, 1).unwrap_or(false)))
    };
    match left {
        Some((..=0, _)) => _ = affected(&DELETE, &[queue_name])?,
        // Whoever was about to take its next job found it locked by us.
        Some((_, true)) => note_head(queue_name)?,
        _ => (),
    }
    Ok(nothing())
}

/// After a job was added, or changed and left unlocked: notes who is to be woken at commit.
pub fn note_job(call: &mut Call) -> Result<Value, Failure> {
    let trigger = firing(call, "jobs")?;
    let (row, is_news) = match trigger.updated_row() {
        None => (trigger.row(), trigger.is_insert()),
        // Replaced by its key: an external worker is told as if the job were new, as the reference does.
        Some(new) => {
            let is_news = revision(&new) != revision(&trigger.row());
            (new, is_news)
        }
    };
    let number = |attribute| row.get::<i32>(attribute).unwrap_or(0);
    note(&Changed {
        id: row.get(attribute::ID).unwrap_or(0),
        identifier: row.get(attribute::TASK_IDENTIFIER).unwrap_or_default(),
        priority: number(attribute::PRIORITY),
        run_at: timestamp(row.value(attribute::RUN_AT)).unwrap_or(0),
        attempts: number(attribute::ATTEMPTS),
        max_attempts: number(attribute::MAX_ATTEMPTS),
        is_queued: row.value(attribute::QUEUE_NAME).is_some(),
        has_key: row.value(attribute::KEY).is_some(),
        is_locked: row.value(attribute::LOCKED_AT).is_some(),
        is_news,
    })?;
    Ok(nothing())
}

/// A job that was added or changed.
pub struct Changed {
    pub id: i64,
    pub identifier: String,
    pub priority: i32,
    pub run_at: Timestamp,
    pub attempts: i32,
    pub max_attempts: i32,
    pub is_queued: bool,
    pub has_key: bool,
    pub is_locked: bool,
    /// Whether external workers are to be told.
    pub is_news: bool,
}

/// Notes who is to be woken at commit: the workers of a task that is handled here, or listeners for any other.
pub fn note(job: &Changed) -> Result<(), Error> {
    if job.attempts >= job.max_attempts || job.is_locked {
        return Ok(());
    }
    let tasks = registry::tasks()?;
    match tasks.get(&job.identifier) {
        None if job.is_news => notify::notify(c"jobs:insert", c""),
        None => (),
        Some(_) if job.run_at > clock::transaction_start() => wake::note_due(job.run_at),
        Some(task) => {
            let hint = Hint {
                place: Place { priority: job.priority, run_at: job.run_at, id: job.id },
                task: task.tag,
                kind: ready::kind(job.is_queued, job.attempts == 0 && !job.has_key),
            };
            wake::note_job(task.role, hint);
        }
    }
    Ok(())
}

fn revision(row: &TriggerRow) -> Option<i32> {
    row.get(attribute::REVISION)
}

/// After a queue was released.
pub fn note_queue(call: &mut Call) -> Result<Value, Failure> {
    const QUEUE_NAME: i16 = 1;
    let trigger = firing(call, "job_queues")?;
    note_head(trigger.row().value(QUEUE_NAME))?;
    Ok(nothing())
}

/// A queue's next job can run: notes who is to be woken at commit.
fn note_head(queue_name: Value) -> Result<(), Error> {
    let tasks = registry::tasks()?;
    let now = clock::now();
    match ready::head(queue_name, &tasks, &guc::forbidden_flags())? {
        Some(head) => wake::note_job(head.task.role, head.hint),
        // Until this commits, the queue looks locked, and what falls due in it is passed.
        None => wake::note_due(now),
    }
    Ok(())
}

/// Before a migration of graphile-worker's is noted that it would apply itself: refused, as it would rewrite these tables.
pub fn refuse_migration(call: &mut Call) -> Result<Value, Failure> {
    const ID: i16 = 1;
    let trigger = firing(call, "migrations")?;
    let row = trigger.updated_row().unwrap_or_else(|| trigger.row());
    let id = row.get(ID).unwrap_or(0);
    Err(Error::ForeignMigration { id, schema: schema::queue()?.home.schema.to_string() }.into())
}
