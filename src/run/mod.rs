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
//!                      ┌─ in place ─► begin ─► lock ──────────────────► handler × n ─► delete ─► commit
//!  batch (batch.rs) ───┤   (or delete, as if none of them could fail)   └ each in a subtransaction
//!                      └─ claimed ──► begin ─► claim ─► commit ─► begin ─► handler × n ─► delete ─► commit
//!
//!                      ┌─ in place ─► begin ─► delete ────────────────► handler, once ───────► commit
//!  set (set.rs) ───────┤
//!                      └─ claimed ──► begin ─► claim ─► commit ─► begin ─► handler, once ─► delete ─► commit
//! ```
//!
//! Jobs run in place leave no trace in the table: their row locks stand for the claim, and vanish with the worker. Jobs
//! that have a key are claimed, so that a session that adds one with the same key need not wait for the handler. So are
//! the jobs of a queue, and jobs that were tried before. If the role or the database has another default isolation
//! level than READ COMMITTED, or read-only transactions, all jobs are claimed, as the queue's own statements need
//! neither.

mod single;
mod procedure;
mod batch;
mod set;

pub use batch::MOST as LARGEST_BATCH;
pub use set::{MOST as LARGEST_SET, USUAL as USUAL_SET};

use crate::error::{Error, headline, last_error};
use crate::holds::subscription;
use crate::jobs::take::{self, TakeRequest};
use crate::jobs::{fail, recover};
use crate::pg::catch::{Level, PgError, Raise, is_logged, log, log_with};
use crate::pg::memory::Arena;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::pg::{background, clock, dblink, fault, latch, libraries, python, session, xact};
use crate::schema;
use crate::schema::job_row::Job;
use crate::settings;
use crate::shared::crash_records::CrashRecord;
use crate::shared::ready_list::{Hint, Kind};
use crate::shared::{self, State, TakenRange, Worker};
use crate::tasks::handler::Handler;
use crate::tasks::registry::{self, Task};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

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
    /// The tasks, by their tags, whose last batch in place did not finish in one go, and since when.
    pub recently_failed: HashMap<u32, Instant>,
}

/// The way in which jobs are held while they run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunMode {
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

/// The end of an attempt that raised no error.
enum Outcome {
    Completed,
    /// Another session has one of its jobs. Nothing was committed.
    LockLost,
    /// The task was unregistered, or another role has taken it over.
    NotOurs,
    /// Its handler is a procedure now, whose jobs are claimed first.
    NeedsClaim,
}

impl Runner {
    /// Runs jobs. Returns those that did not begin in time and must be put back.
    pub fn run(&mut self, taken: &TakenJobs) -> Result<Vec<Hint>, Error> {
        self.arena.empty();
        self.me.renewed.store(clock::tick(), SeqCst);
        self.hold_for(&taken.hints, &taken.task);
        self.me.enter(State::Running);
        let left = self.dispatch(taken)?;
        fault::point("settled")?;
        background::report_idle();
        background::report_statistics(false);
        self.me.let_go();
        if let Some(record) = self.crash_record {
            record.clear();
        }
        self.me.enter(State::Looking);
        Ok(left)
    }

