//! A worker: logged in as a role, it runs the jobs of that role's tasks, one at a time.
//!
//! ```text
//! look ── a job ──► claim, commit ──► handler, complete, commit ──► look
//!   │                                   └─ error: roll back, fail, commit ──► look
//!   └── none ──► idle ──► woken ──► look
//! ```
//!
//! The claim is a transaction of its own, so that nobody who adds a job with the same key or to the same queue waits for
//! the handler. What the handler did and the deletion of its job are one transaction. An error in a statement of the
//! queue's own ends the process: the scheduler releases what it held, and starts another.

use crate::error::{Error, headline, last_error};
use crate::flags::Flags;
use crate::handler::Handler;
use crate::pg::catch::{Level, Raise, log, log_with};
use crate::pg::clock;
use crate::pg::memory::Arena;
use crate::pg::spi::{Value, interval, text, texts, texts_or_null};
use crate::pg::{background, latch, role, xact};
use crate::queue::job::Job;
use crate::queue::{claim, complete, fail, recover};
use crate::shmem::{self, Board, State, Worker};
use crate::{guc, registry, schema, wake};
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// What `backend_type` says.
pub const KIND: &str = "kongtask worker";
/// The function that a worker process begins with.
pub const MAIN: &str = "kongtask_worker_main";

/// A slot and its ticket, as one number to hand to a new process.
pub fn argument(slot: usize, ticket: u32) -> usize {
    slot | (ticket as usize) << 32
}

background::main_function!(kongtask_worker_main, main);

fn main(argument: usize) -> Result<(), Error> {
    let (slot, ticket) = (argument & 0xffff_ffff, (argument >> 32) as u32);
    let Some(board) = shmem::board() else { return Ok(()) };
    let me = &board.workers()[slot];
    if me.state() != State::Starting || me.ticket.load(SeqCst) != ticket {
        // The scheduler has given this start up.
        return Ok(());
    }
    me.pid.store(background::pid(), SeqCst);
    me.latch.is_mine();
    background::at_exit(leave, slot);
    latch::receive_signals();
    let (database, role) = (me.database.get(), me.role.get());
    background::connect_as_role(database, role);
    run(board, me, database, role)
}

/// The process ends: the scheduler clears up behind it.
fn leave(slot: usize) {
    let Some(board) = shmem::board() else { return };
    let me = &board.workers()[slot];
    me.latch.is_nobodys();
    me.enter(State::Gone, clock::now());
    if let Some(entry) = board.database(me.database.get()) {
        entry.scheduler.set();
    }
}

fn run(board: Board, me: &'static Worker, database: Oid, role: Oid) -> Result<(), Error> {
    let name = introduce(database, role)?;
    let id = background::random();
    me.set_id(id);
    let mut this = This {
        board,
        me,
        database,
        role,
        id: shmem::worker_id(id),
        arena: Arena::new(c"kongtask job"),
        flags: Flags::default(),
    };
    log(Level::Log, format!("{name} started"));
    me.enter(State::Looking, clock::now());
    while this.goes_on() {
        let generation = this.generation();
        this.arena.empty();
        match this.take()? {
            Some(job) => this.run(&job)?,
            None => this.sleep(generation),
        }
    }
    log(Level::Log, format!("{name} stopped"));
    Ok(())
}

/// Sets what pg_stat_activity shows; the process's name for the log.
fn introduce(database: Oid, role: Oid) -> Result<String, Error> {
    xact::begin();
    let database = background::database_name(database).unwrap_or_default();
    let role = role::name(role).unwrap_or_default();
    xact::commit()?;
    let name = format!("{KIND} ({database}, {role})");
    background::set_application_name(&name);
    background::report_idle();
    Ok(name)
}

struct This {
    board: Board,
    me: &'static Worker,
    database: Oid,
    role: Oid,
    /// As in `locked_by`.
    id: String,
    /// Where the job that runs, and what is said about it, lives.
    arena: Arena,
    flags: Flags,
}

/// How an attempt ended that raised no error.
enum Outcome {
    Completed,
    /// Somebody else has the job: nothing was committed.
    LockLost,
    /// The task was unregistered, or taken over by another role, after the job was taken.
    NotOurs,
}

impl This {
    fn goes_on(&self) -> bool {
        latch::serve_interrupts();
        latch::reload_if_asked();
        !latch::stop_asked() && !self.me.leave.load(SeqCst)
    }

    fn generation(&self) -> u64 {
        self.board.database(self.database).map_or(0, wake::generation)
    }

    /// Sleeps until there is something to do, unless work was added since `generation` was read.
    fn sleep(&self, generation: u64) {
        background::report_statistics(true);
        self.me.enter(State::Idle, clock::now());
        if let Some(entry) = self.board.database(self.database).filter(|entry| entry.short.load(SeqCst)) {
            // Another role may want this place.
            entry.scheduler.set();
        }
        if self.generation() == generation && !self.me.leave.load(SeqCst) {
            latch::wait(None);
        }
        self.me.change(State::Idle, State::Looking);
    }

