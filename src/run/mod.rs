//! Running the jobs that a worker has taken off its ready list. In each case the worker takes them, calls the handler,
//! settles them, and commits.
//!
//! ```text
//!                      ┌─ in place ─► begin ─► delete ────────────────► handler ─────────────► commit
//!  single (single.rs) ─┤
//!                      └─ claimed ──► begin ─► claim ─► commit ─► begin ─► handler ─► delete ──► commit
//!
//!  procedure ─────────── claimed ──► begin ─► claim ─► commit ─► begin ─► CALL, which ─► delete ─► commit
//!   (procedure.rs)                                                        may COMMIT
//!
//!                      ┌─ in place ─► begin ─► (delete ─► handler) × n ──────────────► commit
//!  batch (batch.rs,  ──┤   after a failure: lock ─► handler × n, each in a subtransaction ─► delete
//!   unguarded.rs)      └─ claimed ──► begin ─► claim ─► commit ─► begin ─► handler × n ─► delete ─► commit
//!
//!                      ┌─ in place ─► begin ─► delete ────────────────► handler, once ───────► commit
//!  set (set.rs) ───────┤
//!                      └─ claimed ──► begin ─► claim ─► commit ─► begin ─► handler, once ─► delete ─► commit
//! ```
//!
//! Jobs run in place leave no trace in the table: their row locks stand for the claim, and vanish with the worker. Jobs
//! that have a key are claimed, so that a session that adds one with the same key need not wait for the handler. So are
//! jobs that were tried before, and the job of a queue with which a worker locks the queue. Once it has completed that,
//! it may go on with the queue's next ones, which run in place as long as they are done in a moment (queue.rs). If the
//! role or the database has another default isolation level than READ COMMITTED, or read-only transactions, all jobs are
//! claimed, as the queue's own statements need
//! neither.

pub mod marks;
pub mod limits;
mod single;
mod queue;
mod procedure;
mod unguarded;
mod batch;
mod set;

pub use batch::MOST as LARGEST_BATCH;
pub use set::{MOST as LARGEST_SET, USUAL as USUAL_SET};

use self::marks::AfterFailure;
use crate::error::{Error, headline, last_error};
use crate::holds::subscription;
use crate::jobs::runs::{self, Ended};
use crate::jobs::take::{self, TakeRequest};
use crate::jobs::{fail, postpone, queues, recover};
use crate::pg::catch::{Level, PgError, Raise, is_logged, log, log_with};
use crate::pg::clock::{NEVER, Tick, Timestamp};
use crate::pg::heap::RowAddress;
use crate::pg::memory::Arena;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::pg::{background, clock, dblink, fault, latch, libraries, python, session, xact};
use crate::schema;
use crate::schema::job_row::{Job, Times};
use crate::settings;
use crate::shared::counters::{self, Account, TaskCounters};
use crate::shared::crash_records::CrashRecord;
use crate::shared::ready_list::{Hint, Kind, NO_KEY};
use crate::shared::{self, DatabaseEntry, SharedReadyList, State, TakenRange, Worker};
use crate::tasks::handler::Handler;
use crate::tasks::registry::{self, Keep, Task};
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Runs the jobs of one worker.
pub struct Runner {
    pub me: &'static Worker,
    pub crash_record: Option<&'static CrashRecord>,
    pub database: Oid,
    pub role: Oid,
    /// The worker's id, as in `locked_by`.
    pub id: DbText,
    /// The memory of the rows of running jobs, and of messages about them.
    pub arena: Arena,
    /// The memory of the row of a queue's next job, while the former one is completed.
    pub spare_arena: Arena,
    /// The ready list of the role.
    pub list: &'static SharedReadyList,
    /// The tasks, by their tags, whose last batch in place did not finish in one go, and since when.
    pub recently_failed: HashMap<u32, Instant>,
    /// When the first of the jobs of this run that have failed is due again; `NEVER` if none has.
    pub due_again: Cell<Timestamp>,
    /// True if the latest call took longer than its task allows.
    pub timed_out: Cell<bool>,
    /// How the latest call went.
    pub latest: Cell<Times>,
    /// How many jobs it has taken to run.
    pub jobs_run: Cell<u64>,
    /// What it has been granted under limits.
    pub room: limits::Room,
}

