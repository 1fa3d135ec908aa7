//! A set: many jobs in one call of their handler. If the call raises, the set is halved until the jobs at fault are
//! alone. Those have failed, and the others complete. If the call is cancelled, all of them have failed.

use super::marks::AfterFailure;
use super::{Attempt, Clock, Failed, FailedAttempt, Outcome, RunMode, Runner, TakenJobs, marks};
use crate::error::Error;
use crate::jobs::runs::Ended;
use crate::jobs::{complete, take};
use crate::pg::{background, xact};
use crate::schema::job_row::Job;
use crate::shared;
use crate::shared::cancels::ManyJobs;
use crate::shared::ready_list::Hint;
use crate::tasks::handler::Handler;
use crate::tasks::registry::Keep;
use std::collections::HashSet;

/// How many jobs a call may get: as many as a ready list holds.
pub const MOST: usize = crate::shared::ready_list::CAPACITY;

/// How many jobs a call gets unless the task has a max_batch.
pub const USUAL: usize = 1000;

/// A part of a set.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// Jobs still to be taken, by the transaction that runs them.
    InPlace(&'a [Hint]),
    Claimed(&'a [Job]),
}

impl Runner {
    pub(super) fn set(&self, taken: &TakenJobs, mode: RunMode) -> Result<(), Error> {
        let claimed;
        let whole = match mode {
            RunMode::InPlace => Part::InPlace(&taken.hints),
            RunMode::Claimed => {
                claimed = self.claim(taken)?;
                Part::Claimed(&claimed)
            }
        };
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            match part {
                Part::InPlace([]) | Part::Claimed([]) => continue,
                Part::InPlace([hint]) => self.run_single(&taken.those(|id| id == hint.position.id), mode)?,
                Part::Claimed([job]) => self.claimed(job, taken)?,
                // By itself, it is not called: see `single`.
                _ if let Some(at) = self.first_cancelled(part) => parts.extend(part.around(at)),
                _ => match self.attempt_part(taken, part) {
                    Ok(Outcome::Completed | Outcome::Snoozed) => (),
                    Ok(Outcome::NotOurs) => {
                        xact::abort();
                        let left = parts.iter().chain([&part]).flat_map(Part::ids).collect::<Vec<_>>();
                        return self.leave(&left, mode);
                    }
                    Ok(Outcome::Cancelled) => {
                        xact::abort();
                        parts.push(part);
                    }
                    Ok(Outcome::LockLost | Outcome::NeedsClaim) => {
                        xact::abort();
                        parts.extend(part.halves());
                    }
                    Err(error) => {
                        let is_cancelled = Runner::was_cancelled(&error);
                        let failure = FailedAttempt::of_call(error.read());
                        xact::abort();
                        // A cancel concerns all of them, and so does what the handler asked for.
                        if self.first_cancelled(part).is_some() {
                            parts.push(part);
                        } else if is_cancelled || !matches!(failure.then, AfterFailure::Backoff) {
                            self.fail_part(taken, part, &failure)?;
                        } else {
                            parts.extend(part.halves());
                        }
                    }
                },
            }
            background::report_statistics(false);
        }
        Ok(())
    }

    /// Calls the handler and completes the jobs. After an error or a lost lock, the caller must roll back.
    fn attempt_part(&self, taken: &TakenJobs, part: Part) -> Result<Outcome, Error> {
        self.begin();
        let Some(handler) = self.handler(&taken.task, None)? else { return Ok(Outcome::NotOurs) };
        let deleted;
        let (jobs, snoozed) = match part {
            Part::InPlace(hints) => {
                let ids: Vec<i64> = hints.iter().map(|hint| hint.position.id).collect();
                deleted = self.delete(taken, hints)?;
                self.see_what_was_skipped(&ids, &deleted, &taken.forbidden_flags)?;
                self.call_for(&deleted, &handler, taken)?;
                let snoozed = self.snooze_all(&deleted, RunMode::InPlace)?;
                (&deleted[..], snoozed)
            }
            Part::Claimed(jobs) => {
                self.call_for(jobs, &handler, taken)?;
                let snoozed = self.snooze_all(jobs, RunMode::Claimed)?;
                xact::allow_writes();
                xact::wait_for_locks();
                // Only now: a session that adds a job with the key of one of them would wait.
                let done = jobs.iter().map(|job| job.id).filter(|id| !snoozed.contains(id)).collect();
                if !complete::complete_held(done, self.worker_id())? {
                    return Ok(Outcome::LockLost);
                }
                (jobs, snoozed)
            }
        };
        if self.first_cancelled(part).is_some() {
            return Ok(Outcome::Cancelled);
        }
        self.keep(&taken.task, jobs.iter().map(|job| (job, Ended::of_return(snoozed.contains(&job.id)))))?;
        self.commit()?;
        self.succeeded(jobs.iter().filter(|job| !snoozed.contains(&job.id)), &taken.task);
        self.snoozed(jobs.iter().filter(|job| snoozed.contains(&job.id)), &taken.task);
        Ok(Outcome::Completed)
    }

    /// Returns the place of the first job that a session has cancelled.
    fn first_cancelled(&self, part: Part) -> Option<usize> {
        let cancelled = shared::board()?.cancels().of(self.database);
        if cancelled.is_empty() {
            return None;
        }
        part.ids().iter().position(|id| cancelled.binary_search(id).is_ok())
    }

    /// If the handler has asked for it, has its jobs run again later. Returns the ids of these.
    fn snooze_all(&self, jobs: &[Job], mode: RunMode) -> Result<HashSet<i64>, Error> {
        let mut snoozed = HashSet::new();
        if let Some(delay) = marks::snoozed() {
            for job in jobs {
                if self.snooze(job, mode, delay)? {
                    snoozed.insert(job.id);
                }
            }
        }
        Ok(snoozed)
    }

    /// Records one failure for all jobs of a part, after a call of their handler.
    pub(super) fn fail_part(&self, taken: &TakenJobs, part: Part, failure: &FailedAttempt) -> Result<(), Error> {
        xact::begin_for_queue();
        let locked;
        let (jobs, mode) = match part {
            Part::InPlace(hints) => {
                let ids: Vec<i64> = hints.iter().map(|hint| hint.position.id).collect();
                locked = self.arena.within(|| take::lock(&self.take(taken, &ids)))?;
                self.see_what_was_skipped(&ids, &locked, &taken.forbidden_flags)?;
                // The rows that the call had went with its transaction, and its times with them.
                locked.iter().for_each(|job| job.ran(self.latest.get()));
                (&locked[..], RunMode::InPlace)
            }
            Part::Claimed(jobs) => (jobs, RunMode::Claimed),
        };
        let attempt = Attempt { task: &taken.task, mode };
        let failed =
            jobs.iter().map(|job| self.record_failure(job, &attempt, failure)).collect::<Result<Vec<_>, Error>>()?;
        xact::commit()?;
        failed.into_iter().for_each(Failed::tell);
        Ok(())
    }

    fn call_for(&self, jobs: &[Job], handler: &Handler, taken: &TakenJobs) -> Result<(), Error> {
        let [first, ..] = jobs else { return Ok(()) };
        self.me.run(first.id);
        let (name, task) = (&taken.task.handler, &taken.task.identifier);
        background::report_running(&format!("select {name} /* {} jobs, task {task} */", jobs.len()));
        let _many = ManyJobs::begin(jobs.iter().map(|job| job.id).collect());
        let clock = Clock::start();
        let result =
            self.call(&taken.task, handler, || handler.prepare(taken.task.keep == Keep::All)?.call_for_all(jobs));
        self.ran(jobs, &clock);
        result
    }
}

impl<'a> Part<'a> {
    /// Returns its second half and its first, as the latter is to run first.
    fn halves(self) -> [Part<'a>; 2] {
        match self {
            Part::InPlace(hints) => {
                let (first, second) = hints.split_at(hints.len() / 2);
                [Part::InPlace(second), Part::InPlace(first)]
            }
            Part::Claimed(jobs) => {
                let (first, second) = jobs.split_at(jobs.len() / 2);
                [Part::Claimed(second), Part::Claimed(first)]
            }
        }
    }

    /// Returns what follows the job at a place, that job, and what precedes it: the last is to run first.
    fn around(self, at: usize) -> [Part<'a>; 3] {
        match self {
            Part::InPlace(hints) => [&hints[at + 1..], &hints[at..=at], &hints[..at]].map(Part::InPlace),
            Part::Claimed(jobs) => [&jobs[at + 1..], &jobs[at..=at], &jobs[..at]].map(Part::Claimed),
        }
    }

    fn ids(&self) -> Vec<i64> {
        match self {
            Part::InPlace(hints) => hints.iter().map(|hint| hint.position.id).collect(),
            Part::Claimed(jobs) => jobs.iter().map(|job| job.id).collect(),
        }
    }
}
