//! One job, in a transaction of its own.

use super::marks::AfterFailure;
use super::queue::ClaimedRun;
use super::{Attempt, Clock, Outcome, RunMode, Runner, TakenJobs, marks};
use crate::error::{Error, last_error};
use crate::jobs::queue_search::NextJob;
use crate::jobs::runs::{self, Ended};
use crate::jobs::take::{self, Next};
use crate::jobs::{complete, postpone, queues, recover};
use crate::pg::catch::{Level, Raise, log};
use crate::pg::interval::Interval;
use crate::pg::{clock, fault, spi, xact};
use crate::schema::job_row::Job;
use crate::shared;
use crate::shared::crash_records;
use crate::shared::ready_list::{Hint, Kind, NO_KEY, NO_ROW};
use crate::signals::{commit_notes, wake};
use crate::tasks::registry::{self, Keep, Task};

impl Runner {
    /// Runs one job, if it can still be taken.
    pub(super) fn run_single(&self, taken: &TakenJobs, mode: RunMode) -> Result<(), Error> {
        if mode == RunMode::Claimed {
            return match self.claim(taken)?.pop() {
                Some(job) => self.claimed(&job, taken),
                None => Ok(()),
            };
        }
        self.begin();
        let hint = &taken.hints[0];
        match self.delete_one(taken, hint) {
            Ok(Some(job)) => self.attempt(&job, &Attempt { task: &taken.task, mode }, None).map(|_| ()),
            Ok(None) => {
                self.see_what_was_skipped(&[hint.position.id], &[], &taken.forbidden_flags)?;
                Ok(xact::commit()?)
            }
            // A user's trigger may have raised while the row was deleted, so that there is no row to record the failure
            // for. A claimed attempt has one.
            Err(_) => {
                xact::abort();
                self.run_single(taken, RunMode::Claimed)
            }
        }
    }

    /// Claims a job that is in no queue, if it can still be taken, and runs it and what the worker goes on with.
    pub(super) fn single_claimed(&mut self, taken: &TakenJobs) -> Result<(), Error> {
        match self.claim(taken)?.pop() {
            Some(job) => self.run_claimed(job, taken.task.clone(), ClaimedRun::new(&taken.forbidden_flags)),
            None => Ok(()),
        }
    }

    /// Runs a job that is claimed already.
    pub(super) fn claimed(&self, job: &Job, taken: &TakenJobs) -> Result<(), Error> {
        self.begin();
        self.attempt(job, &Attempt { task: &taken.task, mode: RunMode::Claimed }, None)?;
        Ok(())
    }