/// Returns where the rows of jobs were, as far as that is known.
fn addresses(hints: &[Hint]) -> Vec<Option<RowAddress>> {
    hints.iter().map(|hint| RowAddress::of_number(hint.row)).collect()
}

/// Measures an attempt.
struct Clock {
    began_at: Timestamp,
    begun: Tick,
}

impl Clock {
    fn start() -> Clock {
        Clock { began_at: clock::now(), begun: clock::tick() }
    }
}

/// The way in which jobs are held while they run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunMode {
    /// By the transaction that has deleted their rows. One in a queue is in the way of nobody else's, as the worker has locked
    /// the queue.
    InPlace,
    Claimed,
}

/// Jobs of one task that a worker has taken off its ready list.
pub struct TakenJobs {
    pub hints: Vec<Hint>,
    pub task: Rc<Task>,
    pub forbidden_flags: Vec<DbText>,
}

impl TakenJobs {
    /// Returns the jobs whose ids match.
    fn those(&self, which: impl Fn(i64) -> bool) -> TakenJobs {
        let hints = self.hints.iter().filter(|hint| which(hint.position.id)).copied().collect();
        self.with(hints)
    }

    /// Returns other jobs of the same task.
    fn with(&self, hints: Vec<Hint>) -> TakenJobs {
        TakenJobs { hints, task: self.task.clone(), forbidden_flags: self.forbidden_flags.clone() }
    }

    fn ids(&self) -> Vec<i64> {
        self.hints.iter().map(|hint| hint.position.id).collect()
    }
}

/// The task and mode of an attempt.
struct Attempt<'a> {
    task: &'a Task,
    mode: RunMode,
}

impl Attempt<'_> {
    /// Returns true if the worker holds the queue of a job, rather than the job: the end of the attempt is to release it.
    fn holds_queue_of(&self, job: &Job) -> bool {
        self.mode == RunMode::InPlace && job.is_in_queue
    }
}

/// The end of an attempt that raised no error.
enum Outcome {
    Completed,
    /// The handler has asked for its job to be due again later.
    Snoozed,
    /// A session has cancelled one of the jobs. Nothing was committed.
    Cancelled,
    /// Another session has one of its jobs. Nothing was committed.
    LockLost,
    /// The task was unregistered or paused, or another role has taken it over.
    NotOurs,
    /// Its handler is a procedure now, whose jobs are claimed first.
    NeedsClaim,
}

impl Runner {
    /// Runs jobs. Returns those that did not begin in time and must be put back.
    pub fn run(&mut self, taken: &TakenJobs) -> Result<Vec<Hint>, Error> {
        self.arena.empty();
        self.due_again.set(NEVER);
        self.spare_arena.empty();
        self.me.renewed.store(clock::tick(), SeqCst);
        self.hold_for(&taken.hints, &taken.task);
        self.me.enter(State::Running);
        self.jobs_run.set(self.jobs_run.get() + taken.hints.len() as u64);
        let left = self.dispatch(taken)?;
        fault::point("settled")?;
        background::report_idle();
        background::report_statistics(false);
        self.me.let_go();
        self.tell_of_what_is_due_again();
        if let Some(record) = self.crash_record {
            record.clear();
        }
        self.me.enter(State::Looking);
        self.tell_of_end();
        Ok(left)
    }

    /// Returns true if it has run as many jobs as a worker may.
    pub fn is_spent(&self) -> bool {
        settings::worker_max_jobs().is_some_and(|most| self.jobs_run.get() >= most)
    }

    /// Has the scheduler look again for jobs that have failed and are due already: it leaves out jobs that a worker
    /// holds, and may have looked before this worker let go of them.
    fn tell_of_what_is_due_again(&self) {
        let due = self.due_again.get();
        if due != NEVER
            && due <= clock::now()
            && let Some(entry) = self.entry()
        {
            entry.next_due.lower(due);
            entry.scheduler.set();
        }
    }

    /// Wakes the scheduler if a job is to be cancelled that this worker may have had.
    fn tell_of_end(&self) {
        if let Some(board) = shared::board()
            && board.cancels().has_any()
            && let Some(entry) = board.database(self.database)
        {
            entry.scheduler.set();
        }
    }

