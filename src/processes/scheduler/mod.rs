//! The scheduler. There is one for each database. It connects as the bootstrap superuser and runs no user code. It
//! starts and stops workers, releases what ended workers held, wakes idle workers for jobs that fall due, renews locks,
//! and lets running jobs end when the server or the database stops.
//!
//! ```text
//! start ──► extension? ── no ──► end
//!             │ yes
//!             ▼
//!          release the jobs of workers that do not live
//!             ▼
//!   ┌──► housekeeping ──► search ──► pool ──► renew ──► sleep ──┐   woken by: a commit with an earlier run_at, a commit
//!   └───────────────────────────────────────────────────────────┘   that finds too few idle workers, the end of a worker,
//!        │    │ told to leave, or the server stops                  a reload
//!        │    ▼
//!        │  stop the workers: asked, then terminated after kongtask.shutdown_timeout
//!        │
//!        └─ nothing to do for kongtask.scheduler_idle_timeout ──► hand over to the launcher ──► one more pass ──► end
//! ```
//!
//! A scheduler leaves when its database has no worker and nothing that only a scheduler would notice: no job that can run,
//! nothing to be released, charged, cancelled or tried again. What falls due later is on the board, and the launcher
//! watches it: see [`crate::shared::DatabaseEntry::attendance`].

mod cancels;
mod housekeeping;
mod due_search;
mod leaving;

use super::backoff::Reminder;
use super::pool::Pool;
use crate::error::Error;
use crate::holds::{self, subscription};
use crate::pg::background;
use crate::pg::catch::{Failure, Level, log};
use crate::pg::clock::{self, NEVER, Tick, Timestamp, after, until, until_tick};
use crate::pg::text::DbText;
use crate::pg::{fault, latch, xact};
use crate::schedules::fire::Schedules;
use crate::shared::ready_list::Position;
use crate::shared::{self, Board, DatabaseEntry, limits};
use crate::tasks::registry::{self, Tasks};
use crate::{schema, settings};
use pgrx::pg_sys::Oid;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Its `backend_type`.
pub const KIND: &str = "kongtask scheduler";
/// The C function with which its process begins.
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
        // A session that holds the database looks for a scheduler's pid after it has set the hold, so one of the two
        // sees the other.
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
    // Before the first look: from here on, commits tell this process.
    let watched = entry.attendance.take_back().then_some(entry);
    let was_at_rest = entry.was_at_rest.swap(false, SeqCst) && watched.is_some();
    let mut this = Scheduler {
        board,
        entry,
        database,
        extension,
        pool: Pool::new(board, database, name.clone()),
        search_at: 0,
        may_search_at: 0,
        searched: i64::MIN,
        unsure_since: NEVER,
        unsure_at: NEVER,
        // Those that a former scheduler was told of.
        skipped_at: 0,
        skipped_pause: due_search::SOON,
        has_unlisted_jobs: false,
        renew_at: 0,
        released: was_at_rest,
        charged: false,
        has_orphaned_queues: false,
        retry_writes_at: None,
        may_write: true,
        tasks: Rc::default(),
        lasting_pauses: 0,
        missing_roles: Reminder::default(),
        name,
        fed_by: None,
        fed: Reminder::default(),
        schedules: Schedules::new(database, watched),
        has_work: true,
        idle_since: entry.is_routine.load(SeqCst).then_some(i64::MIN),
        cancels_at: NEVER,
        interrupt_at: NEVER,
        runs_at: clock::now(),
    };
    if !this.stays()? {
        return Ok(());
    }
    fault::point("introduced")?;
    this.recover()?;
    entry.serving.store(true, SeqCst);
    board.launcher().set();
    // Not at LOG where schedulers come and go as jobs do.
    let level = if settings::scheduler_idle_timeout().is_none() { Level::Log } else { Level::Debug };
    log(level, format!("{KIND} ({}) started", this.name));
    while this.stays()? {
        this.pass()?;
        if this.leaves()? {
            break;
        }
        latch::wait(this.next_pass());
        if latch::reload_if_asked() {
            let soon = after(clock::tick(), settings::poll_interval());
            this.search_at = this.search_at.min(this.may_search_at.max(soon));
            // Workers look again by themselves; where there are none, other flags may be forbidden now.
            this.has_unlisted_jobs = true;
        }
    }
    this.stop_workers()?;
    log(level, format!("{KIND} ({}) stopped", this.name));
    Ok(())
}

