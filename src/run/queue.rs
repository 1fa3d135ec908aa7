//! Going on: the transaction that completes a claimed job also claims the one that the worker would take next anyway.
//! So each job costs one commit.
//!
//! - After a job of a queue, that is the queue's next job. The queue's lock is written once for many. For a moment, a worker
//!   goes on so although a few jobs of other queues, of the same priority, come first: to release one queue and lock another
//!   for each job would take about as long as the job. If the worker does not go on, the queue is released with its job, as external
//!   workers release it, and its next job goes to the ready list.
//! - Otherwise, it is the first on the ready list, if that is to be claimed: a job, or the next one of a queue.
//!
//! As long as jobs are done in a moment, the next one of a queue is not claimed either: it runs in place, while the queue's lock
//! keeps it, and those behind it, from others. Behind one that takes long, the next is claimed: it may take as long, so the table is
//! to say that it runs, and nobody is to wait for the lock on its row.

use super::{Attempt, RunMode, Runner, TakenJobs, addresses};
use crate::error::Error;
use crate::jobs::queue_search::NextJob;
use crate::jobs::take::{self, Following, Next, TakeRequest};
use crate::jobs::{complete, queues};
use crate::pg::args::Text;
use crate::pg::clock::Timestamp;
use crate::pg::heap::RowAddress;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::pg::{background, clock, fault, latch, xact};
use crate::schema;
use crate::schema::job_row::Job;
use crate::settings;
use crate::shared::ready_list::{Hint, Kind, NO_KEY, NO_ROW};
use crate::shared::{self, DatabaseEntry, State, TakenRange, crash_records};
use crate::tasks::registry::{self, Task, Tasks};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// For how long a worker may go on with the jobs of a queue although those of other queues come first.
const TURN: Duration = Duration::from_millis(20);

/// The job after one that took longer is claimed.
const QUICK: Duration = Duration::from_millis(20);

/// Claimed jobs that a worker runs one after the other, and jobs of a queue that it runs in place after a claimed one.
pub(super) struct ClaimedRun {
    forbidden_flags: Vec<DbText>,
    /// The next job.
    next: Option<NextOfRun>,
    /// The queue of the next job, if that is to run in place.
    queue: DbText,
    /// What stood for it on the ready list, if it was taken off for that.
    taken_off: Option<Hint>,
    /// When the latest job was claimed before which no other came.
    in_order: Instant,
}

impl ClaimedRun {
    pub(super) fn new(forbidden_flags: &[DbText]) -> ClaimedRun {
        ClaimedRun {
            forbidden_flags: forbidden_flags.to_vec(),
            next: None,
            queue: DbText::default(),
            taken_off: None,
            in_order: Instant::now(),
        }
    }
}

/// The job that a worker goes on with.
struct NextOfRun {
    held: Held,
    task: Rc<Task>,
    hint: Hint,
}

/// How it is held.
enum Held {
    Claimed(Job),
    /// By the lock of its queue alone: it is to run in place. Its row may be at this address.
    ByQueue(Option<RowAddress>),
}

impl NextOfRun {
    fn claimed(job: Job, task: Rc<Task>) -> NextOfRun {
        let hint = claimed_hint(&job, &task);
        NextOfRun { held: Held::Claimed(job), task, hint }
    }
}

impl Runner {
    /// Runs a claimed job, whose queue this worker has locked if it is in one, and goes on.
    pub(super) fn run_claimed(&mut self, job: Job, task: Rc<Task>, mut run: ClaimedRun) -> Result<(), Error> {
        let id = job.id;
        let mut current = Some((Held::Claimed(job), task, id));
        while let Some((held, task, id)) = current.take() {
            self.begin();
            let (job, mode) = match held {
                Held::Claimed(job) => (job, RunMode::Claimed),
                Held::ByQueue(address) => match self.take_in_queue(id, address, &task, &run)? {
                    Some(job) => (job, RunMode::InPlace),
                    None => return Ok(()),
                },
            };
            let attempt = Attempt { task: &task, mode };
            let is_completed = self.attempt(&job, &attempt, Some(&mut run))?;
            let (next, taken_off) = (run.next.take(), run.taken_off.take());
            if !is_completed {
                // With the claim rolled back, that job is as it was.
                taken_off.into_iter().for_each(|hint| self.offer(hint));
            } else if let Some(NextOfRun { held, task, hint }) = next {
                fault::point(if matches!(held, Held::Claimed(_)) { "claimed" } else { "went_on" })?;
                // The row of the job that is completed goes, and that of the next one stays.
                self.arena.empty();
                std::mem::swap(&mut self.arena, &mut self.spare_arena);
                self.hold_for(&[hint], &task);
                self.jobs_run.set(self.jobs_run.get() + 1);
                self.me.enter(State::Running);
                background::report_statistics(false);
                current = Some((held, task, hint.position.id));
            }
        }
        Ok(())
    }