    fn dispatch(&mut self, taken: &TakenJobs) -> Result<Vec<Hint>, Error> {
        let [first, ..] = taken.hints[..] else { return Ok(Vec::new()) };
        let mode = self.run_mode(taken);
        if first.kind == Kind::Queued {
            self.next_of_queue(taken, first.position.id)?;
        } else if let [_] = taken.hints[..] {
            match mode {
                RunMode::InPlace => self.run_single(taken, mode)?,
                RunMode::Claimed => self.single_claimed(taken)?,
            }
        } else if taken.task.takes_sets() {
            self.set(taken, mode)?;
        } else {
            return self.batch(taken, mode);
        }
        Ok(Vec::new())
    }

    /// Publishes which jobs are about to be taken.
    fn hold_for(&self, hints: &[Hint], task: &Task) {
        let held = TakenRange::of(hints);
        if let Some(record) = self.crash_record {
            record.set(self.database, task.tag, &held, hints.len());
        }
        self.me.hold(held, &task.identifier);
    }

    /// Publishes which of several jobs runs now.
    fn now_runs(&self, job: i64) {
        if let Some(record) = self.crash_record {
            record.run(job);
        }
        self.me.run(job);
    }

    fn run_mode(&self, taken: &TakenJobs) -> RunMode {
        let is_plain = taken.hints.iter().all(|hint| hint.kind == Kind::Plain);
        if is_plain && self.is_in_place(&taken.task) { RunMode::InPlace } else { RunMode::Claimed }
    }

    /// Returns true if plain jobs of a task run in place.
    fn is_in_place(&self, task: &Task) -> bool {
        task.in_place && xact::defaults_are_plain()
    }

    /// Claims jobs and commits the claim.
    fn claim(&self, taken: &TakenJobs) -> Result<Vec<Job>, Error> {
        xact::begin_for_queue();
        // A claim that is lost in a crash does no harm: the jobs are still there.
        xact::commit_lazily();
        let ids = taken.ids();
        let take = self.take(taken, &ids);
        let jobs = self.arena.within(|| take::claim(&take, &addresses(&taken.hints), self.worker_id()))?;
        self.see_what_was_skipped(&ids, &jobs, &taken.forbidden_flags)?;
        fault::point("claiming")?;
        xact::commit()?;
        fault::point("claimed")?;
        Ok(jobs)
    }

    /// Deletes jobs in the current transaction.
    fn delete(&self, taken: &TakenJobs, hints: &[Hint]) -> Result<Vec<Job>, Error> {
        let ids: Vec<i64> = hints.iter().map(|hint| hint.position.id).collect();
        let take = self.take(taken, &ids);
        let jobs = self.arena.within(|| take::delete(&take, &addresses(hints)))?;
        self.offer_changed(taken, take);
        Ok(jobs)
    }

    /// Deletes one job in the current transaction. Returns `None` if it cannot be taken.
    fn delete_one(&self, taken: &TakenJobs, hint: &Hint) -> Result<Option<Job>, Error> {
        let ids = [hint.position.id];
        let take = self.take(taken, &ids);
        let job = self.arena.within(|| take::delete_one(&take, RowAddress::of_number(hint.row)))?;
        self.offer_changed(taken, take);
        Ok(job)
    }

    /// Puts the jobs back on the list that fall under other keys than they were granted room for. Whoever takes them then
    /// looks at their rows first.
    fn offer_changed(&self, taken: &TakenJobs, take: TakeRequest) {
        let changed = take.changed.into_inner();
        if changed.is_empty() {
            return;
        }
        for hint in taken.hints.iter().filter(|hint| changed.contains(&hint.position.id)) {
            self.offer(Hint { key: NO_KEY, ..*hint });
        }
    }

    fn take<'a>(&self, taken: &'a TakenJobs, ids: &'a [i64]) -> TakeRequest<'a> {
        TakeRequest {
            ids,
            task: &taken.task.identifier,
            forbidden_flags: &taken.forbidden_flags,
            granted: self.room.granted(),
            changed: RefCell::default(),
        }
    }