/// Runs when the process ends: the launcher decides what follows.
fn leave(database: usize) {
    let Some(board) = shared::board() else { return };
    if let Some(entry) = board.database(Oid::from(database as u32)) {
        entry.serving.store(false, SeqCst);
        entry.is_idle.store(false, SeqCst);
        entry.gives_way.store(false, SeqCst);
        entry.fed_since.store(0, SeqCst);
        entry.scheduler.disown();
        entry.attendance.end();
    }
    board.launcher().set();
}

/// Returns the database's name and the extension's OID, or `None` if the extension is not installed.
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
    /// When to search the whole table again for jobs that no commit reported, and the earliest time for that.
    search_at: Tick,
    may_search_at: Tick,
    /// All jobs with a run_at up to this time have been searched for.
    searched: Timestamp,
    /// The earliest run_at of the jobs that have fallen due and may be among several that a worker has taken, and when
    /// to search for them again. The search of the whole table would find them too, but may be a long time off.
    unsure_since: Timestamp,
    unsure_at: Tick,
    /// When to search for the jobs that workers have skipped, and how long after that: longer while those that are found are
    /// skipped again.
    skipped_at: Tick,
    skipped_pause: Duration,
    /// True while roles that have no ready list, as they have no worker, have jobs that can run.
    has_unlisted_jobs: bool,
    /// When to look which locks must be renewed: no process reports a job that begins.
    renew_at: Tick,
    /// True once the jobs of workers that ended before this scheduler started are released: from the beginning, if the
    /// former scheduler left nothing to be released.
    released: bool,
    /// True once the crashes of jobs are charged.
    charged: bool,
    /// True while queues are locked for jobs that are gone, or have kept the rows of their locks for long.
    has_orphaned_queues: bool,
    /// When to write to the tables again, after another transaction's lock kept the scheduler from it.
    retry_writes_at: Option<Tick>,
    /// True if this pass may write to the tables.
    may_write: bool,
    /// The tasks at the latest pass.
    tasks: Rc<Tasks>,
    /// How many pauses lasted at the latest pass.
    lasting_pauses: usize,
    /// Limits how often the log names tasks whose role does not exist.
    missing_roles: Reminder,
    /// The name of the database.
    name: DbText,
    /// The subscription that feeds the queue, if there is one: then no job runs.
    fed_by: Option<DbText>,
    /// Limits how often the log says so.
    fed: Reminder,
    schedules: Schedules,
    /// When to look again at jobs that are to be cancelled, and when to interrupt their calls again.
    cancels_at: Tick,
    interrupt_at: Tick,
    /// When to look again at the tables of kongtask.runs.
    runs_at: Timestamp,
    /// True if the latest search has found jobs that no worker had been woken for.
    has_work: bool,
    /// Since when there has been nothing to do; `None` while there is.
    idle_since: Option<Tick>,
}

