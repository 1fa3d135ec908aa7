//! A batch as if none of its jobs could fail: its jobs run one after the other in a transaction without
//! subtransactions. So a batch has one transaction id, and what a language keeps for a transaction (the plans of a
//! function in SQL, for example) serves all of its jobs. If one fails, all is rolled back, and the batch runs again
//! guarded (batch.rs).
//!
//! A job in place is deleted just before it runs. So once the time budget is spent, the jobs that have run are
//! committed, and the others are as they were.

use super::batch::{BUDGET, Outcomes, PATIENCE};
use super::marks::AfterFailure;
use super::set::Part;
use super::{Attempt, Clock, FailedAttempt, RunMode, Runner, TakenJobs, marks};
use crate::error::Error;
use crate::jobs::take;
use crate::pg::xact::LatestSnapshot;
use crate::pg::{background, heap, invalidation, latch, xact};
use crate::schema::job_row::Job;
use crate::tasks::registry::Keep;
use std::cell::{Cell, OnceCell};
use std::time::Instant;

/// The result of running jobs as if none of them could fail.
pub(super) enum Unguarded {
    /// So many jobs have begun, and are committed, or all of them have failed. Those behind them did not begin.
    Settled(usize),
    /// Nothing was committed. One job was interrupted: its failure is recorded, and it does not run again for the
    /// others' sake.
    Interrupted(i64),
    /// Nothing was committed.
    Failed,
}

/// How running jobs went, but for errors.
enum Went<'j> {
    Committed,
    /// A job was cancelled, terminated or timed out.
    Interrupted(&'j Job, FailedAttempt),
    Failed,
}

/// The jobs of a batch, in the order in which they run. Those in place are deleted as they are asked for.
struct Jobs<'j> {
    taken: &'j TakenJobs,
    claimed: Option<&'j [Job]>,
    /// The rows of jobs in place, once they are deleted.
    deleted: &'j [OnceCell<Job>],
    /// True if all of them were deleted before the first one began.
    all_deleted: bool,
    /// How many have begun, or could not be taken.
    begun: &'j Cell<usize>,
}

impl Runner {
    /// Runs jobs, in place unless they are given as `claimed`.
    pub(super) fn unguarded(&self, taken: &TakenJobs, claimed: Option<&[Job]>) -> Result<Unguarded, Error> {
        let mode = if claimed.is_some() { RunMode::Claimed } else { RunMode::InPlace };
        let attempt = Attempt { task: &taken.task, mode };
        let deleted: Vec<OnceCell<Job>> = taken.hints.iter().map(|_| OnceCell::new()).collect();
        let begun = Cell::new(0);
        self.begin();
        match self
            .run_while_well(&attempt, Jobs { taken, claimed, deleted: &deleted, all_deleted: false, begun: &begun })
        {
            Ok(Went::Committed) => Ok(Unguarded::Settled(begun.get())),
            // They were cancelled while they were committed: a cancel of the commit concerns all of them.
            Err(error) if Runner::was_cancelled(&error) => {
                let failure = FailedAttempt { error: error.read(), then: AfterFailure::Backoff };
                xact::abort();
                let part = match claimed {
                    Some(jobs) => Part::Claimed(&jobs[..begun.get()]),
                    None => Part::InPlace(&taken.hints[..begun.get()]),
                };
                self.fail_part(taken, part, &failure)?;
                Ok(Unguarded::Settled(begun.get()))
            }
            Ok(Went::Interrupted(job, failure)) => {
                xact::abort();
                self.record_one_failure(job, &attempt, &failure)?;
                Ok(Unguarded::Interrupted(job.id))
            }
            Ok(Went::Failed) | Err(_) => {
                xact::abort();
                Ok(Unguarded::Failed)
            }
        }
    }