    /// Sees which of the jobs that were to be taken were not, though they can run. To be called in the transaction that has
    /// taken `jobs`.
    fn see_what_was_skipped(&self, ids: &[i64], jobs: &[Job], forbidden_flags: &[DbText]) -> Result<(), Error> {
        if jobs.len() == ids.len() {
            return Ok(());
        }
        let taken: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
        let left: Vec<i64> = ids.iter().copied().filter(|id| !taken.contains(id)).collect();
        take::are_locked(&left, forbidden_flags)?.into_iter().for_each(|job| self.skipped(job));
        Ok(())
    }

    /// Leaves jobs that are not to run now, or not by what is known of their task. A search finds them once they can run: the
    /// one that followed the change may have been made while this worker had them.
    fn leave(&self, ids: &[i64], mode: RunMode) -> Result<(), Error> {
        match mode {
            RunMode::InPlace => ids.iter().for_each(|&job| self.skipped(job)),
            RunMode::Claimed => self.release(ids)?,
        }
        Ok(())
    }

    /// Has a job searched for again soon, mostly as another transaction has it or its queue locked: it may release it
    /// without a report.
    fn skipped(&self, job: i64) {
        if !self.list.with(|ready| ready.skip(job)) {
            self.passed_over();
        } else if let Some(entry) = self.entry()
            && !entry.has_skipped_jobs.swap(true, SeqCst)
        {
            entry.scheduler.set();
        }
    }

    /// Has the whole table searched again soon, for jobs that are noted nowhere.
    fn passed_over(&self) {
        if let Some(entry) = self.entry() {
            entry.has_skipped_rows.store(true, SeqCst);
            entry.scheduler.set();
        }
    }