    /// Takes a job in place, in the transaction that has begun. If it cannot be taken so any more, releases its queue and
    /// returns `None`: whoever takes the queue's next job then claims it.
    fn take_in_queue(
        &self,
        id: i64,
        address: Option<RowAddress>,
        task: &Task,
        run: &ClaimedRun,
    ) -> Result<Option<Job>, Error> {
        let ids = [id];
        let take = TakeRequest::new(&ids, &task.identifier, &run.forbidden_flags);
        match self.arena.within(|| take::delete_in_queue(&take, address, &run.queue)) {
            Ok(Some(job)) => return Ok(Some(job)),
            Ok(None) => (),
            Err(_) => {
                xact::abort();
                xact::begin_for_queue();
            }
        }
        xact::allow_writes();
        xact::wait_for_locks();
        queues::release(text(&run.queue), self.worker_id())?;
        xact::commit()?;
        Ok(None)
    }

    /// Completes a job that has run in place in a queue that this worker has locked: its row is deleted already. Goes on with
    /// the next one if there is a run.
    pub(super) fn complete_in_queue(
        &self,
        job: &Job,
        attempt: &Attempt,
        run: Option<&mut ClaimedRun>,
    ) -> Result<complete::Found, Error> {
        let is_held = match run {
            Some(run) => self.go_on_in_queue(job, attempt, run)?,
            None => {
                let is_held = self.holds_queue(job.queue_name())?;
                queues::release(job.queue_name(), self.worker_id())?;
                is_held
            }
        };
        Ok(if is_held { complete::Found::Held } else { complete::Found::Lost })
    }

    /// Returns true if this worker has a queue locked.
    pub(super) fn holds_queue(&self, queue_name: Value) -> Result<bool, Error> {
        queues::is_held_by(queue_name, self.worker_id())
    }

    /// Completes a claimed job. Claims the next one if there is a run, and the worker is to go on with it.
    pub(super) fn complete_claimed(
        &self,
        job: &Job,
        attempt: &Attempt,
        run: Option<&mut ClaimedRun>,
    ) -> Result<complete::Found, Error> {
        let Some(run) = run else { return complete::complete_one_held(job, self.worker_id()) };
        if job.queue_name().is_some() && complete::complete_and_keep_queue(job, self.worker_id())? {
            // The job was this worker's, whoever has taken the queue.
            self.go_on_in_queue(job, attempt, run)?;
            return Ok(complete::Found::Held);
        }
        let found = complete::complete_one_held(job, self.worker_id())?;
        if matches!(found, complete::Found::Held) {
            self.claim_from_list(job, attempt, run)?;
        }
        Ok(found)
    }

    /// Returns true if nothing asks the worker to look around before its next job.
    pub(super) fn may_go_on(&self) -> Result<bool, Error> {
        Ok(xact::is_read_committed()
            && schema::queue()?.is_0_3
            && !latch::stop_asked()
            && !latch::is_reload_asked()
            && !self.me.is_to_end()
            && !self.is_spent()
            // The scheduler is told that the job has ended once the worker does not go on.
            && !shared::board().is_some_and(|board| board.cancels().has_any())
            && settings::forbidden_flags_function().is_none()
            && !self.entry().is_some_and(DatabaseEntry::is_held))
    }

    /// Goes on with the job that comes next in the queue of a completed job, or releases the queue and goes on with what is first
    /// on the ready list. Returns false if the worker no longer held the queue.
    fn go_on_in_queue(&self, job: &Job, attempt: &Attempt, run: &mut ClaimedRun) -> Result<bool, Error> {
        match self.claim_following(job, attempt, run)? {
            Following::Claimed(next, task) => run.next = Some(NextOfRun::claimed(next, task)),
            Following::InPlace(next) => {
                let name = job.queue_name().map(Text::new).filter(|name| !name.is(&run.queue));
                if let Some(name) = name {
                    run.queue = name.read();
                }
                run.next = Some(NextOfRun { held: Held::ByQueue(next.address), task: next.task, hint: next.hint });
            }
            following => {
                self.claim_from_list(job, attempt, run)?;
                return Ok(!matches!(following, Following::Lost));
            }
        }
        Ok(true)
    }

    /// Claims the job that comes next in the queue of a completed job, unless it is to run in place, or releases the queue.
    fn claim_following(&self, job: &Job, attempt: &Attempt, run: &ClaimedRun) -> Result<Following, Error> {
        let tasks = registry::tasks()?;
        self.spare_arena.within(|| {
            let may_go_on = |next: &NextJob| {
                let position = next.hint.position;
                let goes_on = self.may_follow(next)
                    // Others may wait for the room that this one gives back.
                    && attempt.task.limits.is_empty()
                    && self.list.with(|ready| ready.goes_on_at(position, run.in_order.elapsed() < TURN));
                if goes_on {
                    self.hold_with_next(job, attempt, &[next.hint], &next.task);
                }
                goes_on
            };
            let (queue_name, flags) = (job.queue_name(), &run.forbidden_flags);
            let is_in_place = |next: &NextJob| self.runs_in_place(job, next);
            take::claim_following(queue_name, self.worker_id(), &tasks, flags, may_go_on, is_in_place)
        })
    }