    /// Runs the next job of the queue that a job is in.
    pub(super) fn next_of_queue(&mut self, taken: &TakenJobs, of: i64) -> Result<(), Error> {
        xact::begin_for_queue();
        // Any claim may be committed lazily: a claim that is lost leaves the job as it was.
        xact::commit_lazily();
        let tasks = registry::tasks()?;
        let (mut waits, mut failed) = (false, None);
        let next = self.arena.within(|| {
            let is_ours = |next: &NextJob| {
                // Before the commit: if the process ends in between, the scheduler finds nothing to release.
                self.hold_for(&[next.hint], &next.task);
                let is_ours =
                    next.task.role == self.role && !crash_records::is_charged(self.database, next.hint.position.id);
                if is_ours {
                    let granted = self.grant_next(next);
                    waits = !matches!(granted, Ok(true));
                    failed = granted.err();
                }
                is_ours && !waits
            };
            take::claim_next(of, self.worker_id(), &tasks, &taken.forbidden_flags, is_ours, |_| false)
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        match next {
            // Whoever gives back room searches for it.
            Next::NotOurs(_) if waits => Ok(xact::commit()?),
            Next::Taken(job, task) => {
                let run = ClaimedRun::new(&taken.forbidden_flags);
                xact::commit()?;
                self.run_claimed(job, task, run)
            }
            next => {
                self.leave_queue(next, of);
                Ok(xact::commit()?)
            }
        }
    }

    /// Notes for the commit what becomes of a queue whose next job this worker has not taken, though one `of` its jobs was on
    /// the list.
    pub(super) fn leave_queue(&self, next: Next, of: i64) {
        match next {
            // Its workers may have looked for it while this worker had the queue's lock. Workers skip a job that has a
            // charge.
            Next::NotOurs(next) => commit_notes::note_job(next.task.role, next.hint),
            // While this worker had the queue's lock, searches skipped what fell due in the queue.
            Next::None => commit_notes::note_due(clock::transaction_start()),
            Next::Locked => self.skipped(of),
            Next::Taken(..) | Next::InPlace(..) => (),
        }
    }

    /// Calls the handler, completes the job and commits, in the transaction that has begun. Returns true if the job was
    /// completed. `run` is given where the worker may go on.
    pub(super) fn attempt(&self, job: &Job, attempt: &Attempt, run: Option<&mut ClaimedRun>) -> Result<bool, Error> {
        let clock = Clock::start();
        job.begins(clock.began_at);
        spi::met_deadlock();
        let result = self.try_to_complete(job, attempt, run);
        self.ran(std::slice::from_ref(job), &clock);
        match result {
            Ok(Outcome::Completed) => {
                self.succeeded([job], attempt.task);
                return Ok(true);
            }
            Ok(Outcome::Snoozed) => self.snoozed([job], attempt.task),
            Ok(Outcome::Cancelled) => {
                xact::abort();
                self.record_cancel(job, attempt)?;
            }
            Ok(Outcome::LockLost) => {
                let hint = Runner::hint(job, attempt, Kind::Queued);
                xact::abort();
                self.let_go(job)?;
                if attempt.mode == RunMode::InPlace {
                    // Whoever has taken the queue may have skipped it, as its row was locked.
                    self.offer(hint);
                }
                self.warn_of_lost_lock(job, attempt.task);
            }
            Ok(Outcome::NotOurs) => {
                xact::abort();
                if job.is_in_queue {
                    self.release_one(job, attempt)?;
                } else {
                    self.leave(&[job.id], attempt.mode)?;
                }
            }
            Ok(Outcome::NeedsClaim) => {
                let hint = Runner::hint(job, attempt, Kind::Claimed);
                xact::abort();
                if job.is_in_queue {
                    self.release_one(job, attempt)?;
                } else {
                    self.offer(hint);
                }
            }
            Err(error) => {
                let is_for_good = error.is_for_good();
                // Read before the rollback frees it.
                let mut failure = self.failure_of(job.id, error.read());
                let hint = Runner::hint(job, attempt, Kind::Plain);
                xact::abort();
                if is_for_good {
                    failure.then = AfterFailure::Never(last_error(&failure.error));
                }
                if is_queues_own_deadlock(&failure.error) {
                    self.put_back(job, attempt, hint)?;
                } else {
                    self.record_one_failure(job, attempt, &failure)?;
                }
            }
        }
        Ok(false)
    }

    /// Fails a job for good that a session has cancelled.
    fn record_cancel(&self, job: &Job, attempt: &Attempt) -> Result<(), Error> {
        match self.cancelled(job.id) {
            Some(failure) => self.record_one_failure(job, attempt, &failure),
            // The scheduler has done so, when the row was unlocked.
            None => self.release_one(job, attempt),
        }
    }

    /// Releases a job so that it can run again at once, or with one that has run in place its queue. The attempt is not
    /// counted.
    fn release_one(&self, job: &Job, attempt: &Attempt) -> Result<(), Error> {
        if attempt.mode == RunMode::Claimed {
            return self.release(&[job.id]);
        }
        if job.is_in_queue {
            xact::begin_for_queue();
            queues::release(job.queue_name(), self.worker_id())?;
            xact::commit()?;
        }
        Ok(())
    }

    /// Releases what this worker may still hold of a job that another session has settled.
    fn let_go(&self, job: &Job) -> Result<(), Error> {
        xact::begin_for_queue();
        recover::release(self.worker_id(), (job.id, job.id))?;
        queues::release(job.queue_name(), self.worker_id())?;
        Ok(xact::commit()?)
    }

    /// Has a job run again at once. The attempt is not counted.
    fn put_back(&self, job: &Job, attempt: &Attempt, hint: Hint) -> Result<(), Error> {
        log(
            Level::Log,
            format!(
                "job {} ({}) is run again: it and another transaction waited for each other to change jobs",
                job.id, attempt.task.identifier
            ),
        );
        if attempt.mode == RunMode::InPlace && !job.is_in_queue {
            self.offer(hint);
        }
        self.release_one(job, attempt)
    }

    /// Returns what stands for a job on the ready list. To be called within a transaction, as it reads the job's row.
    fn hint(job: &Job, attempt: &Attempt, kind: Kind) -> Hint {
        Hint { position: job.position(), key: NO_KEY, row: NO_ROW, task: attempt.task.tag, kind }
    }

    /// Puts a job back on the ready list.
    pub(super) fn offer(&self, hint: Hint) {
        if let Some(board) = shared::board() {
            wake::offer(board, self.database, self.role, &[hint], None);
        }
    }

    fn try_to_complete(&self, job: &Job, attempt: &Attempt, run: Option<&mut ClaimedRun>) -> Result<Outcome, Error> {
        let queue_name = if job.is_in_queue { job.queue_name() } else { None };
        let Some(handler) = self.handler(attempt.task, queue_name)? else { return Ok(Outcome::NotOurs) };
        if self.cancel_of(job.id).is_some() {
            return Ok(Outcome::Cancelled);
        }
        if !handler.has_steps() {
            self.report(format_args!("select {}", attempt.task.handler), job, &attempt.task.identifier);
            self.call(attempt.task, &handler, || handler.prepare(attempt.task.keep == Keep::All)?.call(job))?;
        } else if attempt.mode == RunMode::Claimed {
            self.call_procedure(job, attempt.task, &handler)?;
        } else {
            return Ok(Outcome::NeedsClaim);
        }
        fault::point("returned")?;
        if self.cancel_of(job.id).is_some() {
            return Ok(Outcome::Cancelled);
        }
        let mut is_settled_by_handler = false;
        let outcome = match marks::snoozed() {
            Some(_) if attempt.holds_queue_of(job) && !self.holds_queue(queue_name)? => return Ok(Outcome::LockLost),
            Some(delay) if self.snooze(job, attempt.mode, delay)? => Outcome::Snoozed,
            _ if attempt.mode == RunMode::InPlace && !job.is_in_queue => Outcome::Completed,
            _ => {
                xact::allow_writes();
                xact::wait_for_locks();
                let run = if self.may_go_on()? { run } else { None };
                let found = match attempt.mode {
                    RunMode::Claimed => self.complete_claimed(job, attempt, run)?,
                    RunMode::InPlace => self.complete_in_queue(job, attempt, run)?,
                };
                match found {
                    complete::Found::Held => (),
                    complete::Found::SettledByHandler => is_settled_by_handler = true,
                    complete::Found::Lost => return Ok(Outcome::LockLost),
                }
                Outcome::Completed
            }
        };
        if is_settled_by_handler {
            self.keep_as_settled(job, attempt.task)?;
        } else {
            let is_snoozed = matches!(outcome, Outcome::Snoozed);
            self.keep(attempt.task, std::iter::once((job, Ended::of_return(is_snoozed))))?;
        }
        self.commit()?;
        Ok(outcome)
    }

    /// Writes the row of a job that its handler has completed or failed itself, if the task keeps it.
    fn keep_as_settled(&self, job: &Job, task: &Task) -> Result<(), Error> {
        if task.keep == Keep::None {
            return Ok(());
        }
        match runs::look(job.id)? {
            None => self.keep(task, std::iter::once((job, Ended::Succeeded))),
            Some(found) => {
                let ended = if found.is_over { Ended::Failed } else { Ended::Retrying };
                runs::keep_failure(job, task, ended, found.last_error.as_ref())
            }
        }
    }

    /// Has a job that is taken in the current transaction, or claimed, run again after `delay`. Returns false if it is
    /// to be completed instead.
    pub(super) fn snooze(&self, job: &Job, mode: RunMode, delay: Interval) -> Result<bool, Error> {
        xact::allow_writes();
        xact::wait_for_locks();
        match mode {
            RunMode::InPlace => {
                postpone::snooze_deleted(job, delay)?;
                if job.is_in_queue {
                    queues::release(job.queue_name(), self.worker_id())?;
                }
                Ok(true)
            }
            RunMode::Claimed => postpone::snooze_held(job, self.worker_id(), delay),
        }
    }
}

/// Returns true if a statement of the queue's own met a deadlock: two handlers that each add a job with the other's
/// key, for example. Neither job is at fault.
fn is_queues_own_deadlock(error: &Raise) -> bool {
    error.sqlstate == *b"40P01" && spi::met_deadlock()
}
