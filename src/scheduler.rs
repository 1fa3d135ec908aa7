//! The scheduler: one per database, connected as the server itself, and runs no user's code. It keeps the right workers
//! alive, releases what dead ones held, wakes idle ones for jobs that fall due, renews locks, and gives running jobs their
//! time when everything is to stop.
//!
//! ```text
//! start ──► extension? ── no ──► leave
//!             │ yes
//!             ▼
//!          release what no living worker holds
//!             ▼
//!   ┌──► clear up ──► pool ──► look ──► renew ──► sleep ──┐   woken by: a commit with an earlier run_at, a commit that
//!   └────────────────────────────────────────────────────┘   finds too few idle workers, a worker that ended, a reload
//!             │ told to leave, or the server stops
//!             ▼
//!          stop the workers: asked, then terminated after kongtask.shutdown_timeout
//! ```

use crate::error::Error;
use crate::guc;
use crate::pg::background;
use crate::pg::catch::{Level, log};
use crate::pg::clock::{self, NEVER, Timestamp, after, until};
use crate::pg::spi::text;
use crate::pg::{latch, xact};
use crate::pool::Pool;
use crate::queue::{due, recover, renew};
use crate::registry::{self, Tasks};
use crate::shmem::{self, Board, Database, State};
use crate::{schema, wake};
use pgrx::pg_sys::Oid;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// What `backend_type` says.
pub const KIND: &str = "kongtask scheduler";
/// The function that a scheduler process begins with.
pub const MAIN: &str = "kongtask_scheduler_main";

background::main_function!(kongtask_scheduler_main, main);

fn main(database: usize) -> Result<(), Error> {
    let database = Oid::from(database as u32);
    let Some(board) = shmem::board() else { return Ok(()) };
    let Some(entry) = board.database_or_new(database) else { return Ok(()) };
    entry.scheduler_pid.store(background::pid(), SeqCst);
    entry.scheduler.is_mine();
    background::at_exit(leave, database.to_u32() as usize);
    latch::receive_signals();
    background::connect_as_server(database);
    let Some((name, extension)) = introduce(database)? else {
        entry.absent.store(true, SeqCst);
        entry.left.store(true, SeqCst);
        return Ok(());
    };
    let mut this = Scheduler {
        board,
        entry,
        database,
        extension,
        pool: Pool::new(board, database, name.clone()),
        poll_at: 0,
        renew_at: 0,
        recovered: false,
        tasks: Rc::default(),
    };
    this.recover()?;
    entry.serving.store(true, SeqCst);
    board.launcher().set();
    log(Level::Log, format!("{KIND} ({name}) started"));
    while this.stays()? {
        this.pass()?;
        latch::wait(until(this.next_pass()));
        latch::reload_if_asked();
    }
    this.stop_workers()?;
    entry.left.store(true, SeqCst);
    log(Level::Log, format!("{KIND} ({name}) stopped"));
    Ok(())
}

/// The process ends: the launcher sees to what follows.
fn leave(database: usize) {
    let Some(board) = shmem::board() else { return };
    if let Some(entry) = board.database(Oid::from(database as u32)) {
        entry.serving.store(false, SeqCst);
        entry.scheduler.is_nobodys();
        entry.scheduler_pid.store(0, SeqCst);
    }
    board.launcher().set();
}

/// The database's name and the extension's OID, if it has the extension.
fn introduce(database: Oid) -> Result<Option<(String, Oid)>, Error> {
    xact::begin();
    let name = background::database_name(database).unwrap_or_default();
    let extension = schema::extension();
    xact::commit()?;
    background::set_application_name(&format!("{KIND} ({name})"));
    background::report_idle();
    Ok(extension.map(|extension| (name, extension)))
}

struct Scheduler {
    board: Board,
    entry: &'static Database,
    database: Oid,
    extension: Oid,
    pool: Pool,
    /// When to look for jobs that no wake-up told of.
    poll_at: Timestamp,
    /// When to see whose locks are to be renewed: nobody tells of a job that begins.
    renew_at: Timestamp,
    /// Whether everything that dead workers of the server's former life held is released.
    recovered: bool,
    /// As of the latest pass.
    tasks: Rc<Tasks>,
}

impl Scheduler {
    /// Whether it is to go on; reads the catalog only if something there may have changed.
    fn stays(&self) -> Result<bool, Error> {
        latch::serve_interrupts();
        if latch::stop_asked() || self.entry.leave.load(SeqCst) || self.entry.holds.load(SeqCst) > 0 {
            return Ok(false);
        }
        xact::begin();
        let is_there = schema::extension() == Some(self.extension);
        xact::commit()?;
        if !is_there {
            // Dropped, or dropped and created again: a new scheduler finds out.
            self.entry.wanted.store(true, SeqCst);
        }
        Ok(is_there)
    }

