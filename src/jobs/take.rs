//! Takes jobs whose ids came from a ready list. Each statement checks again that the jobs can run, and skips rows that
//! another transaction has locked.

use super::claim_row::{Claims, claim_without_executor};
use super::limited::Granted;
use super::queue_search::{NextJob, next_of_queue};
use super::{lock_table, plan, queues, recover, table_shape};
use crate::error::Error;
use crate::pg::args::{Row, Text};
use crate::pg::clock::{self, Timestamp, before};
use crate::pg::fault;
use crate::pg::heap::{self, Found, RowAddress};
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, text, texts_or_null};
use crate::pg::xact::{self, LatestSnapshot};
use crate::schema;
use crate::schema::job_row::{Job, attribute};
use crate::settings;
use crate::tasks::registry::{Task, Tasks};
use pgrx::IntoDatum;
use std::cell::RefCell;
use std::rc::Rc;

/// The jobs to take.
pub struct TakeRequest<'a> {
    pub ids: &'a [i64],
    pub task: &'a DbText,
    pub forbidden_flags: &'a [DbText],
    /// What room was granted for. A job that falls under other keys is not taken.
    pub granted: Rc<Granted>,
    /// The jobs that were not taken for that.
    pub changed: RefCell<Vec<i64>>,
}

impl<'a> TakeRequest<'a> {
    /// Jobs that room was granted for in this transaction, or that need none.
    pub fn new(ids: &'a [i64], task: &'a DbText, forbidden_flags: &'a [DbText]) -> TakeRequest<'a> {
        TakeRequest { ids, task, forbidden_flags, granted: Rc::default(), changed: RefCell::default() }
    }

    fn has_room(&self, job: &Job) -> bool {
        let has_room = self.granted.covers(job);
        if !has_room {
            self.changed.borrow_mut().push(job.id);
        }
        has_room
    }

    fn values(&self) -> [Value; 4] {
        let now = Some(clock::now().into());
        [self.ids.to_vec().into_datum(), text(self.task), now, texts_or_null(self.forbidden_flags)]
    }
}

/// Deletes plain jobs (no key, no queue, never tried): they are completed once this transaction commits. Does so
/// without the executor where possible, which also saves locking each row first. `addresses` say where the rows were, as far
/// as that is known.
pub fn delete(take: &TakeRequest, addresses: &[Option<RowAddress>]) -> Result<Vec<Job>, Error> {
    static DELETE: Plan = plan!("delete_plain", INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID).by_index();
    let Some(installed) = table_to_write(take)? else {
        let values = take.values();
        if !take.granted.has_keys() {
            return rows(&DELETE, &values);
        }
        let ids: Vec<i64> = lock(take)?.iter().map(|job| job.id).collect();
        let [_, task, now, flags] = values;
        return rows(&DELETE, &[ids.into_datum(), task, now, flags]);
    };
    let now = clock::now();
    let mut jobs = Vec::with_capacity(take.ids.len());
    for (&id, &address) in take.ids.iter().zip(addresses) {
        jobs.extend(delete_found(&installed, take, find(&installed, id, address)?, None, now)?);
    }
    Ok(jobs)
}

/// Deletes one job as [`delete`] does.
pub fn delete_one(take: &TakeRequest, address: Option<RowAddress>) -> Result<Option<Job>, Error> {
    let (Some(installed), [id]) = (table_to_write(take)?, take.ids) else { return Ok(delete(take, &[address])?.pop()) };
    delete_found(&installed, take, find(&installed, *id, address)?, None, clock::now())
}

/// Deletes a job as [`delete_one`] does, in a queue that the worker has locked. Returns `None` where it cannot be taken so, or
/// not without the executor.
pub fn delete_in_queue(take: &TakeRequest, address: Option<RowAddress>, queue: &DbText) -> Result<Option<Job>, Error> {
    let (Some(installed), [id]) = (table_to_write(take)?, take.ids) else { return Ok(None) };
    delete_found(&installed, take, find(&installed, *id, address)?, Some(queue), clock::now())
}

/// Finds a job, first where its row was. A row that has moved is no longer visible there, and another may be.
fn find(
    installed: &table_shape::Installed,
    id: i64,
    address: Option<RowAddress>,
) -> Result<Option<(Job, Found)>, Error> {
    let with_job = |found: Found| (Job::new(found.row), found);
    let at_address = match address {
        Some(address) => heap::found_at(installed.table, address)?.map(with_job),
        None => None,
    };
    match at_address.filter(|(job, _)| job.id == id) {
        Some(found) => Ok(Some(found)),
        None => Ok(heap::find(installed.table, installed.primary_key, id)?.map(with_job)),
    }
}

fn delete_found(
    installed: &table_shape::Installed,
    take: &TakeRequest,
    found: Option<(Job, Found)>,
    queue: Option<&DbText>,
    now: Timestamp,
) -> Result<Option<Job>, Error> {
    let Some((job, found)) = found else { return Ok(None) };
    let is_taken =
        job.is_first_and_due(take.task, queue, now) && take.has_room(&job) && heap::delete(installed.table, &found)?;
    Ok(is_taken.then_some(job))
}

/// Returns true if [`delete`] needs no executor now, so that deleting jobs one by one costs no more.
pub fn deletes_quickly(take: &TakeRequest) -> Result<bool, Error> {
    Ok(table_to_write(take)?.is_some())
}

/// Returns the table if jobs may be taken without the executor.
fn table_to_write(take: &TakeRequest) -> Result<Option<table_shape::Installed>, Error> {
    if take.forbidden_flags.is_empty() && heap::may_write() { table_shape::table() } else { Ok(None) }
}

/// Locks plain jobs until the transaction ends.
pub fn lock(take: &TakeRequest) -> Result<Vec<Job>, Error> {
    static LOCK: Plan = plan!("lock_plain", INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID).by_index();
    let mut jobs = rows(&LOCK, &take.values())?;
    jobs.retain(|job| take.has_room(job));
    Ok(jobs)
}

/// Claims jobs that are in no queue. The claim is visible once this transaction commits. `addresses` are as for [`delete`].
pub fn claim(take: &TakeRequest, addresses: &[Option<RowAddress>], worker_id: Value) -> Result<Vec<Job>, Error> {
    claim_in(take, addresses, worker_id, None)
}

fn claim_in(
    take: &TakeRequest,
    addresses: &[Option<RowAddress>],
    worker_id: Value,
    queue_name: Value,
) -> Result<Vec<Job>, Error> {
    static CLAIM: Plan =
        plan!("claim_many", INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, TEXTOID)
            .by_index();
    lock_table()?;
    let installed = if xact::is_read_committed() { table_to_write(take)? } else { None };
    let Claims { mut jobs, left } = match installed.filter(|installed| installed.may_update) {
        Some(installed) => claim_without_executor(&installed, take.ids, addresses, take.task, worker_id, queue_name)?,
        None => Claims { jobs: Vec::new(), left: take.ids.to_vec() },
    };
    if !left.is_empty() {
        let [_, task, now, flags] = take.values();
        let expired = Some(before(clock::now(), settings::job_expiry()).into());
        jobs.extend(rows(&CLAIM, &[left.into_datum(), task, now, flags, worker_id, expired, queue_name])?);
        sort(&mut jobs);
    }
    let (jobs, others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| take.has_room(job));
    for job in others {
        recover::release(worker_id, (job.id, job.id))?;
    }
    Ok(jobs)
}

/// The result of looking for the next job of a queue.
pub enum Next {
    Taken(Job, Rc<Task>),
    /// It is to run in place, in this queue, which is locked. Nothing is written to say that it runs.
    InPlace(NextJob, DbText),
    /// The next job is another role's, or must not run yet.
    NotOurs(NextJob),
    /// No job of the queue can run yet.
    None,
    /// Another transaction has locked the job or the queue.
    Locked,
}

/// Returns those of some jobs that could not be taken which can run: another transaction has their rows or queues locked.
pub fn are_locked(ids: &[i64], forbidden_flags: &[DbText]) -> Result<Vec<i64>, Error> {
    static ARE_LOCKED: Plan = plan!("are_locked", INT8ARRAYOID, TIMESTAMPTZOID, TEXTARRAYOID).by_index();
    let session = schema::session()?;
    let values = [ids.to_vec().into_datum(), Some(clock::now().into()), texts_or_null(forbidden_flags)];
    let rows = session.execute(&ARE_LOCKED, &values)?;
    Ok((0..rows.count()).filter_map(|row| rows.get(row, 0)).collect())
}

/// Locks the queue that a job is in, and claims the queue's next job, if `is_ours` says so, and unless it is to run in place.
pub fn claim_next(
    of: i64,
    worker_id: Value,
    tasks: &Tasks,
    forbidden_flags: &[DbText],
    is_ours: impl FnOnce(&NextJob) -> bool,
    is_in_place: impl FnOnce(&NextJob) -> bool,
) -> Result<Next, Error> {
    lock_table()?;
    let now = clock::now();
    let queue_name = queue_of(of)?;
    if queue_name.is_none() {
        return Ok(Next::None);
    }
    let Some(free) = queues::find_free(queue_name, before(now, settings::job_expiry()))? else {
        return Ok(if are_locked(&[of], forbidden_flags)?.is_empty() { Next::None } else { Next::Locked });
    };
    let Some(next) = next_of_queue(queue_name, tasks, forbidden_flags)? else {
        return Ok(Next::None);
    };
    if !is_ours(&next) {
        return Ok(Next::NotOurs(next));
    }
    fault::point("chosen")?;
    let ids = [next.hint.position.id];
    let take = TakeRequest::new(&ids, &next.task.identifier, forbidden_flags);
    if next.is_plain && is_in_place(&next) && table_to_write(&take)?.is_some() {
        let name = queue_name.map(|name| Text::new(name).read()).unwrap_or_default();
        let is_locked = free.lock(worker_id, Some(now.into()), ids[0])?;
        return Ok(if is_locked { Next::InPlace(next, name) } else { Next::Locked });
    }
    let Some(job) = claim_in(&take, &[next.address], worker_id, queue_name)?.pop() else { return Ok(Next::Locked) };
    if !free.lock(worker_id, Some(now.into()), job.id)? {
        // A user has written to the table by hand.
        recover::release(worker_id, (job.id, job.id))?;
        return Ok(Next::Locked);
    }
    Ok(Next::Taken(job, next.task))
}

/// Returns the queue of a job.
fn queue_of(job: i64) -> Result<Value, Error> {
    let queue = schema::queue()?;
    let _snapshot = LatestSnapshot::take();
    let found = heap::find_version(queue.table, queue.primary_key, job)?;
    Ok(found.and_then(|found| Row::new(found.row).value(attribute::QUEUE_NAME)))
}

/// What a worker goes on with in a queue that it holds.
pub enum Following {
    /// The next job, which the current transaction has claimed.
    Claimed(Job, Rc<Task>),
    /// The next job, which is to run in place. Nothing is written.
    InPlace(NextJob),
    /// Nothing: the queue is released.
    None,
    /// Nothing: the worker no longer holds the queue.
    Lost,
}

/// Claims a queue's next job for the worker that holds the queue, if `may_go_on` says so, and unless it is to run in place.
/// Otherwise, and where anything is not as it was when the worker locked the queue, releases the queue.
pub fn claim_following(
    queue_name: Value,
    worker_id: Value,
    tasks: &Tasks,
    forbidden_flags: &[DbText],
    may_go_on: impl FnOnce(&NextJob) -> bool,
    is_in_place: impl FnOnce(&NextJob) -> bool,
) -> Result<Following, Error> {
    lock_table()?;
    if !queues::is_held_by(queue_name, worker_id)? {
        return Ok(Following::Lost);
    }
    let now = clock::now();
    let next = next_of_queue(queue_name, tasks, forbidden_flags)?;
    let next = match next {
        Some(next) if next.is_first && may_go_on(&next) => next,
        other => {
            queues::release_with_next(queue_name, worker_id, other, now)?;
            return Ok(Following::None);
        }
    };
    let ids = [next.hint.position.id];
    let take = TakeRequest::new(&ids, &next.task.identifier, forbidden_flags);
    if next.is_plain && is_in_place(&next) && table_to_write(&take)?.is_some() {
        return Ok(Following::InPlace(next));
    }
    let Some(job) = claim_in(&take, &[next.address], worker_id, queue_name)?.pop() else {
        queues::release(queue_name, worker_id)?;
        return Ok(Following::None);
    };
    Ok(Following::Claimed(job, next.task))
}

/// Runs a statement that returns rows of `jobs`, and sorts them in the order in which they run. The rows are in the
/// caller's memory context.
fn rows(plan: &Plan, values: &[Value]) -> Result<Vec<Job>, Error> {
    lock_table()?;
    let session = schema::session()?;
    let rows = session.execute(plan, values)?;
    let mut jobs: Vec<Job> = (0..rows.count()).filter_map(|row| rows.carry(row)).map(Job::new).collect();
    sort(&mut jobs);
    Ok(jobs)
}

/// Sorts jobs in the order in which they run.
fn sort(jobs: &mut [Job]) {
    if jobs.len() > 1 {
        jobs.sort_by_cached_key(Job::position);
    }
}
