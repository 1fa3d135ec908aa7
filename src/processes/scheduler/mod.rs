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

mod housekeeping;
mod ready_search;

use super::backoff::Reminder;
use super::pool::Pool;
use crate::error::Error;
use crate::holds::{self, subscription};
use crate::pg::background;
use crate::pg::catch::{Failure, Level, log};
use crate::pg::clock::{self, Tick, Timestamp, after, until, until_tick};
use crate::pg::text::DbText;
use crate::pg::{fault, latch, xact};
use crate::shared::ready_list::Position;
use crate::shared::{self, Board, DatabaseEntry};
use crate::tasks::registry::{self, Tasks};
use crate::{schema, settings};
use pgrx::pg_sys::Oid;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// What `backend_type` says.
pub const KIND: &str = "kongtask scheduler";
/// The function that a scheduler process begins with.
pub const MAIN: &str = "kongtask_scheduler_main";

background::main_function!(kongtask_scheduler_main, main);

fn main(database: usize) -> Result<(), Failure> {
    let database = Oid::from(database as u32);
    let Some(board) = shared::board() else { return Ok(()) };
    fault::point("starting")?;
    let Some(entry) = board.enter(database, background::pid()) else { return Ok(()) };
    entry.scheduler.is_mine();
    background::at_exit(leave, database.to_u32() as usize);
    if entry.is_held() {
        // Who holds it looks for a scheduler's pid afterwards: one of the two sees the other.
        entry.ended_in_order.store(true, SeqCst);
        return Ok(());
    }
    latch::receive_signals();
    background::connect_as_server(database);
    let Some((name, extension)) = introduce(database)? else {
        fault::point("absent")?;
        entry.lacks_extension.store(true, SeqCst);
        entry.ended_in_order.store(true, SeqCst);
        return Ok(());
    };
    schema::while_there_is(extension, || serve(board, entry, database, name, extension))?;
    entry.ended_in_order.store(true, SeqCst);
    Ok(())
}

fn serve(
    board: Board,
    entry: &'static DatabaseEntry,
    database: Oid,
    name: DbText,
    extension: Oid,
) -> Result<(), Error> {
    let mut this = Scheduler {
        board,
        entry,
        database,
        extension,
        pool: Pool::new(board, database, name.clone()),
        search_at: 0,
        may_search_at: 0,
        searched: i64::MIN,
        renew_at: 0,
        released: false,
        charged: false,
        has_orphaned_queues: false,
        retry_writes_at: None,
        may_write: true,
        tasks: Rc::default(),
        missing_roles: Reminder::default(),
        name,
        fed_by: None,
        fed: Reminder::default(),
    };
    if !this.stays()? {
        return Ok(());
    }
    fault::point("introduced")?;
    this.recover()?;
    entry.serving.store(true, SeqCst);
    board.launcher().set();
    log(Level::Log, format!("{KIND} ({}) started", this.name));
    while this.stays()? {
        this.pass()?;
        latch::wait(this.next_pass());
        if latch::reload_if_asked() {
            let soon = after(clock::tick(), settings::poll_interval());
            this.search_at = this.search_at.min(this.may_search_at.max(soon));
        }
    }
    this.stop_workers()?;
    log(Level::Log, format!("{KIND} ({}) stopped", this.name));
    Ok(())
}

/// The process ends: the launcher sees to what follows.
fn leave(database: usize) {
    let Some(board) = shared::board() else { return };
    if let Some(entry) = board.database(Oid::from(database as u32)) {
        entry.serving.store(false, SeqCst);
        entry.fed_since.store(0, SeqCst);
        entry.scheduler.is_nobodys();
        entry.attendance.end();
    }
    board.launcher().set();
}