    fn entry(&self) -> Option<&'static DatabaseEntry> {
        shared::board()?.database(self.database)
    }

    /// Calls a handler in the current transaction, and resets what it changed in its session.
    fn call(&self, task: &Task, handler: &Handler, call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begun = task.timeout.map(|_| Instant::now());
        self.begins();
        python::prepare(handler.is_python());
        // A trigger that fired at the last commit may have terminated this process.
        latch::ended_itself();
        // Cancels are let through until the transaction ends: triggers that fire at commit are user code too.
        latch::let_cancel();
        // A process that was to end before this point might never look again.
        latch::interrupted()?;
        let result = {
            // What a procedure sets stays to its end, over its commits.
            let _settings = (!handler.has_steps()).then(xact::Settings::keep);
            let _impatience = handler.is_python().then(latch::Impatience::begin);
            let _timer = task.timeout.map(latch::Timer::start);
            let _marking = marks::Marking::begin(self.me);
            // An interrupt that the handler was sent but has not served must not hit the next call. And the error that
            // it failed with may be what its language made of an interrupt.
            match call() {
                Err(Error::Postgres(error)) if is_python_s_interrupt(&error) => latch::cancelled().map_err(Error::from),
                result => latch::interrupted().map_err(Error::from).and(result),
            }
        };
        if libraries::were_loaded() {
            python::look_for_it();
            dblink::look_for_it();
        }
        session::forget_what_no_rollback_does();
        dblink::disconnect();
        let ended_itself = latch::ended_itself();
        match result {
            Ok(()) => {
                if handler.has_steps() {
                    xact::end_steps()?;
                    commit_as_set();
                } else {
                    session::forget()?;
                }
                Ok(fault::point("called")?)
            }
            Err(Error::Postgres(error)) if error.read().sqlstate == *b"57014" => Err(match task.timeout {
                _ if ended_itself => Error::EndedItself(error),
                Some(timeout) if begun.is_some_and(|begun| begun.elapsed() >= timeout) => {
                    self.timed_out.set(true);
                    Error::TimedOut(timeout, error)
                }
                _ => Error::Postgres(error),
            }),
            Err(error) => Err(error),
        }
    }

    /// Notes on each of these jobs how their attempt went that was measured so far. Of those that shared one call, each
    /// gets an equal part.
    fn ran(&self, jobs: &[Job], clock: &Clock) {
        let took = clock::since_tick(clock.begun) / u32::try_from(jobs.len()).unwrap_or(u32::MAX).max(1);
        let times = Times { began_at: clock.began_at, took, timed_out: self.timed_out.take() };
        self.latest.set(times);
        jobs.iter().for_each(|job| job.ran(times));
    }

    /// Returns true if a call failed because it was cancelled.
    fn was_cancelled(error: &Error) -> bool {
        matches!(error, Error::Postgres(error) if error.read().sqlstate == *b"57014") && latch::was_cancelled()
    }

    /// Commits the effects of handlers together with the completion of their jobs.
    fn commit(&self) -> Result<(), Error> {
        fault::point("completed")?;
        Ok(xact::commit()?)
    }

    /// Begins the transaction of a handler.
    fn begin(&self) {
        marks::forget();
        xact::begin();
        commit_as_set();
    }

    /// Returns the handler if the task is still as it was when the jobs were taken, the jobs are not paused, and they
    /// are not a publisher's. This transaction has begun after all changes that it sees here were committed, so no job
    /// begins that was paused before.
    fn handler(&self, task: &Task, queue_name: Value) -> Result<Option<Handler>, Error> {
        if subscription::feeds_jobs()?.is_some() {
            return Ok(None);
        }
        let tasks = registry::tasks()?;
        if tasks.paused_until(&task.identifier, queue_name).is_some() {
            return Ok(None);
        }
        // A limit that was set since has not been asked for room.
        let is_as_taken = |now: &&Rc<Task>| now.role == self.role && now.limits == task.limits;
        let now = tasks.get(&task.identifier).filter(is_as_taken);
        now.map(|now| Handler::find(&now.handler)).transpose()
    }

    fn report(&self, statement: impl Display, job: &Job, task: &DbText) {
        let attempts = job.attempts();
        background::report_running(&format!("{statement} /* job {}, task {task}, attempt {attempts} */", job.id));
    }

    /// Writes the rows of jobs that end with the current transaction, if their task keeps them.
    fn keep<'j>(&self, task: &Task, jobs: impl Iterator<Item = (&'j Job, Ended)>) -> Result<(), Error> {
        if task.keep == Keep::None {
            return Ok(());
        }
        xact::allow_writes();
        xact::wait_for_locks();
        runs::keep_all(task, jobs)
    }

    /// Counts jobs that were completed, logs what the settings ask for, and wakes the sessions that wait for them.
    fn succeeded<'j>(&self, jobs: impl IntoIterator<Item = &'j Job, IntoIter: Clone>, task: &Task) {
        let jobs = jobs.into_iter();
        if let Some(board) = shared::board()
            && board.waits().has_any()
        {
            jobs.clone().for_each(|job| board.waits().wake(self.database, job.id));
        }
        let account = log_ends(jobs, task, "succeeded");
        if account.jobs == 0 {
            // All of them were snoozed.
            return;
        }
        if let Some(counters) = task.counters() {
            counters.succeeded(&account);
        }
        if let Some(entry) = self.entry() {
            entry.finished.add(account.jobs);
        }
    }

    /// Does the same for jobs that are to run again later.
    fn snoozed<'j>(&self, jobs: impl IntoIterator<Item = &'j Job>, task: &Task) {
        let account = log_ends(jobs, task, "was snoozed");
        if let Some(counters) = task.counters().filter(|_| account.jobs > 0) {
            counters.count(counters::Outcome::Snoozed, account.jobs);
            counters.ran(&account);
        }
    }

    /// Releases claimed jobs so that they can run again at once. The attempt is not counted.
    fn release(&self, ids: &[i64]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        xact::begin_for_queue();
        for &id in ids {
            recover::release(self.worker_id(), (id, id))?;
        }
        Ok(xact::commit()?)
    }

    /// Records a failed attempt in the current transaction. Returns what to log once it is committed.
    fn record_failure(&self, job: &Job, attempt: &Attempt, failure: &FailedAttempt) -> Result<Failed, Error> {
        let FailedAttempt { error, then } = failure;
        let said_of_error = last_error(error);
        let (message, retry) = (text(&said_of_error), &attempt.task.retry);
        let row = match attempt.mode {
            RunMode::InPlace => fail::fail_plain(job.id, message, retry)?,
            RunMode::Claimed => fail::fail(self.worker_id(), Some(job.id.into()), message, retry)?,
        };
        let row = match (row, then) {
            // Another session has settled the job, or a worker has it.
            (None, _) => None,
            (row, AfterFailure::Backoff) => row,
            (_, &AfterFailure::RetryIn(delay)) => postpone::retry_in(job.id, delay)?,
            (_, AfterFailure::Never(message) | AfterFailure::Cancelled(message)) => postpone::give_up(job.id, message)?,
        };
        // Read from the row, as add_job may have taken its further attempts away.
        let is_recorded = row.is_some();
        if !is_recorded && attempt.mode == RunMode::InPlace {
            self.skipped(job.id);
        }
        let recorded = row.map(Job::new);
        let recorded = recorded.as_ref().unwrap_or(job);
        self.due_again.set(self.due_again.get().min(recorded.position().run_at));
        let most = retry.attempts_of(recorded.max_attempts()).max(job.attempts());
        let for_good = recorded.attempts() >= recorded.max_attempts();
        if is_recorded {
            let (ended, said) = match then {
                AfterFailure::Cancelled(said) => (Ended::Cancelled, Some(said)),
                AfterFailure::Never(said) => (Ended::Failed, Some(said)),
                _ if for_good => (Ended::Failed, None),
                _ => (Ended::Retrying, None),
            };
            runs::keep_failure(job, attempt.task, ended, Some(said.unwrap_or(&said_of_error)))?;
        }
        let mut account = Account::default();
        add_to(&mut account, job);
        Ok(Failed {
            counters: attempt.task.counters(),
            account,
            timed_out: job.times().timed_out,
            long: long(job),
            job: format!("job {} ({})", job.id, attempt.task.identifier),
            attempt: format!("{} of {}: {}", job.attempts(), most, headline(error)),
            for_good,
            ended: (self.database, job.id),
            schema: schema::queue()?.home.schema.to_string(),
            error: error.clone(),
            cancelled: match then {
                AfterFailure::Cancelled(said) => {
                    Some(Cancelled { database: self.database, job: job.id, is_recorded, said: said.clone() })
                }
                _ => None,
            },
        })
    }

    /// Returns what last_error is to say of a job if a session has cancelled it.
    fn cancel_of(&self, job: i64) -> Option<DbText> {
        shared::board()?.cancels().find(self.database, job)
    }

    /// Returns the failure of a job whose call has raised an error. If a session has cancelled the job, that is the
    /// reason, whatever the handler made of the interrupt.
    fn failure_of(&self, job: i64, error: Raise) -> FailedAttempt {
        self.cancelled(job).unwrap_or_else(|| FailedAttempt::of_call(error))
    }

    /// Returns the failure of a job that a session has cancelled; `None` if none has.
    fn cancelled(&self, job: i64) -> Option<FailedAttempt> {
        let said = self.cancel_of(job)?;
        let error = Raise { sqlstate: *b"57014", message: said.clone(), detail: None, hint: None, context: None };
        Some(FailedAttempt { error, then: AfterFailure::Cancelled(said) })
    }

    fn record_one_failure(&self, job: &Job, attempt: &Attempt, failure: &FailedAttempt) -> Result<(), Error> {
        fault::point("failing")?;
        xact::begin_for_queue();
        let failed = self.record_failure(job, attempt, failure)?;
        if attempt.holds_queue_of(job) {
            queues::release(job.queue_name(), self.worker_id())?;
        }
        fault::point("failed")?;
        xact::commit()?;
        failed.tell();
        Ok(())
    }

    fn warn_of_lost_lock(&self, job: &Job, task: &Task) {
        log_with(
            Level::Warning,
            format!("job {} ({}) lost its lock while it ran", job.id, task.identifier),
            Some("What the handler did in its last transaction was rolled back, because another session has claimed, completed or unlocked the job.".into()),
            None,
        );
    }

    fn worker_id(&self) -> Value {
        text(&self.id)
    }
}

