//! One job, in a transaction of its own.

use super::{Attempt, Hold, Outcome, Runner, Taken};
use crate::error::Error;
use crate::pg::catch::{Level, Raise, log};
use crate::pg::{clock, spi, xact};
use crate::queue::job::Job;
use crate::queue::take::{self, Next};
use crate::queue::{complete, queues, recover};
use crate::ready::{Hint, Kind};
use crate::registry;
use crate::{marks, shmem, wake};
use std::time::Instant;

impl Runner {
    /// Runs the one job that was taken, if it can still be had.
    pub(super) fn alone(&self, taken: &Taken, hold: Hold) -> Result<(), Error> {
        if hold == Hold::Claimed {
            return match self.claim(taken)?.pop() {
                Some(job) => self.claimed(&job, taken),
                None => Ok(()),
            };
        }
        self.begin();
        let id = taken.hints[0].place.id;
        match self.delete(taken, &[id]) {
            Ok(mut jobs) => match jobs.pop() {
                Some(job) => self.attempt(&job, &Attempt { task: &taken.task, hold }),
                None => {
                    self.see_what_was_skipped(&[id])?;
                    Ok(xact::commit()?)
                }
            },
            // A trigger of a user's, say: that is the job's failure, and only a job that is held can be said to have failed.
            Err(_) => {
                xact::abort();
                self.alone(taken, Hold::Claimed)
            }
        }
    }

    /// Runs a job that is claimed already.
    pub(super) fn claimed(&self, job: &Job, taken: &Taken) -> Result<(), Error> {
        self.begin();
        self.attempt(job, &Attempt { task: &taken.task, hold: Hold::Claimed })
    }

    /// Runs the next job of the queue that a job is in.
    pub(super) fn next_of_queue(&self, taken: &Taken, of: i64) -> Result<(), Error> {
        xact::begin_for_queue();
        // As for any claim.
        xact::commit_lazily();
        let tasks = registry::tasks()?;
        let next = self.arena.within(|| {
            take::claim_next(of, self.worker_id(), &tasks, &taken.forbidden_flags, |head| {
                // Before the commit: should the process end in between, the scheduler finds nothing to release.
                self.hold_for(&[head.hint], &head.task);
                head.task.role == self.role && !marks::is_charged(self.database, head.hint.place.id)
            })
        })?;
        match next {
            Next::Taken(job, task) => {
                xact::commit()?;
                self.begin();
                self.attempt(&job, &Attempt { task: &task, hold: Hold::Claimed })
            }
            Next::Anothers(head) => {
                // Its workers may have looked for it while we held the queue. One that has a charge, ours pass over.
                wake::note_job(head.task.role, head.hint);
                Ok(xact::commit()?)
            }
            Next::None => {
                // While we held the queue, others passed what fell due in it.
                wake::note_due(clock::transaction_start());
                Ok(xact::commit()?)
            }
            Next::Locked => {
                self.skipped();
                Ok(xact::commit()?)
            }
        }
    }

    /// Handler and completion, in the transaction that has begun, and its end.
    fn attempt(&self, job: &Job, attempt: &Attempt) -> Result<(), Error> {
        let begun = Instant::now();
        spi::met_deadlock();
        match self.try_to_complete(job, attempt) {
            Ok(Outcome::Completed) => self.succeeded(job, attempt.task, begun),
            Ok(Outcome::LockLost) => {
                xact::abort();
                self.let_go(job)?;
                self.warn_of_lost_lock(job, attempt.task);
            }
            Ok(Outcome::NotOurs) => {
                xact::abort();
                self.release(&[job.id])?;
            }
            Err(error) => {
                // Read before the rollback frees it.
                let error = error.read();
                xact::abort();
                if is_queues_own_deadlock(&error) {
                    self.put_back(job, attempt)?;
                } else {
                    self.record_one_failure(job, attempt, error)?;
                }
            }
        }
        Ok(())
    }

    /// Gives back what this worker may still hold of a job that somebody else has settled.
    fn let_go(&self, job: &Job) -> Result<(), Error> {
        xact::begin_for_queue();
        recover::release(self.worker_id(), (job.id, job.id))?;
        queues::release(job.queue_name(), self.worker_id())?;
        Ok(xact::commit()?)
    }

    /// Has a job run again at once, with the attempt not counted.
    fn put_back(&self, job: &Job, attempt: &Attempt) -> Result<(), Error> {
        log(
            Level::Log,
            format!(
                "job {} ({}) is run again: it and another transaction waited for each other to change jobs",
                job.id, attempt.task.identifier
            ),
        );
        if attempt.hold == Hold::Claimed {
            return self.release(&[job.id]);
        }
        let hint = Hint { place: job.place(), task: attempt.task.tag, kind: Kind::Plain };
        if let Some(board) = shmem::board() {
            wake::offer(board, self.database, self.role, &[hint], None);
        }
        Ok(())
    }

    fn try_to_complete(&self, job: &Job, attempt: &Attempt) -> Result<Outcome, Error> {
        let Some(handler) = self.handler(attempt.task)? else { return Ok(Outcome::NotOurs) };
        self.report(&attempt.task.handler, job, &attempt.task.identifier);
        self.call(attempt.task, &handler, || handler.prepare()?.call(job))?;
        if attempt.hold == Hold::Claimed {
            xact::allow_writes();
            xact::wait_for_locks();
            if !complete::complete_one_held(job, self.worker_id())? {
                return Ok(Outcome::LockLost);
            }
        }
        self.commit()?;
        Ok(Outcome::Completed)
    }
}

/// Whether an attempt failed as a statement of the queue's own met a deadlock: two handlers that each add a job with the other's key, say.
/// That is neither's fault.
fn is_queues_own_deadlock(error: &Raise) -> bool {
    error.sqlstate == *b"40P01" && spi::met_deadlock()
}