/// The database's name and the extension's OID, if it has the extension.
fn introduce(database: Oid) -> Result<Option<(DbText, Oid)>, Error> {
    xact::begin();
    let name = background::database_name(database).unwrap_or_default();
    let extension = schema::extension();
    xact::commit()?;
    background::introduce_as(&format!("{KIND} ({name})"));
    background::report_idle();
    Ok(extension.map(|extension| (name, extension)))
}

struct Scheduler {
    board: Board,
    entry: &'static DatabaseEntry,
    database: Oid,
    extension: Oid,
    pool: Pool,
    /// When to search the whole table again for jobs that no wake-up told of, and when at the earliest.
    search_at: Tick,
    may_search_at: Tick,
    /// Up to which run_at all jobs have been searched for.
    searched: Timestamp,
    /// When to see whose locks are to be renewed: nobody tells of a job that begins.
    renew_at: Tick,
    /// Whether everything that dead workers of the server's former life held is released.
    released: bool,
    /// Whether their crashes are charged.
    charged: bool,
    /// Whether queues are locked for jobs that are gone.
    has_orphaned_queues: bool,
    /// When to try again what somebody's lock keeps from being done, if one does.
    retry_writes_at: Option<Tick>,
    /// Whether that is now, or nothing is held up: what changes the tables is tried in this pass.
    may_write: bool,
    /// As of the latest pass.
    tasks: Rc<Tasks>,
    /// Says which tasks wait for their role.
    missing_roles: Reminder,
    /// The database.
    name: DbText,
    /// The subscription that feeds the queue, if one does: then nothing runs.
    fed_by: Option<DbText>,
    /// Says so.
    fed: Reminder,
}

impl Scheduler {
    /// Whether it is to go on; reads the catalog only if something there may have changed.
    fn stays(&mut self) -> Result<bool, Error> {
        latch::serve_interrupts();
        if latch::stop_asked() || self.entry.must_leave.load(SeqCst) || self.entry.is_held() {
            return Ok(false);
        }
        xact::begin();
        let is_there = schema::extension() == Some(self.extension);
        if is_there {
            self.fed_by = subscription::feeds_jobs()?;
        }
        xact::commit()?;
        if !is_there {
            // Dropped, or dropped and created again: a new scheduler finds out.
            self.entry.attendance.want();
        }
        Ok(is_there)
    }

    fn pass(&mut self) -> Result<(), Error> {
        let now = clock::tick();
        self.may_try_again(now);
        if self.fed_by.is_some() {
            return self.keep_still(now);
        }
        self.end_keeping_still(now)?;
        self.release_jobs_of_ended_workers(now)?;
        self.recover()?;
        xact::begin_for_queue();
        let tasks = registry::tasks()?;
        let roles = tasks.roles();
        if !Rc::ptr_eq(&tasks, &self.tasks) {
            self.search_at = now;
            for list in roles.iter().filter_map(|&role| self.board.list(self.database, role)) {
                // What was passed for its task may be somebody's now.
                list.with(|ready| ready.lower(Position::START));
            }
        }
        self.search_after_unnoted_commits(now);
        let understaffed = self.look(&tasks, &roles, now)?;
        xact::commit()?;
        if !Rc::ptr_eq(&tasks, &self.tasks) {
            // Something has changed: what failed may work now.
            self.pool.forgive();
        }
        if tasks.waiting != self.tasks.waiting {
            self.missing_roles.over();
        }
        self.tasks = tasks.clone();
        self.report_missing_roles(now)?;
        self.pool.balance(&roles, &understaffed, now);
        let look_again = || self.entry.scheduler.set();
        self.entry.wants_idle_notice.set(self.pool.waits_for_slot, look_again);
        self.entry.can_rebalance.set(self.pool.can_rebalance(&roles), look_again);
        self.pool.terminate_overdue(now);
        self.renew(now)
    }