    /// Returns true if a worker runs the next job of a queue in place, if it can be, after this one.
    fn runs_in_place(&self, job: &Job, next: &NextJob) -> bool {
        let took = clock::now() - job.times().began_at;
        took < QUICK.as_micros() as Timestamp && next.task.limits.is_empty() && self.is_in_place(&next.task)
    }

    /// Returns true if a worker may go on with the next job of a queue.
    fn may_follow(&self, next: &NextJob) -> bool {
        next.task.role == self.role
            && next.task.limits.is_empty()
            && !crash_records::is_charged(self.database, next.hint.position.id)
    }

    /// Publishes that one of some jobs is about to be claimed in the transaction that completes another. Before the commit:
    /// one of the two is to be released if the process ends.
    fn hold_with_next(&self, job: &Job, attempt: &Attempt, next: &[Hint], task: &Task) {
        let completed = claimed_hint(job, attempt.task);
        self.me.hold(TakenRange::of(&[&[completed], next].concat()), &task.identifier);
        // A cancel of the next job must not interrupt this transaction.
        self.me.run(job.id);
    }

    /// Takes the first job off the ready list after a completed one, and claims it, or the next one of its queue.
    fn claim_from_list(&self, job: &Job, attempt: &Attempt, run: &mut ClaimedRun) -> Result<(), Error> {
        let tasks = registry::tasks()?;
        // Others may wait for the room that the completed job gives back.
        if !attempt.task.limits.is_empty() || !tasks.pauses.is_empty() {
            return Ok(());
        }
        let task_of = |hint: &Hint| tasks.tagged(self.role, hint.task);
        let goes_on = |hint: &Hint| {
            let is_claimed = |task: &Rc<Task>| {
                task.max_batch == 1 && task.limits.is_empty() && (hint.kind == Kind::Claimed || !task.in_place)
            };
            (hint.kind == Kind::Queued || task_of(hint).is_some_and(is_claimed))
                && !crash_records::is_charged(self.database, hint.position.id)
        };
        let Some(hint) = self.list.with(|ready| ready.take_first_if(goes_on)) else { return Ok(()) };
        (run.taken_off, run.in_order) = (Some(hint), Instant::now());
        // From here on, it is looked for if this process ends.
        self.hold_with_next(job, attempt, &[hint], task_of(&hint).map_or(attempt.task, Rc::as_ref));
        let next = if hint.kind == Kind::Queued {
            self.claim_next_of(hint, job, attempt, run, &tasks)?
        } else if let Some(task) = task_of(&hint).cloned() {
            let taken = TakenJobs { hints: vec![hint], task, forbidden_flags: run.forbidden_flags.clone() };
            let ids = taken.ids();
            let take = self.take(&taken, &ids);
            let mut jobs =
                self.spare_arena.within(|| take::claim(&take, &addresses(&taken.hints), self.worker_id()))?;
            self.see_what_was_skipped(&ids, &jobs, &run.forbidden_flags)?;
            jobs.pop().map(|next| NextOfRun::claimed(next, taken.task))
        } else {
            None
        };
        run.next = next;
        Ok(())
    }

    /// Locks the queue that a job on the ready list is in, and claims its next job.
    fn claim_next_of(
        &self,
        hint: Hint,
        job: &Job,
        attempt: &Attempt,
        run: &mut ClaimedRun,
        tasks: &Tasks,
    ) -> Result<Option<NextOfRun>, Error> {
        let next = self.spare_arena.within(|| {
            let is_ours = |next: &NextJob| {
                let goes_on = self.may_follow(next);
                if goes_on {
                    self.hold_with_next(job, attempt, &[hint, next.hint], &next.task);
                }
                goes_on
            };
            let (id, flags) = (hint.position.id, &run.forbidden_flags);
            take::claim_next(id, self.worker_id(), tasks, flags, is_ours, |next| self.runs_in_place(job, next))
        })?;
        Ok(match next {
            Next::Taken(next, task) => Some(NextOfRun::claimed(next, task)),
            Next::InPlace(next, queue) => {
                run.queue = queue;
                Some(NextOfRun { held: Held::ByQueue(next.address), task: next.task, hint: next.hint })
            }
            other => {
                self.leave_queue(other, hint.position.id);
                None
            }
        })
    }
}

/// Returns what stands for a claimed job. To be called within a transaction, as it reads the job's row.
fn claimed_hint(job: &Job, task: &Task) -> Hint {
    let kind = if job.queue_name().is_some() { Kind::Queued } else { Kind::Claimed };
    Hint { position: job.position(), key: NO_KEY, row: NO_ROW, task: task.tag, kind }
}