impl Scheduler {
    /// Returns true while the scheduler is to go on. Reads the catalog only if something there may have changed.
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
            // It was dropped, perhaps created again: a new scheduler finds out.
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
        // Before all that may take longer, as schedules are to be punctual.
        self.schedules.fire(self.entry)?;
        self.release_jobs_of_ended_workers(now)?;
        self.settle_cancels(now)?;
        self.recover()?;
        xact::begin_for_queue();
        let tasks = registry::tasks()?;
        let roles = tasks.roles();
        let lasting = tasks.pauses.lasting(clock::now());
        if !Rc::ptr_eq(&tasks, &self.tasks) || lasting != self.lasting_pauses {
            self.lasting_pauses = lasting;
            self.search_at = now;
            limits::forget_waiting(self.database, |id| tasks.limits.get(id).is_some());
            for list in roles.iter().filter_map(|&role| self.board.list(self.database, role)) {
                // A job that was skipped may have a task of this role now, or a pause that has ended.
                list.with(|ready| ready.lower(Position::START));
            }
        }
        self.search_after_unnoted_commits(now);
        self.look_for_waiting(&tasks)?;
        let understaffed = self.look(&tasks, &roles, now)?;
        xact::commit()?;
        self.has_work = !understaffed.is_empty();
        if !Rc::ptr_eq(&tasks, &self.tasks) {
            // How long rows are kept may have changed.
            self.runs_at = clock::now();
            // What failed may work now that the tasks have changed.
            self.pool.forgive();
        }
        if tasks.waiting != self.tasks.waiting {
            self.missing_roles.over();
        }
        self.tasks = tasks.clone();
        self.report_missing_roles(now)?;
        self.remove_ended_pauses()?;
        self.turn_run_tables()?;
        self.pool.balance(&roles, &understaffed, now);
        if self.has_unlisted_jobs && self.pool.can_start_none() {
            // Nor would more of them change anything: commits need not tell.
            self.entry.has_unlisted_jobs.store(true, SeqCst);
        }
        let look_again = || self.entry.scheduler.set();
        self.entry.wants_idle_notice.set(self.pool.waits_for_slot, look_again);
        self.entry.can_rebalance.set(self.pool.can_rebalance(&roles), look_again);
        self.pool.terminate_overdue(now);
        self.renew(now)
    }

    /// Stops all workers, as a subscription feeds the queue. Running jobs may end as at a shutdown.
    fn keep_still(&mut self, now: Tick) -> Result<(), Error> {
        // Jobs that the publisher's workers hold are released once no subscription feeds them.
        self.released = false;
        self.entry.fed_since.compare_exchange(0, clock::now(), SeqCst, SeqCst).ok();
        self.entry.can_rebalance.clear();
        self.entry.starve(None, now);
        if self.fed.is_due(now, Duration::ZERO) {
            let subscription = self.fed_by.clone().unwrap_or_default();
            holds::remind_of_subscription(&self.name, &subscription);
        }
        self.release_jobs_of_ended_workers(now)?;
        self.renew(now)?;
        self.pool.ask_all_to_leave(now);
        self.pool.terminate_overdue(now);
        // No commit reports replicated jobs, or the end of replication: then everything is searched.
        self.entry.next_due.take();
        self.entry.next_start.take();
        (self.unsure_since, self.unsure_at, self.skipped_at) = (NEVER, NEVER, NEVER);
        self.search_at = after(now, settings::poll_interval());
        Ok(())
    }

    /// Starts over once no subscription feeds the queue: anything may have changed without a report.
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
        self.schedules.start_over(self.database);
        Ok(())
    }

    /// Returns how long the scheduler may sleep; `None` until it is woken.
    fn next_pass(&mut self) -> Option<Duration> {
        let has_to_recover = !self.released || self.has_orphaned_queues;
        if self.retry_writes_at.is_none() && self.fed_by.is_none() && has_to_recover {
            return Some(Duration::ZERO);
        }
        let now = clock::tick();
        // One that has passed: it stays for what is due soon.
        let leaves_at = Some(self.leaves_at()).filter(|&at| at > now).unwrap_or(NEVER);
        let next_start = self.entry.next_start.get();
        let ticks = [
            self.search_at,
            self.unsure_at,
            self.skipped_at,
            self.renew_at,
            self.cancels_at,
            next_start,
            leaves_at,
            self.pool.next_event(now),
        ];
        let next = ticks.into_iter().chain(self.retry_writes_at).min().and_then(until_tick);
        let fires = self.schedules.next().filter(|_| self.fed_by.is_none()).and_then(until);
        let time = clock::now();
        if self.fed_by.is_none() && self.tasks.pauses.lasting(time) != self.lasting_pauses {
            return Some(Duration::ZERO);
        }
        let resumes = until(self.tasks.pauses.next_end(time));
        let turns = until(self.runs_at).filter(|_| self.fed_by.is_none());
        next.into_iter().chain(turns).chain(until(self.entry.next_due.get())).chain(fires).chain(resumes).min()
    }

    /// Begins a pass: writes may be tried again once their time has come.
    fn may_try_again(&mut self, now: Tick) {
        self.may_write = self.retry_writes_at.is_none_or(|until| until <= now);
        if self.may_write {
            self.retry_writes_at = None;
        }
    }

    /// Runs `f` in a transaction of its own. Returns `None` on lock timeout or cancel, and sets the time of the next
    /// try; until then it returns `None` at once. The scheduler must not block, as every role of the database waits for
    /// it. After the first timeout of a pass it waits a millisecond at most, so that rows that are not locked are still
    /// served.
    fn briefly<T>(&mut self, what: &'static str, f: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        const MOMENT: Duration = Duration::from_millis(500);
        if !self.may_write {
            return Ok(None);
        }
        xact::begin_for_queue_within(if self.retry_writes_at.is_none() { 500 } else { 1 });
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

    /// Asks all workers to end, and terminates those that have not after kongtask.shutdown_timeout.
    fn stop_workers(&mut self) -> Result<(), Error> {
        const MOMENT: Duration = Duration::from_millis(100);
        /// The time for terminated workers to roll back.
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
