//! The triggers of `jobs`, `job_queues` and `migrations`.

use super::{limited, queues, with_set};
use crate::error::Error;
use crate::jobs::search;
use crate::pg::args::{Text, is_stored_apart};
use crate::pg::catch::Failure;
use crate::pg::clock::{self, Timestamp};
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::pg::trigger::{Trigger, TriggerRow, not_ours, nothing};
use crate::pg::{catalog, notify};
use crate::schema;
use crate::schema::job_row::{attribute, timestamp};
use crate::shared;
use crate::shared::ready_list::{Hint, NO_KEY, NO_ROW, Position};
use crate::signals::commit_notes::{self, Change};
use crate::tasks::registry;
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use std::cell::Cell;

/// Returns the firing, if it is for a row of our table. Errors: 39P01 otherwise, as a user who may call the function
/// could put a trigger on a table whose columns have other types.
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

/// Before UPDATE of a job: sets updated_at.
pub fn update_timestamp(call: &mut Call) -> Result<Value, Failure> {
    let trigger = firing(call, "jobs")?;
    let Some(new) = trigger.updated_row() else { return Ok(nothing()) };
    let updated_at = updated_at(trigger.row().value(attribute::UPDATED_AT));
    Ok(new.with(&[(attribute::UPDATED_AT, updated_at)]))
}

/// Returns updated_at of a row that is updated: now, or a millisecond after its former value.
pub(super) fn updated_at(before: Value) -> Value {
    let before = timestamp(before).unwrap_or(i64::MIN);
    Some(clock::transaction_start().max(before.saturating_add(1000)).into())
}

/// Before INSERT of a job that bears a kongtask worker's lock: unlocks it. Workers of this server claim rows that
/// exist, so this one comes out of a dump, and its worker is another server's. The job can run again at once, as after
/// a crash.
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

/// After a locked job was deleted, unlocked, or moved to another queue: releases its queue. If a live kongtask worker
/// runs the job, that worker releases the queue itself once its handler has ended: no other job of the queue may begin
/// before.
pub fn release_queue(call: &mut Call) -> Result<Value, Failure> {
    let trigger = firing(call, "jobs")?;
    let row = trigger.row();
    let worker_id = row.value(attribute::LOCKED_BY);
    if row.get(attribute::ID).is_some_and(queues::is_kept_after) {
        return Ok(nothing());
    }
    // A job that has moved to another queue blocks none here.
    let has_moved = trigger.updated_row().is_some_and(|new| queue_name(&new) != queue_name(&row));
    if has_moved || !worker_id.is_some_and(is_of_another_that_lives) {
        queues::release(row.value(attribute::QUEUE_NAME), worker_id)?;
    }
    Ok(nothing())
}

fn queue_name(row: &TriggerRow) -> Option<Vec<u8>> {
    row.value(attribute::QUEUE_NAME).map(|name| Text::new(name).bytes().to_vec())
}

/// Returns true if the worker id is that of a live kongtask worker other than this process.
fn is_of_another_that_lives(worker_id: Datum) -> bool {
    let worker_id = Text::new(worker_id).read();
    worker_id.as_bytes().starts_with(shared::ID_PREFIX.as_bytes())
        && shared::living_workers().contains(&worker_id)
        && shared::my_worker_id().is_none_or(|me| me != worker_id)
}

/// After a job entered a queue, in a schema of version 0.2.0 or before. Jobs are no longer counted.
pub fn increase_job_queue_count(call: &mut Call) -> Result<Value, Failure> {
    firing(call, "jobs")?;
    Ok(nothing())
}

