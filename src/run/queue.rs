//! Working a queue down: the transaction that completes a job of a queue also claims the queue's next job, if that is
//! what the worker would take next anyway. So each job costs one commit, the queue's lock is written once for many.
//!
//! Otherwise the queue is released with its job, as external workers release it, and its next job goes to the ready
//! list.

use super::{Attempt, RunMode, Runner};
use crate::error::Error;
use crate::jobs::{complete, queues, take};
use crate::pg::text::DbText;
use crate::pg::{background, fault, latch, xact};
use crate::schema;
use crate::schema::job_row::Job;
use crate::settings;
use crate::shared::ready_list::{Hint, Kind};
use crate::shared::{self, DatabaseEntry, State, TakenRange, crash_records};
use crate::tasks::registry::{self, Task};
use std::rc::Rc;

/// A queue that a worker works down.
pub(super) struct QueueRun {
    forbidden_flags: Vec<DbText>,
    /// The queue's next job, which the current transaction has claimed.
    next: Option<(Job, Rc<Task>, Hint)>,
}

impl QueueRun {
    pub(super) fn new(forbidden_flags: &[DbText]) -> QueueRun {
        QueueRun { forbidden_flags: forbidden_flags.to_vec(), next: None }
    }
}

impl Runner {
    /// Runs a job whose queue this worker has locked, and goes on with the queue's next jobs.
    pub(super) fn work_down(&mut self, job: Job, task: Rc<Task>, mut run: QueueRun) -> Result<(), Error> {
        let mut current = Some((job, task));
        while let Some((job, task)) = current.take() {
            self.begin();
            let attempt = Attempt { task: &task, mode: RunMode::Claimed };
            let is_completed = self.attempt(&job, &attempt, Some(&mut run))?;
            if let Some((next, task, hint)) = run.next.take().filter(|_| is_completed) {
                fault::point("claimed")?;
                // The row of the job that is completed goes, and that of the next one stays.
                self.arena.empty();
                std::mem::swap(&mut self.arena, &mut self.spare_arena);
                self.hold_for(&[hint], &task);
                self.me.enter(State::Running);
                background::report_statistics(false);
                current = Some((next, task));
            }
        }
        Ok(())
    }

    /// Completes a claimed job, and claims the next one of its queue if the worker is to go on with it.
    pub(super) fn complete_claimed(
        &self,
        job: &Job,
        attempt: &Attempt,
        run: Option<&mut QueueRun>,
    ) -> Result<complete::Found, Error> {
        if let Some(run) = run
            && self.may_go_on()?
            && complete::complete_and_keep_queue(job, self.worker_id())?
        {
            run.next = self.claim_following(job, attempt, run)?;
            if run.next.is_none() {
                queues::release(job.queue_name(), self.worker_id())?;
            }
            return Ok(complete::Found::Held);
        }
        complete::complete_one_held(job, self.worker_id())
    }

    /// Returns true if nothing asks the worker to look around before its next job.
    fn may_go_on(&self) -> Result<bool, Error> {
        let is_held =
            || shared::board().and_then(|board| board.database(self.database)).is_some_and(DatabaseEntry::is_held);
        Ok(xact::is_read_committed()
            && schema::queue()?.is_0_3
            && !latch::stop_asked()
            && !latch::is_reload_asked()
            && !self.me.is_to_end()
            && !self.is_spent()
            && settings::forbidden_flags_function().is_none()
            && !is_held())
    }

    /// Claims the job that comes next in the queue of a completed job.
    fn claim_following(
        &self,
        job: &Job,
        attempt: &Attempt,
        run: &QueueRun,
    ) -> Result<Option<(Job, Rc<Task>, Hint)>, Error> {
        let tasks = registry::tasks()?;
        self.jobs_run.set(self.jobs_run.get() + 1);
        let next = self.spare_arena.within(|| {
            take::claim_following(job.queue_name(), self.worker_id(), &tasks, &run.forbidden_flags, |next| {
                let position = next.hint.position;
                let goes_on = next.task.role == self.role
                    // Others may wait for the room that this one gives back.
                    && attempt.task.limits.is_empty()
                    && next.task.limits.is_empty()
                    && !crash_records::is_charged(self.database, position.id)
                    && self.list.with(|ready| ready.goes_on_at(position));
                if goes_on {
                    // Before the commit: one of the two is to be released if the process ends.
                    let completed = Hint { position: job.position(), task: attempt.task.tag, kind: Kind::Queued };
                    self.me.hold(TakenRange::of(&[completed, next.hint]), &next.task.identifier);
                    // A cancel of the next job must not interrupt this transaction.
                    self.me.run(job.id);
                }
                goes_on
            })
        })?;
        Ok(next.map(|(next, task)| {
            let hint = Hint { position: next.position(), task: task.tag, kind: Kind::Queued };
            (next, task, hint)
        }))
    }
}