    /// Runs jobs until one fails or the time budget is spent, and commits them if none has failed. Otherwise the caller
    /// must roll back.
    fn run_while_well<'j>(&self, attempt: &Attempt, mut jobs: Jobs<'j>) -> Result<Went<'j>, Error> {
        let Some(handler) = self.handler(attempt.task, None)? else { return Ok(Went::Failed) };
        let begun = Instant::now();
        xact::wait_for_locks_within(PATIENCE);
        jobs.prepare(self)?;
        let (name, task, count) = (&attempt.task.handler, &attempt.task.identifier, jobs.count());
        background::report_running(&format!("select {name} /* {count} jobs, task {task} */"));
        let keeps_results = attempt.task.keep == Keep::All;
        let definitions = || (invalidation::functions_version(), invalidation::relations_version());
        let mut prepared_for = definitions();
        let mut prepared = handler.prepare(keeps_results)?;
        let mut outcomes = Outcomes::default();
        let mut skipped = Vec::new();
        // The most subtransactions that a handler has made.
        let mut subtransactions = 0;
        for at in 0..count {
            let before = xact::subtransactions();
            let is_full = before + subtransactions > xact::MOST_SUBTRANSACTIONS || begun.elapsed() > BUDGET;
            if at > 0 && (is_full || latch::stop_asked() || self.me.is_to_end()) {
                break;
            }
            jobs.begun.set(at + 1);
            let Some(job) = jobs.take(self, at)? else {
                if !jobs.all_deleted {
                    skipped.push(jobs.taken.hints[at].position.id);
                }
                continue;
            };
            self.now_runs(job.id);
            if let Some(failure) = self.cancelled(job.id) {
                return Ok(Went::Interrupted(job, failure));
            }
            if definitions() != prepared_for {
                // What a language keeps for a call may go by what the jobs before have changed.
                prepared_for = definitions();
                prepared = handler.prepare(keeps_results)?;
            }
            let clock = Clock::start();
            let result = self.call(attempt.task, &handler, || prepared.call(job));
            self.ran(std::slice::from_ref(job), &clock);
            if let Err(error) = result {
                let by_itself = matches!(error, Error::TimedOut(..) | Error::EndedItself(_));
                let is_interrupted = by_itself || Runner::was_cancelled(&error) || self.cancel_of(job.id).is_some();
                if !is_interrupted {
                    return Ok(Went::Failed);
                }
                return Ok(Went::Interrupted(job, self.failure_of(job.id, error.read())));
            }
            heap::end_command()?;
            subtransactions = subtransactions.max(xact::subtransactions().saturating_sub(before));
            outcomes.done.push((job, marks::snoozed()));
        }
        if jobs.all_deleted && jobs.begun.get() < count {
            return Ok(Went::Failed);
        }
        if !skipped.is_empty() {
            self.see_what_was_skipped(&skipped, &[], &jobs.taken.forbidden_flags)?;
            // Triggers that fire at commit are user code too.
            latch::let_cancel();
        }
        let is_committed = match attempt.mode {
            RunMode::InPlace => self.commit_deleted(&outcomes, attempt)?,
            RunMode::Claimed => self.settle(&mut outcomes, attempt)?.is_some(),
        };
        if !is_committed {
            return Ok(Went::Failed);
        }
        self.tell_done(&outcomes, attempt);
        Ok(Went::Committed)
    }

    /// Commits jobs whose rows are deleted. Returns false if a session has cancelled one of them.
    fn commit_deleted(&self, outcomes: &Outcomes, attempt: &Attempt) -> Result<bool, Error> {
        if self.is_one_cancelled(outcomes) {
            return Ok(false);
        }
        for (job, delay) in outcomes.snoozed() {
            self.snooze(job, attempt.mode, delay)?;
        }
        self.keep_done(outcomes, attempt)?;
        self.commit()?;
        Ok(true)
    }
}

impl<'j> Jobs<'j> {
    /// Deletes jobs in place now, where one statement for all is cheaper than one for each.
    fn prepare(&mut self, runner: &Runner) -> Result<(), Error> {
        let ids = self.taken.ids();
        if self.claimed.is_none() && !take::deletes_quickly(&runner.take(self.taken, &ids))? {
            let jobs = runner.delete(self.taken, &self.taken.hints)?;
            runner.see_what_was_skipped(&ids, &jobs, &self.taken.forbidden_flags)?;
            self.deleted.iter().zip(jobs).for_each(|(row, job)| _ = row.set(job));
            self.all_deleted = true;
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.claimed.map_or(self.deleted.len(), <[Job]>::len)
    }

    /// Returns a job that is about to run; `None` if it cannot be taken.
    fn take(&self, runner: &Runner, at: usize) -> Result<Option<&'j Job>, Error> {
        if let Some(jobs) = self.claimed {
            return Ok(jobs.get(at));
        }
        let row = &self.deleted[at];
        if !self.all_deleted {
            // The call before has let cancels through, which concern calls only.
            latch::hold_cancels();
            // A handler may have changed the row of a job behind its own.
            let _snapshot = LatestSnapshot::take();
            if let Some(job) = runner.delete_one(self.taken, &self.taken.hints[at])? {
                _ = row.set(job);
            }
        }
        Ok(row.get())
    }
}
