//! Running what a worker has taken off its shelf. However many jobs, and however they are held, it is always: take them,
//! call the handler, settle them, commit.
//!
//! ```text
//!                   ┌─ in place ─► begin ─► delete ────────────────► handler ─────────────► commit
//!  alone (alone.rs) ┤
//!                   └─ claimed ──► begin ─► mark ─► commit ─► begin ─► handler ─► delete ──► commit
//!
//!                   ┌─ in place ─► begin ─► lock ──────────────────► handler × n ─► delete ─► commit
//!  batch (batch.rs) ┤   (or delete, as if none of them could fail)   └ each in a subtransaction
//!                   └─ claimed ──► begin ─► mark ─► commit ─► begin ─► handler × n ─► delete ─► commit
//!
//!                   ┌─ in place ─► begin ─► delete ────────────────► handler, once ───────► commit
//!  set (set.rs) ────┤
//!                   └─ claimed ──► begin ─► mark ─► commit ─► begin ─► handler, once ─► delete ─► commit
//! ```
//!
//! In place, nobody is told that the jobs run: the rows' locks are the mark, and they vanish with the worker. Jobs that have
//! a key are claimed, so that nobody who adds one with the same key waits for the handler, and so are jobs of a queue, and
//! those that were tried before. Where the role or the database asks for another isolation level than READ COMMITTED, or for
//! read-only transactions, all jobs are claimed: our statements need neither.

mod single;
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

/// Runs jobs, for one worker.
pub struct Runner {
    pub me: &'static Worker,
    pub crash_record: Option<&'static CrashRecord>,
    pub database: Oid,
    pub role: Oid,
    /// As in `locked_by`.
    pub id: DbText,
    /// Where the jobs that run, and what is said about them, live.
    pub arena: Arena,
    /// Tasks, by their tags, whose jobs have lately failed in a batch, and since when that is known.
    pub recently_failed: HashMap<u32, Instant>,
}

/// How jobs are held while they run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunMode {
    InPlace,
    Claimed,
}

/// Jobs that somebody has asked to be run: of one task.
pub struct TakenJobs {
    pub hints: Vec<Hint>,
    pub task: Rc<Task>,
    pub forbidden_flags: Vec<DbText>,
}

impl TakenJobs {
    /// Some of them, by their ids.
    fn those(&self, which: impl Fn(i64) -> bool) -> TakenJobs {
        let hints = self.hints.iter().filter(|hint| which(hint.position.id)).copied().collect();
        TakenJobs { hints, task: self.task.clone(), forbidden_flags: self.forbidden_flags.clone() }
    }

    fn ids(&self) -> Vec<i64> {
        self.hints.iter().map(|hint| hint.position.id).collect()
    }
}

/// What an attempt is part of.
struct Attempt<'a> {
    task: &'a Task,
    mode: RunMode,
}

/// How an attempt ended that raised no error.
enum Outcome {
    Completed,
    /// Somebody else has a job of it: nothing was committed.
    LockLost,
    /// The task was unregistered, or taken over by another role.
    NotOurs,
}

impl Runner {
    /// Runs jobs; those that it could not get to in time, to be given back.
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

    /// Says what is about to be taken.
    fn hold_for(&self, hints: &[Hint], task: &Task) {
        let held = TakenRange::of(hints);
        if let Some(record) = self.crash_record {
            record.set(self.database, task.tag, &held, hints.len());
        }
        self.me.hold(held, &task.identifier);
    }

    /// Says which of several jobs runs now.
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

