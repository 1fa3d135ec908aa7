//! Working a queue down: the transaction that completes a job of a queue also claims the queue's next job, if that is
//! what the worker would take next anyway. So each job costs one commit, the queue's lock is written once for many, and
//! the index of queues is read from the latest job on (see `src/shared/queue_floor.rs`).
//!
//! Otherwise the queue is released with its job, as external workers release it, and its next job goes to the ready
//! list.

use super::{Attempt, RunMode, Runner};
use crate::error::Error;
use crate::jobs::{complete, queues, search, take};
use crate::pg::clock::{self, Timestamp};
use crate::pg::text::DbText;
use crate::pg::{background, fault, latch, xact};
use crate::schema;
use crate::schema::job_row::Job;
use crate::settings;
use crate::shared::ready_list::{Hint, Kind, Position};
use crate::shared::{self, DatabaseEntry, State, TakenRange, crash_records};
use crate::signals::commit_notes;
use crate::tasks::registry::{self, Task, Tasks};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// What a worker knows of the queue that it works down.
pub(super) struct QueueRun {
    /// The hash of its name.
    queue: u64,
    forbidden_flags: Vec<DbText>,
    /// No job that can run stands before this position.
    floor: Position,
    /// When a job falls due that stands before it.
    due: Timestamp,
    /// When the worker has last looked at the whole queue, and with which tasks.
    looked: Option<(Instant, Rc<Tasks>)>,
    /// The queue's next job, which the current transaction has claimed.
    next: Option<(Job, Rc<Task>, Hint)>,
}

impl QueueRun {
    /// Begins with a job of the queue. To be called within a transaction.
    pub(super) fn of(job: &Job, forbidden_flags: &[DbText]) -> QueueRun {
        QueueRun {
            queue: job.queue_name().map_or(0, queues::hash),
            forbidden_flags: forbidden_flags.to_vec(),
            floor: Position::START,
            due: Timestamp::MIN,
            looked: None,
            next: None,
        }
    }

    /// Returns the position to look from.
    fn from(&self, lowered: Position, tasks: &Rc<Tasks>) -> Position {
        let is_known = self
            .looked
            .as_ref()
            .is_some_and(|(at, with)| Rc::ptr_eq(with, tasks) && at.elapsed() < settings::poll_interval());
        if is_known && lowered >= self.floor && clock::now() < self.due { self.floor } else { Position::START }
    }
}

impl Runner {
    /// Runs a job whose queue this worker has locked, and goes on with the queue's next jobs.
    pub(super) fn work_down(&mut self, job: Job, task: Rc<Task>, mut run: QueueRun) -> Result<(), Error> {
        self.me.queue_floor.begin(run.queue);
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
        self.me.queue_floor.end();
        Ok(())
    }

    /// Completes a claimed job, and claims the next one of its queue if the worker is to go on with it. Returns false if
    /// the worker does not hold the job any more.
    pub(super) fn complete_claimed(
        &self,
        job: &Job,
        attempt: &Attempt,
        run: Option<&mut QueueRun>,
    ) -> Result<bool, Error> {
        if let Some(run) = run
            && self.may_go_on()?
            && complete::complete_and_keep_queue(job, self.worker_id())?
        {
            run.next = self.claim_following(job, attempt, run)?;
            if run.next.is_none() {
                queues::release(job.queue_name(), self.worker_id())?;
            }
            return Ok(true);
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
            && !self.me.must_leave.load(SeqCst)
            && settings::forbidden_flags_function().is_none()
            && !is_held())
    }

    /// Claims the job that comes next in the queue of a completed job.
    fn claim_following(
        &self,
        job: &Job,
        attempt: &Attempt,
        run: &mut QueueRun,
    ) -> Result<Option<(Job, Rc<Task>, Hint)>, Error> {
        let Some(board) = shared::board() else { return Ok(None) };
        let tasks = registry::tasks()?;
        // Before the snapshot of the look.
        let lowered = board.take_lowered(self.me).min(commit_notes::lowest_noted(run.queue));
        let from = run.from(lowered, &tasks);
        if from == Position::START {
            run.looked = Some((Instant::now(), tasks.clone()));
        }
        let queue_name = job.queue_name();
        let now = clock::now();
        let next = self.spare_arena.within(|| {
            take::claim_following(queue_name, self.worker_id(), &tasks, &run.forbidden_flags, from, |next| {
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
        let Some((next, task)) = next else { return Ok(None) };
        run.floor = next.position();
        if from == Position::START || from.priority != run.floor.priority {
            let due = search::due_before(queue_name, run.floor.priority, now)?;
            // A pause that ends lets jobs run that the look has left out.
            run.due = due.unwrap_or(Timestamp::MAX).min(tasks.pauses.next_end(now));
        }
        let hint = Hint { position: run.floor, task: task.tag, kind: Kind::Queued };
        Ok(Some((next, task, hint)))
    }
}