    /// While a subscription feeds the queue: no worker stays, and what runs may end as when everything is to stop.
    fn keep_still(&mut self, now: Tick) -> Result<(), Error> {
        // What the publisher's workers hold then is released once the jobs are ours.
        self.released = false;
        self.entry.fed_since.compare_exchange(0, clock::now(), SeqCst, SeqCst).ok();
        self.entry.can_rebalance.clear();
        if self.fed.is_due(now, Duration::ZERO) {
            let subscription = self.fed_by.clone().unwrap_or_default();
            holds::remind_of_subscription(&self.name, &subscription);
        }
        self.release_jobs_of_ended_workers(now)?;
        self.renew(now)?;
        self.pool.ask_all_to_leave(now);
        self.pool.terminate_overdue(now);
        // Nobody tells of what comes that way, or of nothing coming any more.
        self.entry.next_due.take();
        self.search_at = after(now, settings::poll_interval());
        Ok(())
    }

    /// Once none does any more: everything may have changed, and nobody was told.
    fn end_keeping_still(&mut self, now: Tick) -> Result<(), Error> {
        if self.entry.fed_since.swap(0, SeqCst) == 0 {
            return Ok(());
        }
        self.fed.over();
        log(Level::Log, format!("jobs run in database \"{}\" again: no subscription feeds them any more", self.name));
        xact::begin_for_queue();
        registry::tell_of_changes()?;
        xact::commit()?;
        (self.search_at, self.may_search_at) = (now, now);
        Ok(())
    }

    /// How long it is until there is something to do, if nobody tells of it.
    fn next_pass(&self) -> Option<Duration> {
        let has_to_recover = !self.released || self.has_orphaned_queues;
        if self.retry_writes_at.is_none() && self.fed_by.is_none() && has_to_recover {
            return Some(Duration::ZERO);
        }
        let ticks = [self.search_at, self.renew_at, self.pool.next_event(clock::tick())];
        let next = ticks.into_iter().chain(self.retry_writes_at).min().and_then(until_tick);
        next.into_iter().chain(until(self.entry.next_due.get())).min()
    }

    /// A pass begins: what was held up may be tried again once the moment is over.
    fn may_try_again(&mut self, now: Tick) {
        self.may_write = self.retry_writes_at.is_none_or(|until| until <= now);
        if self.may_write {
            self.retry_writes_at = None;
        }
    }

    /// Runs `f` in a transaction of its own; `None` if it had to wait for somebody's lock for long, or was cancelled: then it is
    /// tried again in a moment, and before that this returns `None` at once. A scheduler that waits serves nobody: after the first
    /// such wait of a pass there is none, so that what nobody has locked is done all the same.
    fn briefly<T>(&mut self, what: &'static str, f: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        const MOMENT: Duration = Duration::from_millis(500);
        if !self.may_write {
            return Ok(None);
        }
        xact::begin_for_queue_within(if self.retry_writes_at.is_none() { c"500ms" } else { c"1ms" });
        let result = f().and_then(|result| {
            fault::point(what)?;
            xact::commit()?;
            Ok(Some(result))
        });
        match result {
            Err(error) if [*b"55P03", *b"57014"].contains(&error.read().sqlstate) => {
                xact::abort();
                self.retry_writes_at = Some(after(clock::tick(), MOMENT));
                Ok(None)
            }
            result => result,
        }
    }

    /// Asks all workers to end; terminates those that have not after kongtask.shutdown_timeout.
    fn stop_workers(&mut self) -> Result<(), Error> {
        const MOMENT: Duration = Duration::from_millis(100);
        /// For the terminated to roll back.
        const GRACE: Duration = Duration::from_secs(4);
        let begun = clock::tick();
        let give_up = after(begun, settings::shutdown_timeout() + GRACE);
        self.entry.can_rebalance.clear();
        loop {
            let now = clock::tick();
            self.may_try_again(now);
            self.release_jobs_of_ended_workers(now)?;
            if self.pool.ask_all_to_leave(now) == 0 || now > give_up {
                return Ok(());
            }
            self.pool.terminate_overdue(now);
            latch::wait(Some(MOMENT));
        }
    }
}