    /// Takes the next job, and commits that.
    fn take(&mut self) -> Result<Option<Job>, Error> {
        xact::begin_for_queue();
        // A lost claim is no harm: the job is still there.
        xact::commit_lazily();
        let job = self.claim()?;
        if let Some(job) = &job {
            // Before the commit: should the process end in between, the scheduler finds nothing to release.
            self.me.set_job(job.id, &job.task);
        }
        xact::commit()?;
        Ok(job)
    }

    fn claim(&mut self) -> Result<Option<Job>, Error> {
        let (tasks, others) = registry::tasks()?.split(self.role);
        let forbidden = self.flags.forbidden()?;
        let Some(forbidden) = forbidden.filter(|_| !tasks.is_empty()) else { return Ok(None) };
        self.arena.within(|| {
            let row = claim::claim(&claim::Claim {
                worker_id: text(&self.id),
                task_identifiers: texts(&tasks),
                job_expiry: interval(guc::job_expiry()),
                others: texts_or_null(&others),
                forbidden_flags: texts_or_null(&forbidden),
                now: Some(clock::transaction_start().into()),
            })?;
            Ok(row.map(Job::new))
        })
    }

    fn run(&self, job: &Job) -> Result<(), Error> {
        let begun = Instant::now();
        let now = clock::now();
        self.me.renewed.store(now, SeqCst);
        self.me.enter(State::Running, now);
        match self.attempt(job) {
            Ok(Outcome::Completed) => log(
                Level::Debug,
                format!("job {} ({}) succeeded in {:.3} ms", job.id, job.task, begun.elapsed().as_secs_f64() * 1e3),
            ),
            Ok(Outcome::LockLost) => {
                xact::abort();
                log_with(
                    Level::Warning,
                    format!("job {} ({}) lost its lock while it ran", job.id, job.task),
                    Some(
                        "What its handler did was rolled back: another worker has taken the job, or completed it."
                            .into(),
                    ),
                    None,
                );
            }
            Ok(Outcome::NotOurs) => {
                xact::abort();
                xact::begin_for_queue();
                recover::release(self.worker_id(), job.id)?;
                xact::commit()?;
            }
            Err(error) => {
                // Read before the rollback frees it.
                let error = error.read();
                xact::abort();
                self.record_failure(job, error)?;
            }
        }
        background::report_idle();
        background::report_statistics(false);
        self.me.set_job(0, "");
        self.me.enter(State::Looking, clock::now());
        Ok(())
    }

    /// Handler and completion, in one transaction. On an error, and if the lock was lost, it is still to be rolled back.
    fn attempt(&self, job: &Job) -> Result<Outcome, Error> {
        xact::begin();
        if let Some(value) = guc::synchronous_commit() {
            xact::set_local(c"synchronous_commit", &value);
        }
        let task = registry::tasks()?.get(&job.task).filter(|task| task.role == self.role).cloned();
        let Some(task) = task else { return Ok(Outcome::NotOurs) };
        background::report_running(&format!(
            "select {} /* job {}, task {}, attempt {} */",
            task.handler, job.id, job.task, job.attempts
        ));
        {
            let _settings = xact::Settings::keep();
            Handler::find(&task.handler)?.call(job.row.datum(), job.payload())?;
        }
        xact::allow_writes();
        if !complete::complete_held(job, self.worker_id())? {
            return Ok(Outcome::LockLost);
        }
        xact::commit()?;
        Ok(Outcome::Completed)
    }

    fn record_failure(&self, job: &Job, error: Raise) -> Result<(), Error> {
        xact::begin_for_queue();
        let recorded = fail::fail(self.worker_id(), Some(job.id.into()), text(&last_error(&error)))?.map(Job::new);
        let (attempts, max_attempts) = recorded.map_or((job.attempts, job.max_attempts), |job| {
            // As they are now: add_job may have taken the further attempts away.
            (job.attempts, job.max_attempts)
        });
        let schema = schema::queue()?.home.schema.clone();
        xact::commit()?;
        let attempt = format!("{} of {max_attempts}: {}", job.attempts, headline(&error));
        let job = format!("job {} ({})", job.id, job.task);
        if attempts >= max_attempts {
            let hint = format!("It stays in the table; {schema}.reschedule_jobs can give it further attempts.");
            let message = format!("{job} failed for good on attempt {attempt}");
            Raise { sqlstate: *b"01000", message, hint: Some(hint), ..error }.log(Level::Warning);
        } else {
            Raise { message: format!("{job} failed on attempt {attempt}"), ..error }.log(Level::Log);
        }
        Ok(())
    }

    fn worker_id(&self) -> Value {
        text(&self.id)
    }
}