    fn pass(&mut self) -> Result<(), Error> {
        let now = clock::now();
        self.release_what_the_gone_held(now)?;
        let polls = now >= self.poll_at;
        if polls {
            self.poll_at = after(now, guc::poll_interval());
            if !self.recovered {
                self.recover()?;
            }
        }
        let looks_ahead = polls || now >= self.entry.next_due.load(SeqCst);
        if looks_ahead {
            // Before the snapshot: what is committed after it is told anew.
            wake::take_due(self.entry);
        }
        xact::begin();
        let tasks = registry::tasks()?;
        let roles = tasks.roles();
        let short = self.look(&tasks, &roles, now)?;
        if looks_ahead && let Some(due) = due::next_due(now)? {
            self.entry.lower_due(due);
        }
        xact::commit()?;
        if !Rc::ptr_eq(&tasks, &self.tasks) {
            // Something has changed: what failed may work now.
            self.pool.forgive();
        }
        self.tasks = tasks.clone();
        self.pool.balance(&roles, &short, now);
        let waits = self.pool.waits_for_place;
        if !self.entry.short.swap(waits, SeqCst) && waits {
            // A worker that became idle before this was set has told nobody.
            self.entry.scheduler.set();
        }
        self.entry.elastic.store(self.pool.is_elastic(&roles), SeqCst);
        self.pool.terminate_overdue(now);
        self.renew(now)
    }

    /// Wakes idle workers for what can run; the roles that have more jobs than idle workers.
    fn look(&self, tasks: &Tasks, roles: &[Oid], now: Timestamp) -> Result<Vec<Oid>, Error> {
        let flags = guc::forbidden_flags();
        let most = guc::workers().max(1);
        let mut short = Vec::new();
        for &role in roles {
            let (own, others) = tasks.split(role);
            let runnable = due::runnable(&own, &others, guc::job_expiry(), &flags, now, most)?;
            if wake::wake(self.board, self.database, role, runnable) < runnable {
                short.push(role);
            }
        }
        Ok(short)
    }

    fn next_pass(&self) -> Timestamp {
        let due = self.entry.next_due.load(SeqCst);
        [self.poll_at, self.renew_at, due, self.pool.next_event(clock::now())].into_iter().min().unwrap_or(NEVER)
    }

    /// After a crash of the server, a promotion or a restore: releases what bears our mark and no living worker holds.
    fn recover(&mut self) -> Result<(), Error> {
        let living: Vec<String> = self.board.workers_of(self.database).filter_map(|(_, worker)| worker.id()).collect();
        let released = in_transaction(|| recover::release_all_but(shmem::ID_PREFIX, &living))?;
        self.recovered = released.is_some();
        if let Some(released @ 1..) = released {
            log(Level::Log, format!("kongtask released {released} jobs whose workers are gone"));
        }
        Ok(())
    }

    /// A worker that ended while it ran a job: the job can run again at once.
    fn release_what_the_gone_held(&mut self, now: Timestamp) -> Result<(), Error> {
        for (slot, worker) in self.board.workers_of(self.database) {
            if worker.state() != State::Gone {
                continue;
            }
            if let (Some(job), Some(id)) = (worker.job(), worker.id()) {
                let Some(was_held) = in_transaction(|| recover::release(text(&id), job))? else { continue };
                if was_held {
                    log(Level::Log, format!("job {job} was released: the worker that ran it is gone"));
                }
            }
            self.pool.gone(slot, now);
        }
        Ok(())
    }

    /// Renews the locks of jobs that have run, or gone without renewal, for long: at two thirds of kongtask.job_expiry at
    /// the latest.
    fn renew(&mut self, now: Timestamp) -> Result<(), Error> {
        self.renew_at = after(now, renewal_interval());
        let (mut jobs, mut ids) = (Vec::new(), Vec::new());
        for (_, worker) in self.board.workers_of(self.database) {
            if worker.state() == State::Running
                && after(worker.renewed.load(SeqCst), renewal_interval()) <= now
                && let (Some(job), Some(id)) = (worker.job(), worker.id())
            {
                worker.renewed.store(now, SeqCst);
                jobs.push(job);
                ids.push(id);
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        in_transaction(|| renew::renew(jobs, &ids))?;
        Ok(())
    }

    /// Asks all workers to end; terminates those that have not after kongtask.shutdown_timeout.
    fn stop_workers(&mut self) -> Result<(), Error> {
        const MOMENT: Duration = Duration::from_millis(100);
        /// For the terminated to roll back.
        const GRACE: Duration = Duration::from_secs(4);
        let begun = clock::now();
        let give_up = after(begun, guc::shutdown_timeout() + GRACE);
        self.entry.elastic.store(false, SeqCst);
        loop {
            let now = clock::now();
            self.release_what_the_gone_held(now)?;
            if self.pool.ask_all_to_leave(now) == 0 || now > give_up {
                return Ok(());
            }
            self.pool.terminate_overdue(now);
            latch::wait(Some(MOMENT));
        }
    }
}

/// Runs `f` in a transaction of its own; `None` if it had to wait for somebody's lock for long, and is to be tried again.
/// A scheduler that waits serves nobody.
fn in_transaction<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
    xact::begin_for_queue();
    xact::set_local(c"lock_timeout", c"500ms");
    match f() {
        Ok(result) => {
            xact::commit()?;
            Ok(Some(result))
        }
        Err(error) if error.read().sqlstate == *b"55P03" => {
            xact::abort();
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A lock is renewed well before anyone may take it to be dead: external workers take 4 hours unless told otherwise.
fn renewal_interval() -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    (guc::job_expiry() / 3).min(LONGEST)
}
