//! A set: many jobs in one call of their handler. If the call raises, the set is halved until the jobs at fault are
//! alone. Those have failed, and the others complete. If the call is cancelled, all of them have failed.

use super::{Attempt, Failed, Outcome, RunMode, Runner, TakenJobs};
use crate::error::Error;
use crate::jobs::{complete, take};
use crate::pg::catch::Raise;
use crate::pg::{background, xact};
use crate::schema::job_row::Job;
use crate::shared::ready_list::Hint;
use crate::tasks::handler::Handler;

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
                _ => match self.attempt_part(taken, part) {
                    Ok(Outcome::Completed) => (),
                    Ok(Outcome::NotOurs) => {
                        xact::abort();
                        let left = parts.iter().chain([&part]).flat_map(Part::claimed).collect::<Vec<_>>();
                        return self.release(&left);
                    }
                    // A cancel concerns all of them.
                    Err(error) if Runner::was_cancelled(&error) => {
                        let error = error.read();
                        xact::abort();
                        self.fail_part(taken, part, &error)?;
                    }
                    Ok(Outcome::LockLost | Outcome::NeedsClaim) | Err(_) => {
                        xact::abort();
                        let (first, second) = part.halves();
                        parts.extend([second, first]);
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
        let Some(handler) = self.handler(&taken.task)? else { return Ok(Outcome::NotOurs) };
        match part {
            Part::InPlace(hints) => {
                let ids: Vec<i64> = hints.iter().map(|hint| hint.position.id).collect();
                self.call_for(&self.delete(taken, &ids)?, &handler, taken)?;
            }
            Part::Claimed(jobs) => {
                self.call_for(jobs, &handler, taken)?;
                xact::allow_writes();
                xact::wait_for_locks();
                // Only now: a session that adds a job with the key of one of them would wait.
                if !complete::complete_held(jobs.iter().map(|job| job.id).collect(), self.worker_id())? {
                    return Ok(Outcome::LockLost);
                }
            }
        }
        self.commit()?;
        Ok(Outcome::Completed)
    }

    /// Records one error for all jobs of a part.
    pub(super) fn fail_part(&self, taken: &TakenJobs, part: Part, error: &Raise) -> Result<(), Error> {
        xact::begin_for_queue();
        let locked;
        let (jobs, mode) = match part {
            Part::InPlace(hints) => {
                let ids: Vec<i64> = hints.iter().map(|hint| hint.position.id).collect();
                locked = self.arena.within(|| take::lock(&self.take(taken, &ids)))?;
                (&locked[..], RunMode::InPlace)
            }
            Part::Claimed(jobs) => (jobs, RunMode::Claimed),
        };
        let attempt = Attempt { task: &taken.task, mode };
        let failed =
            jobs.iter().map(|job| self.record_failure(job, &attempt, error)).collect::<Result<Vec<_>, Error>>()?;
        xact::commit()?;
        failed.into_iter().for_each(Failed::log);
        Ok(())
    }

    fn call_for(&self, jobs: &[Job], handler: &Handler, taken: &TakenJobs) -> Result<(), Error> {
        let [first, ..] = jobs else { return Ok(()) };
        self.me.run(first.id);
        let (name, task) = (&taken.task.handler, &taken.task.identifier);
        background::report_running(&format!("select {name} /* {} jobs, task {task} */", jobs.len()));
        self.call(&taken.task, handler, || handler.prepare()?.call_for_all(jobs))
    }
}

impl<'a> Part<'a> {
    fn halves(self) -> (Part<'a>, Part<'a>) {
        match self {
            Part::InPlace(hints) => {
                let (first, second) = hints.split_at(hints.len() / 2);
                (Part::InPlace(first), Part::InPlace(second))
            }
            Part::Claimed(jobs) => {
                let (first, second) = jobs.split_at(jobs.len() / 2);
                (Part::Claimed(first), Part::Claimed(second))
            }
        }
    }

    /// Returns the ids of the jobs, if they are claimed.
    fn claimed(&self) -> Vec<i64> {
        match self {
            Part::InPlace(_) => Vec::new(),
            Part::Claimed(jobs) => jobs.iter().map(|job| job.id).collect(),
        }
    }
}
