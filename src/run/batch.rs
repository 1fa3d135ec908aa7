//! A batch: several jobs of a task in one transaction.
//!
//! It is run first as if none of its jobs could fail (unguarded.rs). If one does, all is rolled back, and the jobs run
//! again guarded: each in a subtransaction of its own, which is all that its failure undoes. For a while, the batches
//! of a task that has failed so are guarded from the beginning.
//!
//! What a job did stays, with its locks, until all have run. So no job may wait for a lock, and no job begins after the
//! time budget is spent. A job that would have waited, or met a deadlock or a serialization failure, runs again alone:
//! the others of its batch may be at fault. If the commit is cancelled, all of them have failed.

use super::marks::AfterFailure;
use super::unguarded::Unguarded;
use super::{Attempt, Clock, Failed, FailedAttempt, RunMode, Runner, TakenJobs, marks};
use crate::error::Error;
use crate::jobs::runs::Ended;
use crate::jobs::{complete, postpone, take};
use crate::pg::catch::Raise;
use crate::pg::interval::Interval;
use crate::pg::{background, latch, xact};
use crate::schema::job_row::Job;
use crate::shared;
use crate::shared::ready_list::Hint;
use crate::signals::wake;
use crate::tasks::handler::Handler;
use crate::tasks::registry::Keep;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How many jobs may share a transaction.
pub const MOST: usize = 1000;

/// How many jobs may share a transaction that guards each of them: fewer than [`xact::MOST_SUBTRANSACTIONS`], as each
/// takes one. If a handler makes subtransactions of its own (in plpgsql, a block with EXCEPTION), fewer jobs share it.
const MOST_GUARDED: usize = 60;

/// No job begins once the transaction has taken this long.
pub(super) const BUDGET: Duration = Duration::from_millis(10);

/// How long a statement waits for a lock, in milliseconds: the smallest lock_timeout there is.
pub(super) const PATIENCE: i32 = 1;