    /// Marks jobs as ours, and commits that.
    fn claim(&self, taken: &TakenJobs) -> Result<Vec<Job>, Error> {
        xact::begin_for_queue();
        // A lost claim is no harm: the jobs are still there.
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

    /// Deletes jobs, in the current transaction.
    fn delete(&self, taken: &TakenJobs, ids: &[i64]) -> Result<Vec<Job>, Error> {
        self.arena.within(|| take::delete(&self.take(taken, ids)))
    }

    fn take<'a>(&self, taken: &'a TakenJobs, ids: &'a [i64]) -> TakeRequest<'a> {
        TakeRequest { ids, task: &taken.task.identifier, forbidden_flags: &taken.forbidden_flags }
    }

    /// None of these jobs could be taken: if that is because somebody's transaction has one locked, it may give it back and
    /// tell nobody.
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

    /// Calls a handler, in the current transaction, and puts back what it left of its own.
    fn call(&self, task: &Task, handler: &Handler, call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begun = Instant::now();
        python::prepare(handler.is_python());
        // A trigger that fires at commit may have, after the call that it belongs to.
        latch::ended_itself();
        // And until the transaction ends: what users have fired at commit is theirs as well.
        latch::let_cancel();
        // Who was to end before that may never look again.
        latch::interrupted()?;
        let result = {
            let _settings = xact::Settings::keep();
            let _impatience = handler.is_python().then(latch::Impatience::begin);
            let _timer = task.timeout.map(latch::Timer::start);
            // What the handler was asked to do and has not done yet, nobody after it is to do; and what it failed with may be
            // what its language makes of that.
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
                session::forget()?;
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

    /// Whether a call failed because somebody cancelled it.
    fn was_cancelled(error: &Error) -> bool {
        matches!(error, Error::Postgres(error) if error.read().sqlstate == *b"57014") && latch::was_cancelled()
    }

    /// Commits what handlers did, with the completion of their jobs.
    fn commit(&self) -> Result<(), Error> {
        fault::point("completed")?;
        Ok(xact::commit()?)
    }

    /// Begins the transaction of a handler.
    fn begin(&self) {
        xact::begin();
        if let Some(value) = settings::synchronous_commit() {
            xact::set_local(c"synchronous_commit", &value);
        }
    }

    /// The handler, if the task is still what it was when the jobs were taken, and the jobs are no publisher's.
    fn handler(&self, task: &Task) -> Result<Option<Handler>, Error> {
        if subscription::feeds_jobs()?.is_some() {
            return Ok(None);
        }
        let tasks = registry::tasks()?;
        let now = tasks.get(&task.identifier).filter(|now| now.role == self.role);
        now.map(|now| Handler::find(&now.handler)).transpose()
    }

    fn report(&self, handler: &DbText, job: &Job, task: &DbText) {
        let attempts = job.attempts();
        background::report_running(&format!("select {handler} /* job {}, task {task}, attempt {attempts} */", job.id));
    }

    fn succeeded(&self, job: &Job, task: &Task, begun: Instant) {
        if is_logged(Level::Debug) {
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            log(Level::Debug, format!("job {} ({}) succeeded in {ms:.3} ms", job.id, task.identifier));
        }
    }

    /// Gives back jobs that are claimed, with the attempt not counted: they can run again at once.
    fn release(&self, ids: &[i64]) -> Result<(), Error> {
        xact::begin_for_queue();
        for &id in ids {
            recover::release(self.worker_id(), (id, id))?;
        }
        Ok(xact::commit()?)
    }

    /// Records a failed attempt, in the current transaction; what to log once that is committed.
    fn record_failure(&self, job: &Job, attempt: &Attempt, error: &Raise) -> Result<Failed, Error> {
        let message = text(&last_error(error));
        let row = match attempt.mode {
            RunMode::InPlace => fail::fail_plain(job.id, message)?,
            RunMode::Claimed => fail::fail(self.worker_id(), Some(job.id.into()), message)?,
        };
        // As they are now: add_job may have taken the further attempts away.
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
        fault::point("failing")?;
        xact::begin_for_queue();
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
            Some("The handler's effects were rolled back, because another session has claimed, completed or unlocked the job.".into()),
            None,
        );
    }

    fn worker_id(&self) -> Value {
        text(&self.id)
    }
}

/// True if an error is what Python makes of an interrupt.
fn is_python_s_interrupt(error: &PgError) -> bool {
    // A statement of Postgres's may have been interrupted first.
    const NAMES: [&str; 2] = ["KeyboardInterrupt", "spiexceptions.QueryCanceled"];
    let says = |name: &str| error.read().message.as_bytes().starts_with(name.as_bytes());
    python::was_interrupted() && NAMES.into_iter().any(says)
}

/// What the log says of a failed attempt.
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