    fn dispatch(&mut self, taken: &TakenJobs) -> Result<Vec<Hint>, Error> {
        let [first, ..] = taken.hints[..] else { return Ok(Vec::new()) };
        let mode = self.run_mode(taken);
        if first.kind == Kind::Queued {
            self.next_of_queue(taken, first.position.id)?;
        } else if let [_] = taken.hints[..] {
            self.run_single(taken, mode)?;
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
        if is_plain && taken.task.in_place && xact::defaults_are_plain() { RunMode::InPlace } else { RunMode::Claimed }
    }

    /// Claims jobs and commits the claim.
    fn claim(&self, taken: &TakenJobs) -> Result<Vec<Job>, Error> {
        xact::begin_for_queue();
        // A claim that is lost in a crash does no harm: the jobs are still there.
        xact::commit_lazily();
        let ids = taken.ids();
        let take = self.take(taken, &ids);
        let jobs = self.arena.within(|| take::claim(&take, self.worker_id()))?;
        if jobs.is_empty() {
            self.see_what_was_skipped(&ids)?;
        }
        fault::point("claiming")?;
        xact::commit()?;
        fault::point("claimed")?;
        Ok(jobs)
    }

    /// Deletes jobs in the current transaction.
    fn delete(&self, taken: &TakenJobs, ids: &[i64]) -> Result<Vec<Job>, Error> {
        self.arena.within(|| take::delete(&self.take(taken, ids)))
    }

    fn take<'a>(&self, taken: &'a TakenJobs, ids: &'a [i64]) -> TakeRequest<'a> {
        TakeRequest { ids, task: &taken.task.identifier, forbidden_flags: &taken.forbidden_flags }
    }

    /// If none of the jobs could be taken because another transaction has one locked, has the table searched again
    /// soon: that transaction may release it without a report.
    fn see_what_was_skipped(&self, ids: &[i64]) -> Result<(), Error> {
        if take::still_there(ids)? {
            self.skipped();
        }
        Ok(())
    }

    fn skipped(&self) {
        if let Some(entry) = shared::board().and_then(|board| board.database(self.database)) {
            entry.has_skipped_rows.store(true, SeqCst);
            entry.scheduler.set();
        }
    }

    /// Calls a handler in the current transaction, and resets what it changed in its session.
    fn call(&self, task: &Task, handler: &Handler, call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begun = Instant::now();
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
                Some(timeout) if begun.elapsed() >= timeout => Error::TimedOut(timeout, error),
                _ => Error::Postgres(error),
            }),
            Err(error) => Err(error),
        }
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
        xact::begin();
        commit_as_set();
    }

    /// Returns the handler if the task is still as it was when the jobs were taken, and the jobs are not a publisher's.
    fn handler(&self, task: &Task) -> Result<Option<Handler>, Error> {
        if subscription::feeds_jobs()?.is_some() {
            return Ok(None);
        }
        let tasks = registry::tasks()?;
        let now = tasks.get(&task.identifier).filter(|now| now.role == self.role);
        now.map(|now| Handler::find(&now.handler)).transpose()
    }

    fn report(&self, statement: &DbText, job: &Job, task: &DbText) {
        let attempts = job.attempts();
        background::report_running(&format!("{statement} /* job {}, task {task}, attempt {attempts} */", job.id));
    }

    fn succeeded(&self, job: &Job, task: &Task, begun: Instant) {
        if is_logged(Level::Debug) {
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            log(Level::Debug, format!("job {} ({}) succeeded in {ms:.3} ms", job.id, task.identifier));
        }
    }

    /// Releases claimed jobs so that they can run again at once. The attempt is not counted.
    fn release(&self, ids: &[i64]) -> Result<(), Error> {
        xact::begin_for_queue();
        for &id in ids {
            recover::release(self.worker_id(), (id, id))?;
        }
        Ok(xact::commit()?)
    }

    /// Records a failed attempt in the current transaction. Returns what to log once it is committed.
    fn record_failure(&self, job: &Job, attempt: &Attempt, error: &Raise) -> Result<Failed, Error> {
        let message = text(&last_error(error));
        let row = match attempt.mode {
            RunMode::InPlace => fail::fail_plain(job.id, message)?,
            RunMode::Claimed => fail::fail(self.worker_id(), Some(job.id.into()), message)?,
        };
        // Read from the row, as add_job may have taken its further attempts away.
        let recorded = row.map(Job::new);
        let recorded = recorded.as_ref().unwrap_or(job);
        Ok(Failed {
            job: format!("job {} ({})", job.id, attempt.task.identifier),
            attempt: format!("{} of {}: {}", job.attempts(), recorded.max_attempts(), headline(error)),
            for_good: recorded.attempts() >= recorded.max_attempts(),
            schema: schema::queue()?.home.schema.to_string(),
            error: error.clone(),
        })
    }

    fn record_one_failure(&self, job: &Job, attempt: &Attempt, error: Raise) -> Result<(), Error> {
        self.record_one(job, attempt, error, false)
    }

    /// Records a failed attempt, which is the last one if no other can succeed.
    fn record_one(&self, job: &Job, attempt: &Attempt, error: Raise, is_for_good: bool) -> Result<(), Error> {
        fault::point("failing")?;
        xact::begin_for_queue();
        if is_for_good {
            fail::leave_no_attempts(self.worker_id(), job.id)?;
        }
        let failed = self.record_failure(job, attempt, &error)?;
        fault::point("failed")?;
        xact::commit()?;
        failed.log();
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

/// The log line of a failed attempt.
struct Failed {
    job: String,
    attempt: String,
    for_good: bool,
    schema: String,
    error: Raise,
}

impl Failed {
    fn log(self) {
        let Failed { job, attempt, for_good, schema, error } = self;
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