/// Has the current transaction commit as kongtask.synchronous_commit says.
fn commit_as_set() {
    if let Some(value) = settings::synchronous_commit() {
        xact::set_local(c"synchronous_commit", &value);
    }
}

/// Returns true if the error is what PL/Python makes of an interrupt.
fn is_python_s_interrupt(error: &PgError) -> bool {
    // A statement of Postgres's may have been interrupted first.
    const NAMES: [&str; 2] = ["KeyboardInterrupt", "spiexceptions.QueryCanceled"];
    let says = |name: &str| error.read().message.as_bytes().starts_with(name.as_bytes());
    python::was_interrupted() && NAMES.into_iter().any(says)
}

/// A failed attempt.
#[derive(Clone)]
struct FailedAttempt {
    error: Raise,
    then: AfterFailure,
}

impl FailedAttempt {
    /// Returns the failure of the last call, with the marks that the call left.
    fn of_call(error: Raise) -> FailedAttempt {
        let then = marks::take().after_failure(&error);
        FailedAttempt { error, then }
    }
}

/// Logs what the settings ask for of jobs that ended in this way. Returns what is to be counted of them.
fn log_ends<'j>(jobs: impl IntoIterator<Item = &'j Job>, task: &Task, how: &str) -> Account {
    let mut account = Account::default();
    for job in jobs {
        add_to(&mut account, job);
        if is_logged(Level::Debug) {
            let ms = milliseconds(job.times().took);
            log(Level::Debug, format!("job {} ({}) {how} in {ms:.3} ms", job.id, task.identifier));
        }
        if let Some(times) = long(job) {
            log_duration(&format!("job {} ({})", job.id, task.identifier), times);
        }
    }
    account
}