thread_local! {
    /// True while the row of a job is put back that the transaction has deleted.
    static PUTS_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Has `put` insert the row of a job that the transaction has deleted: the job is not new.
pub(super) fn put_back<T>(put: impl FnOnce() -> T) -> T {
    with_set(&PUTS_BACK, true, put)
}

/// After a job was added, or changed and left unlocked: notes what the commit must tell.
pub fn note_job(call: &mut Call) -> Result<Value, Failure> {
    let trigger = firing(call, "jobs")?;
    let (row, is_news) = match trigger.updated_row() {
        None => (trigger.row(), trigger.is_insert()),
        // Replaced by its key: external workers are told as if the job were new, as graphile-worker does.
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
        queue_name: row.value(attribute::QUEUE_NAME),
        payload: row.value(attribute::PAYLOAD),
        has_key: row.value(attribute::KEY).is_some(),
        is_locked: row.value(attribute::LOCKED_AT).is_some(),
        is_news,
        is_added: trigger.is_insert() && !PUTS_BACK.get(),
    })?;
    Ok(nothing())
}

/// A job that was added or changed.
pub struct Changed {
    pub id: i64,
    pub identifier: DbText,
    pub priority: i32,
    pub run_at: Timestamp,
    pub attempts: i32,
    pub max_attempts: i32,
    pub queue_name: Value,
    pub payload: Value,
    pub has_key: bool,
    pub is_locked: bool,
    /// True if external workers are to be told.
    pub is_news: bool,
    /// True if it was added, rather than changed.
    pub is_added: bool,
}

/// Notes a job that the commit makes ready for workers here, or notifies external workers of it.
pub fn note(job: &Changed) -> Result<(), Error> {
    let tasks = registry::tasks()?;
    if job.is_added
        && let Some(counters) = tasks.get(&job.identifier).and_then(|task| task.counters())
    {
        commit_notes::note_change(counters, Change::Added);
    }
    if job.attempts >= job.max_attempts || job.is_locked {
        return Ok(());
    }
    let position = Position { priority: job.priority, run_at: job.run_at, id: job.id };
    let task = tasks.get(&job.identifier);
    if let Some(queue_name) = job.queue_name {
        commit_notes::note_queued(super::hash(queue_name), position);
    }
    match task {
        None if job.is_news => notify::notify(c"jobs:insert", c""),
        None => (),
        Some(_) if job.run_at > clock::transaction_start() => commit_notes::note_due(job.run_at),
        Some(_) if let Some(until) = tasks.paused_until(&job.identifier, job.queue_name) => {
            commit_notes::note_paused(tasks.changes, until);
        }
        Some(task) => {
            // A worker asks for room by it. Without it, the worker looks at the row first.
            let is_known = job.queue_name.is_none() && !job.payload.is_some_and(is_stored_apart);
            let key = if is_known { limited::key(task, job.payload, None) } else { NO_KEY };
            if key != NO_KEY {
                commit_notes::note_keyed(tasks.changes);
            }
            let hint = Hint {
                position,
                key,
                row: NO_ROW,
                task: task.tag,
                kind: search::kind(job.queue_name.is_some(), job.attempts == 0 && !job.has_key),
            };
            commit_notes::note_job(task.role, hint);
        }
    }
    Ok(())
}

fn revision(row: &TriggerRow) -> Option<i32> {
    row.get(attribute::REVISION)
}

/// After a queue was released: notes its next job.
pub fn note_queue(call: &mut Call) -> Result<Value, Failure> {
    const QUEUE_NAME: i16 = 1;
    let trigger = firing(call, "job_queues")?;
    queues::note_head(trigger.row().value(QUEUE_NAME))?;
    Ok(nothing())
}

/// Before graphile-worker records a migration that kongtask does not stand for: refuses it, as that migration would
/// rewrite the tables.
pub fn refuse_migration(call: &mut Call) -> Result<Value, Failure> {
    const ID: i16 = 1;
    let trigger = firing(call, "migrations")?;
    let row = trigger.updated_row().unwrap_or_else(|| trigger.row());
    let id = row.get(ID).unwrap_or(0);
    Err(Error::ForeignMigration { id, schema: schema::queue()?.home.schema.to_string().into() }.into())
}