/// The outcomes of the jobs of a batch.
#[derive(Default)]
pub(super) struct Outcomes<'j> {
    /// Each with the time after which it is due again, if its handler has asked for that.
    pub(super) done: Vec<(&'j Job, Option<Interval>)>,
    failed: Vec<(&'j Job, FailedAttempt)>,
    /// The jobs to run alone.
    alone: Vec<&'j Job>,
    /// The jobs that did not begin.
    left: Vec<&'j Job>,
}

impl Runner {
    /// Runs jobs as a batch. Returns those that did not begin in time.
    pub(super) fn batch(&mut self, taken: &TakenJobs, mode: RunMode) -> Result<Vec<Hint>, Error> {
        let is_careful = self.is_careful(taken.task.tag);
        match mode {
            RunMode::InPlace => self.batch_in_place(taken, is_careful),
            RunMode::Claimed => self.batch_claimed(taken, is_careful),
        }
    }

    fn batch_in_place(&mut self, taken: &TakenJobs, is_careful: bool) -> Result<Vec<Hint>, Error> {
        let mut hints = taken.hints.clone();
        if !is_careful {
            match self.unguarded(taken, None)? {
                Unguarded::Settled(begun) => return Ok(hints.split_off(begun)),
                Unguarded::Interrupted(id) => hints.retain(|hint| hint.position.id != id),
                Unguarded::Failed => (),
            }
            self.recently_failed.insert(taken.task.tag, Instant::now());
        }
        let later = hints.split_off(MOST_GUARDED.min(hints.len()));
        self.guarded_in_place(&taken.with(hints), later)
    }

    fn batch_claimed(&mut self, taken: &TakenJobs, is_careful: bool) -> Result<Vec<Hint>, Error> {
        let mut hints = taken.hints.clone();
        let later = if is_careful { hints.split_off(MOST_GUARDED.min(hints.len())) } else { Vec::new() };
        let mut jobs = self.claim(&taken.with(hints))?;
        if !is_careful {
            match self.unguarded(taken, Some(&jobs))? {
                Unguarded::Settled(begun) => {
                    self.release_left(&jobs[begun..].iter().collect::<Vec<_>>())?;
                    return Ok(later);
                }
                Unguarded::Interrupted(id) => jobs.retain(|job| job.id != id),
                Unguarded::Failed => (),
            }
            self.recently_failed.insert(taken.task.tag, Instant::now());
        }
        self.begin();
        self.guarded(taken, &jobs, RunMode::Claimed, later)
    }

    /// Releases claimed jobs that did not begin. The trigger on `jobs` puts them back on the ready list.
    fn release_left(&self, jobs: &[&Job]) -> Result<(), Error> {
        self.release(&jobs.iter().map(|job| job.id).collect::<Vec<_>>())
    }

    /// Returns true if jobs of the task have lately failed in a batch.
    fn is_careful(&self, task: u32) -> bool {
        const LATELY: Duration = Duration::from_secs(10);
        self.recently_failed.get(&task).is_some_and(|since| since.elapsed() < LATELY)
    }

    /// Locks the rows of jobs, and runs them guarded. Returns those that did not begin in time, and `later` ones.
    fn guarded_in_place(&self, taken: &TakenJobs, later: Vec<Hint>) -> Result<Vec<Hint>, Error> {
        self.begin();
        let ids = taken.ids();
        let take = self.take(taken, &ids);
        let jobs = self.arena.within(|| take::lock(&take))?;
        self.see_what_was_skipped(&ids, &jobs, &taken.forbidden_flags)?;
        self.offer_changed(taken, take);
        self.guarded(taken, &jobs, RunMode::InPlace, later)
    }

    /// Runs jobs in the transaction that has begun, each in a subtransaction, and those alone that need it. Returns those that
    /// did not begin in time and are to be put back, with `later` ones.
    fn guarded(&self, taken: &TakenJobs, jobs: &[Job], mode: RunMode, later: Vec<Hint>) -> Result<Vec<Hint>, Error> {
        let Some(handler) = self.handler(&taken.task, None).transpose() else {
            xact::abort();
            self.leave(&jobs.iter().map(|job| job.id).collect::<Vec<_>>(), mode)?;
            return Ok(later);
        };
        let attempt = Attempt { task: &taken.task, mode };
        let outcomes = match handler {
            Ok(handler) => self.together(jobs, &attempt, &handler)?,
            // Each of them is to record that failure.
            Err(_) => {
                xact::abort();
                Outcomes { alone: jobs.iter().collect(), ..Outcomes::default() }
            }
        };
        let mut left = later;
        match mode {
            RunMode::InPlace => {
                let is_left = |hint: &&Hint| outcomes.left.iter().any(|job| job.id == hint.position.id);
                left.extend(taken.hints.iter().filter(is_left));
            }
            RunMode::Claimed => self.release_left(&outcomes.left)?,
        }
        // One that runs alone may wait for a lock for long. (Room under limits is given back with the whole run.)
        if !outcomes.alone.is_empty() && taken.task.limits.is_empty() {
            self.leave_to_others(&std::mem::take(&mut left));
        }
        for job in &outcomes.alone {
            self.now_runs(job.id);
            match mode {
                RunMode::InPlace => self.run_single(&taken.those(|id| id == job.id), mode)?,
                RunMode::Claimed => self.claimed(job, taken)?,
            }
            background::report_statistics(false);
        }
        Ok(left)
    }

    /// Puts jobs back on the ready list, and wakes others for them.
    fn leave_to_others(&self, left: &[Hint]) {
        let Some(board) = shared::board().filter(|_| !left.is_empty()) else { return };
        wake::offer(board, self.database, self.role, left, None);
        wake::wake_enough(board, self.database, self.role, left.len());
    }

    fn together<'j>(&self, jobs: &'j [Job], attempt: &Attempt, handler: &Handler) -> Result<Outcomes<'j>, Error> {
        let mut outcomes = match self.run_each(jobs, attempt, handler) {
            Ok(outcomes) => outcomes,
            // The handler cannot be prepared.
            Err(_) => {
                xact::abort();
                return Ok(Outcomes { alone: jobs.iter().collect(), ..Outcomes::default() });
            }
        };
        match self.settle(&mut outcomes, attempt) {
            Ok(Some(failed)) => {
                failed.into_iter().for_each(Failed::tell);
                self.tell_done(&outcomes, attempt);
            }
            // A cancel of the commit concerns all jobs that were done.
            Err(error) if Runner::was_cancelled(&error) => {
                let failure = FailedAttempt { error: error.read(), then: AfterFailure::Backoff };
                xact::abort();
                let done = outcomes.done.drain(..).map(|(job, _)| (job, failure.clone()));
                outcomes.failed = done.chain(outcomes.failed.drain(..)).collect();
                xact::begin_for_queue();
                let failed = self.record_failed(&outcomes, attempt)?;
                xact::commit()?;
                failed.into_iter().for_each(Failed::tell);
            }
            // A lock that is lost, or a deferred constraint: running each alone shows whose it is.
            Ok(None) | Err(_) => {
                xact::abort();
                outcomes.alone.extend(outcomes.done.drain(..).map(|(job, _)| job));
                outcomes.alone.extend(outcomes.failed.drain(..).map(|(job, _)| job));
                // In order again. Their rows must not be read outside a transaction.
                outcomes.alone.sort_by_key(|&job| std::ptr::from_ref(job));
            }
        }
        Ok(outcomes)
    }

    /// Runs jobs until the time budget is spent.
    fn run_each<'j>(&self, jobs: &'j [Job], attempt: &Attempt, handler: &Handler) -> Result<Outcomes<'j>, Error> {
        let mut outcomes = Outcomes::default();
        let begun = Instant::now();
        xact::wait_for_locks_within(PATIENCE);
        let (name, task) = (&attempt.task.handler, &attempt.task.identifier);
        background::report_running(&format!("select {name} /* {} jobs, task {task} */", jobs.len()));
        let mut prepared = handler.prepare(attempt.task.keep == Keep::All)?;
        // The most subtransactions that a job has used so far.
        let mut subtransactions = 1;
        for job in jobs {
            let before = xact::subtransactions();
            let is_full = before + subtransactions > xact::MOST_SUBTRANSACTIONS || begun.elapsed() > BUDGET;
            if is_full || latch::stop_asked() || self.me.is_to_end() {
                outcomes.left.push(job);
                continue;
            }
            self.now_runs(job.id);
            if let Some(failure) = self.cancelled(job.id) {
                outcomes.failed.push((job, failure));
                continue;
            }
            let clock = Clock::start();
            let result = xact::in_subtransaction(|| {
                self.call(attempt.task, handler, || prepared.call(job)).map_err(|error| error.read())
            });
            self.ran(std::slice::from_ref(job), &clock);
            match result {
                Ok(()) => {
                    subtransactions = subtransactions.max(xact::subtransactions().saturating_sub(before));
                    outcomes.done.push((job, marks::snoozed()));
                }
                Err(error) => {
                    // It may have kept something of the call that failed.
                    prepared = handler.prepare(attempt.task.keep == Keep::All)?;
                    if let Some(failure) = self.cancelled(job.id) {
                        outcomes.failed.push((job, failure));
                    } else if may_be_its_companions_fault(&error) {
                        outcomes.alone.push(job);
                    } else {
                        outcomes.failed.push((job, FailedAttempt::of_call(error)));
                    }
                }
            }
        }
        Ok(outcomes)
    }

    /// Returns true if a session has cancelled a job that is done, but for the commit.
    pub(super) fn is_one_cancelled(&self, outcomes: &Outcomes) -> bool {
        outcomes.done.iter().any(|(job, _)| self.cancel_of(job.id).is_some())
    }

    /// Completes the jobs that are done, records those that failed, and commits. Returns what to log, or `None` if a
    /// lock was lost, or a session has cancelled a job, and nothing was committed.
    pub(super) fn settle(&self, outcomes: &mut Outcomes, attempt: &Attempt) -> Result<Option<Vec<Failed>>, Error> {
        if self.is_one_cancelled(outcomes) {
            return Ok(None);
        }
        xact::allow_writes();
        let mut snoozed = HashSet::new();
        for (job, delay) in &mut outcomes.done {
            let is_snoozed = match (*delay, attempt.mode) {
                (None, _) => false,
                (Some(delay), RunMode::InPlace) => postpone::snooze_locked(job.id, delay).map(|()| true)?,
                (Some(delay), RunMode::Claimed) => postpone::snooze_held(job, self.worker_id(), delay)?,
            };
            if is_snoozed {
                snoozed.insert(job.id);
            } else {
                *delay = None;
            }
        }
        let done: Vec<i64> = outcomes.done.iter().map(|(job, _)| job.id).filter(|id| !snoozed.contains(id)).collect();
        match attempt.mode {
            RunMode::InPlace => complete::complete_locked(done)?,
            RunMode::Claimed if complete::complete_held(done, self.worker_id())? => (),
            RunMode::Claimed => return Ok(None),
        }
        self.keep_done(outcomes, attempt)?;
        let failed = self.record_failed(outcomes, attempt)?;
        self.commit()?;
        Ok(Some(failed))
    }

    /// Writes the rows of the jobs that are done.
    pub(super) fn keep_done(&self, outcomes: &Outcomes, attempt: &Attempt) -> Result<(), Error> {
        self.keep(attempt.task, outcomes.done.iter().map(|(job, delay)| (*job, Ended::of_return(delay.is_some()))))
    }

    /// Records failures in the current transaction. Returns what to log once it is committed.
    fn record_failed(&self, outcomes: &Outcomes, attempt: &Attempt) -> Result<Vec<Failed>, Error> {
        outcomes.failed.iter().map(|(job, failure)| self.record_failure(job, attempt, failure)).collect()
    }

    /// Counts and logs the jobs that are done, once that is committed.
    pub(super) fn tell_done(&self, outcomes: &Outcomes, attempt: &Attempt) {
        let completed = outcomes.done.iter().filter(|(_, delay)| delay.is_none()).map(|&(job, _)| job);
        self.succeeded(completed, attempt.task);
        self.snoozed(outcomes.snoozed().map(|(job, _)| job), attempt.task);
    }
}

impl<'j> Outcomes<'j> {
    /// Returns the jobs that are due again later, each with the time.
    pub(super) fn snoozed(&self) -> impl Iterator<Item = (&'j Job, Interval)> {
        self.done.iter().filter_map(|&(job, delay)| Some((job, delay?)))
    }
}

/// True for lock_not_available, deadlock_detected and serialization_failure.
fn may_be_its_companions_fault(error: &Raise) -> bool {
    [*b"55P03", *b"40P01", *b"40001"].contains(&error.sqlstate)
}