/// Adds a job to those to be counted.
fn add_to(account: &mut Account, job: &Job) {
    account.jobs += 1;
    if job.times().began_at != 0 {
        account.run.add(job.times().took);
        account.wait.add(job.waited());
    }
}

/// Returns how long a job ran and how long it had waited, if it ran so long that this is to be logged.
fn long(job: &Job) -> Option<(Duration, Duration)> {
    let took = job.times().took;
    let is_long = job.times().began_at != 0 && settings::log_min_duration().is_some_and(|least| took >= least);
    is_long.then(|| (took, job.waited()))
}

fn log_duration(job: &str, (took, waited): (Duration, Duration)) {
    let (ran, waited) = (milliseconds(took), milliseconds(waited));
    log(Level::Log, format!("duration: {ran:.3} ms  wait: {waited:.3} ms  {job}"));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A failed attempt that is recorded: what to count and to log once that is committed.
struct Failed {
    counters: Option<&'static TaskCounters>,
    account: Account,
    timed_out: bool,
    long: Option<(Duration, Duration)>,
    job: String,
    attempt: String,
    for_good: bool,
    /// The job, by its database and id.
    ended: (Oid, i64),
    schema: String,
    error: Raise,
    /// Set if it failed because a session has cancelled the job.
    cancelled: Option<Cancelled>,
}

struct Cancelled {
    database: Oid,
    job: i64,
    said: DbText,
    /// False if another session had the row locked: the scheduler cancels the job, and says so.
    is_recorded: bool,
}

impl Failed {
    /// Counts and logs it. To be called once the failure is committed.
    fn tell(self) {
        let Failed { counters, account, timed_out, long, job, attempt, for_good, ended, schema, error, cancelled } =
            self;
        if let Some(board) = shared::board().filter(|_| for_good) {
            board.waits().wake(ended.0, ended.1);
        }
        if let Some(times) = long {
            log_duration(&job, times);
        }
        if let Some(Cancelled { database, job: id, said, is_recorded }) = cancelled {
            if let Some(counters) = counters {
                counters.ran(&account);
            }
            // Otherwise the scheduler does the rest.
            if let Some(board) = shared::board().filter(|_| is_recorded) {
                board.cancels().settle(database, id);
                log(Level::Log, format!("{job} {said}"));
                if let Some(counters) = counters {
                    counters.count(counters::Outcome::Cancelled, account.jobs);
                }
            }
            return;
        }
        if let Some(counters) = counters {
            counters.failed(&account, &headline(&error).valid());
            for (outcome, is_so) in [(counters::Outcome::Discarded, for_good), (counters::Outcome::TimedOut, timed_out)]
            {
                counters.count(outcome, account.jobs * u64::from(is_so));
            }
        }
        if for_good {
            let hint = format!("The job stays in the table. {schema}.reschedule_jobs gives it further attempts.");
            let message = format!("{job} failed for good on attempt {attempt}");
            Raise { sqlstate: *b"01000", message: message.into(), hint: Some(hint.into()), ..error }
                .log(Level::Warning);
        } else {
            Raise { message: format!("{job} failed on attempt {attempt}").into(), ..error }.log(Level::Log);
        }
    }
}
