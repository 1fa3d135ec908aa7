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
use crate::pause::Reminder;
use crate::pg::background;
use crate::pg::catch::{Failure, Level, log, log_with};
use crate::pg::clock::{self, Tick, Timestamp, after, until, until_tick};
use crate::pg::text::DbText;
use crate::pg::{fault, latch, xact};
use crate::pool::Pool;
use crate::queue::ready::{self, Found, Search};
use crate::queue::{queues, recover, renew};
use crate::ready::{Place, Ready};
use crate::registry::{self, Tasks};
use crate::schedules::{self, fire::Schedules};
use crate::shmem::{self, Board, Database, Held, Shelf, State};
use crate::{guc, holds, marks};
use crate::{schema, subscription, wake};
use pgrx::pg_sys::Oid;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// What `backend_type` says.
pub const KIND: &str = "kongtask scheduler";
/// The function that a scheduler process begins with.
pub const MAIN: &str = "kongtask_scheduler_main";

background::main_function!(kongtask_scheduler_main, main);

fn main(database: usize) -> Result<(), Failure> {
    let database = Oid::from(database as u32);
    let Some(board) = shmem::board() else { return Ok(()) };
    fault::point("starting")?;
    let Some(entry) = board.enter(database, background::pid()) else { return Ok(()) };
    entry.scheduler.is_mine();
    background::at_exit(leave, database.to_u32() as usize);
    if entry.is_held() {
        // Who holds it looks for a scheduler's pid afterwards: one of the two sees the other.
        entry.left.store(true, SeqCst);
        return Ok(());
    }
    latch::receive_signals();
    background::connect_as_server(database);
    let Some((name, extension)) = introduce(database)? else {
        fault::point("absent")?;
        entry.absent.store(true, SeqCst);
        entry.left.store(true, SeqCst);
        return Ok(());
    };
    schema::while_there_is(extension, || serve(board, entry, database, name, extension))?;
    entry.left.store(true, SeqCst);
    Ok(())
}

fn serve(board: Board, entry: &'static Database, database: Oid, name: DbText, extension: Oid) -> Result<(), Error> {
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
        held_up: None,
        may_write: true,
        tasks: Rc::default(),
        missing_roles: Reminder::default(),
        name,
        fed_by: None,
        fed: Reminder::default(),
        schedules: Schedules::new(database),
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
            let soon = after(clock::tick(), guc::poll_interval());
            this.search_at = this.search_at.min(this.may_search_at.max(soon));
        }
    }
    this.stop_workers()?;
    log(Level::Log, format!("{KIND} ({}) stopped", this.name));
    Ok(())
}

/// The process ends: the launcher sees to what follows.
fn leave(database: usize) {
    let Some(board) = shmem::board() else { return };
    if let Some(entry) = board.database(Oid::from(database as u32)) {
        entry.serving.store(false, SeqCst);
        entry.fed_since.store(0, SeqCst);
        entry.scheduler.is_nobodys();
        entry.scheduler_pid.store(0, SeqCst);
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
    entry: &'static Database,
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
    held_up: Option<Tick>,
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
    schedules: Schedules,
}

impl Scheduler {
    /// Whether it is to go on; reads the catalog only if something there may have changed.
    fn stays(&mut self) -> Result<bool, Error> {
        latch::serve_interrupts();
        if latch::stop_asked() || self.entry.leave.load(SeqCst) || self.entry.is_held() {
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
            self.entry.wanted.store(true, SeqCst);
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
        // Before all that may take longer: they are to be punctual.
        self.schedules.fire(self.entry)?;
        self.release_what_the_gone_held(now)?;
        self.recover()?;
        xact::begin_for_queue();
        let tasks = registry::tasks()?;
        let roles = tasks.roles();
        if !Rc::ptr_eq(&tasks, &self.tasks) {
            self.search_at = now;
            for shelf in roles.iter().filter_map(|&role| self.board.shelf(self.database, role)) {
                // What was passed for its task may be somebody's now.
                shelf.with(|ready| ready.lower(Place::START));
            }
        }
        self.see_to_what_nobody_noted(now);
        let short = self.look(&tasks, &roles, now)?;
        xact::commit()?;
        if !Rc::ptr_eq(&tasks, &self.tasks) {
            // Something has changed: what failed may work now.
            self.pool.forgive();
        }
        if tasks.waiting != self.tasks.waiting {
            self.missing_roles.over();
        }
        self.tasks = tasks.clone();
        self.see_to_roles(now)?;
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

    /// Says which tasks wait for a role that is not there, and has the table call those by their new names that were renamed.
    fn see_to_roles(&mut self, now: Tick) -> Result<(), Error> {
        const MOST: usize = 10;
        let tasks = self.tasks.clone();
        if !tasks.waiting.is_empty() && self.missing_roles.is_due(now, Duration::ZERO) {
            let named = tasks.waiting.iter().take(MOST).map(|(task, role)| format!("\"{task}\" (role {role})"));
            log_with(
                Level::Warning,
                format!("jobs of {} tasks wait, as the roles that these run as do not exist", tasks.waiting.len()),
                Some(format!("Tasks: {}.", named.collect::<Vec<_>>().join(", "))),
                Some(
                    "Create the role, or register the task as another with kongtask.register_task, or unregister it."
                        .into(),
                ),
            );
        }
        if tasks.has_former_names {
            self.briefly("renaming", registry::rename_roles)?;
        }
        if self.schedules.has_former_names() {
            self.briefly("renaming", schedules::table::rename_roles)?;
        }
        Ok(())
    }

    /// While a subscription feeds the queue: no worker stays, and what runs may end as when everything is to stop.
    fn keep_still(&mut self, now: Tick) -> Result<(), Error> {
        // What the publisher's workers hold then is released once the jobs are ours.
        self.released = false;
        self.entry.fed_since.compare_exchange(0, clock::now(), SeqCst, SeqCst).ok();
        self.entry.elastic.store(false, SeqCst);
        if self.fed.is_due(now, Duration::ZERO) {
            let subscription = self.fed_by.clone().unwrap_or_default();
            holds::remind_of_subscription(&self.name, &subscription);
        }
        self.release_what_the_gone_held(now)?;
        self.renew(now)?;
        self.pool.ask_all_to_leave(now);
        self.pool.terminate_overdue(now);
        // Nobody tells of what comes that way, or of nothing coming any more.
        wake::take_due(self.entry);
        self.search_at = after(now, guc::poll_interval());
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
        self.schedules.start_over(self.database);
        Ok(())
    }

    /// Sees to it that what can run is on its role's shelf, and wakes idle workers for it; the roles that have more jobs than
    /// idle workers.
    fn look(&mut self, tasks: &Tasks, roles: &[Oid], now: Tick) -> Result<Vec<Oid>, Error> {
        let time = clock::now();
        let scope = self.scope(now, time);
        fault::point("looking")?;
        let begun = Instant::now();
        let mut short = Vec::new();
        for &role in roles {
            let shelf = self.board.shelf(self.database, role);
            let waiting = match (shelf, &scope) {
                (None, _) => self.search(tasks, role, ready::search)?.hints.len(),
                (Some(shelf), Scope::All(since)) => {
                    let known = shelf.with(|ready| ready.begins());
                    let found = self.search(tasks, role, ready::search)?;
                    self.stock(shelf, found, known);
                    // What fell due behind the first job that was known is on no list yet.
                    let found = self.search(tasks, role, |search| ready::search_due(search, *since))?;
                    self.stock(shelf, found, Place::END)
                }
                (Some(shelf), Scope::DueSince(since)) => {
                    let found = self.search(tasks, role, |search| ready::search_due(search, *since))?;
                    self.stock(shelf, found, Place::END)
                }
                (Some(shelf), Scope::Nothing) => shelf.with(|ready| waiting(ready)),
            };
            if wake::wake(self.board, self.database, role, waiting) < waiting {
                short.push(role);
            }
        }
        if !matches!(scope, Scope::Nothing) {
            self.searched = time;
            if let Some(due) = ready::next_due(time)? {
                self.entry.lower_due(due);
            }
        }
        if matches!(scope, Scope::All(_)) {
            self.has_orphaned_queues = queues::has_orphaned()?;
            // A safety net, which is to take little of the time however much has to be passed.
            self.may_search_at = after(now, begun.elapsed() * 50);
            self.search_at = self.may_search_at.max(after(now, guc::poll_interval()));
        }
        self.see_to_what_was_skipped(now);
        Ok(short)
    }

    /// Has all workers search the table from its beginning.
    fn have_all_searched(&self) {
        for shelf in self.board.shelves_of(self.database) {
            shelf.with(|ready| ready.lower(Place::START));
        }
    }

    /// If somebody has committed what was prepared, all is searched again, but no more often than the whole table is anyway: there may be
    /// hundreds of those in a second, none of which has added a job.
    fn see_to_what_nobody_noted(&mut self, now: Tick) {
        if now < self.may_search_at {
            if self.entry.unnoted.load(SeqCst) {
                self.search_at = self.search_at.min(self.may_search_at);
            }
        } else if self.entry.unnoted.swap(false, SeqCst) {
            self.search_at = now;
            self.have_all_searched();
        }
    }

    /// Has the table be searched again soon if somebody had a row that may be free by then.
    fn see_to_what_was_skipped(&mut self, now: Tick) {
        // Whoever holds a row for long is not asked more often than that.
        const SOON: Duration = Duration::from_millis(100);
        if self.entry.skipped.swap(false, SeqCst) {
            self.search_at = self.search_at.min(self.may_search_at.max(after(now, SOON)));
        }
    }

    /// What to search for now.
    fn scope(&mut self, now: Tick, time: Timestamp) -> Scope {
        let all = now >= self.search_at;
        if !all && time < self.entry.next_due.load(SeqCst) {
            return Scope::Nothing;
        }
        // Before the snapshot: what is committed after it is told anew.
        let told = wake::take_due(self.entry);
        let since = told.min(self.searched);
        if all { Scope::All(since) } else { Scope::DueSince(since) }
    }

    /// The first jobs of a role that can run, as `search` finds them.
    fn search(
        &mut self,
        tasks: &Tasks,
        role: Oid,
        search: impl FnOnce(&Search) -> Result<Found, Error>,
    ) -> Result<Found, Error> {
        const MOST: usize = 500;
        let (tasks, forbidden_flags) = (tasks.of_role(role), guc::forbidden_flags());
        let found =
            search(&Search { tasks: &tasks, forbidden_flags: &forbidden_flags, from: Place::START, most: MOST })?;
        // What came with the lock of a worker that is not here is released in the next pass.
        self.released &= !found.has_dead_locks;
        Ok(found)
    }

    /// Puts on a shelf what was found before the place where what was `known` began, and nobody runs; how many jobs wait
    /// there. Of what somebody may run among others, it is seen later whether it was so.
    fn stock(&self, shelf: &Shelf, found: Found, known: Place) -> usize {
        let held: Vec<Held> = self.board.workers_of(self.database).filter_map(|(_, worker)| worker.held()).collect();
        let (mut hints, mut unsure) = (Vec::new(), false);
        for hint in found.hints.into_iter().filter(|hint| hint.place < known) {
            match held.iter().filter(|held| held.may_be(&hint)).map(Held::is_one).max() {
                None => hints.push(hint),
                Some(is_run) => unsure |= !is_run,
            }
        }
        if unsure {
            self.entry.skipped.store(true, SeqCst);
        }
        shelf.with(|ready| {
            hints.into_iter().for_each(|hint| ready.offer(hint));
            if found.to < known {
                ready.lower(found.to);
            }
            waiting(ready)
        })
    }

    /// How long it is until there is something to do, if nobody tells of it.
    fn next_pass(&mut self) -> Option<Duration> {
        let has_to_recover = !self.released || self.has_orphaned_queues;
        if self.held_up.is_none() && self.fed_by.is_none() && has_to_recover {
            return Some(Duration::ZERO);
        }
        let ticks = [self.search_at, self.renew_at, self.pool.next_event(clock::tick())];
        let next = ticks.into_iter().chain(self.held_up).min().and_then(until_tick);
        let fires = self.schedules.next().filter(|_| self.fed_by.is_none()).and_then(until);
        next.into_iter().chain(until(self.entry.next_due.load(SeqCst))).chain(fires).min()
    }

    /// After a crash of the server, a promotion or a restore, once each: releases what bears our mark and no living worker
    /// holds, and charges who crashed. And whenever a search has found such locks, or queues that are locked for nothing.
    fn recover(&mut self) -> Result<(), Error> {
        if self.fed_by.is_some() {
            return Ok(());
        }
        if !self.released {
            let living: Vec<DbText> =
                self.board.workers_of(self.database).filter_map(|(_, worker)| worker.id()).collect();
            let released = self.briefly("recovering", || recover::release_all_but(shmem::ID_PREFIX, &living))?;
            self.released = released.is_some();
            if let Some(released @ 1..) = released {
                log(Level::Log, format!("kongtask released {released} jobs whose workers are gone"));
            }
        }
        if !self.charged {
            self.charged = self.settle_charges()?;
        }
        if self.has_orphaned_queues
            && let Some(released) = self.briefly("unlocking", queues::release_orphaned)?
        {
            self.has_orphaned_queues = false;
            log(Level::Log, format!("kongtask released {released} queues that were locked for jobs that are gone"));
        }
        Ok(())
    }

    /// Jobs whose workers crashed have failed; whether that is said of all of them.
    fn settle_charges(&mut self) -> Result<bool, Error> {
        let mut was_charged = false;
        let settled = marks::settle(self.database, |charge| {
            let Some(job) = charge.job else {
                marks::suspect(self.database, charge.task);
                log_with(
                    Level::Warning,
                    "a worker crashed while many jobs shared one call of their handler",
                    Some(format!(
                        "Jobs of this task are run one by one for {:?}, until it is found which it is.",
                        marks::SUSPICION
                    )),
                    None,
                );
                return Ok(true);
            };
            let Some(charged) = self.briefly("charging", || recover::charge(job, charge.crashed))? else {
                return Ok(false);
            };
            if let Some(charged) = charged {
                let what = if charged.for_good { "failed for good" } else { "failed" };
                log(Level::Warning, format!("job {job} ({}) {what}: {}", charged.task, charged.error));
            }
            was_charged = true;
            Ok::<_, Error>(true)
        });
        if was_charged {
            // Not before: workers have passed the job over as long as it had its charge.
            self.have_all_searched();
        }
        settled
    }

    /// A worker that ended while it ran a job: the job can run again at once.
    fn release_what_the_gone_held(&mut self, now: Tick) -> Result<(), Error> {
        let board = self.board;
        for (slot, worker) in board.workers_of(self.database) {
            if worker.state() != State::Gone {
                continue;
            }
            if let (Some(held), Some(id)) = (worker.held(), worker.id()) {
                let release = || recover::release_all_of(&id, held.ids);
                let Some(released) = self.briefly("releasing", release)? else {
                    continue;
                };
                match released {
                    0 => (),
                    1 => log(Level::Log, format!("job {} was released: the worker that ran it is gone", held.ids.0)),
                    _ => log(Level::Log, format!("{released} jobs were released: the worker that ran them is gone")),
                }
            }
            self.pool.gone(slot, now);
        }
        Ok(())
    }

    /// Renews the locks of jobs that have run, or gone without renewal, for long: at two thirds of kongtask.job_expiry at
    /// the latest.
    fn renew(&mut self, now: Tick) -> Result<(), Error> {
        self.renew_at = after(now, renewal_interval());
        let board = self.board;
        for (_, worker) in board.workers_of(self.database) {
            if worker.state() == State::Running
                && after(worker.renewed.load(SeqCst), renewal_interval()) <= now
                && let (Some(held), Some(id)) = (worker.held(), worker.id())
            {
                // Not before: a scheduler that fails here leaves it to the next.
                if self.briefly("renewing", || renew::renew(&id, held.ids))?.is_some() {
                    worker.renewed.store(now, SeqCst);
                }
            }
        }
        Ok(())
    }

    /// A pass begins: what was held up may be tried again once the moment is over.
    fn may_try_again(&mut self, now: Tick) {
        self.may_write = self.held_up.is_none_or(|until| until <= now);
        if self.may_write {
            self.held_up = None;
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
        xact::begin_for_queue_within(if self.held_up.is_none() { c"500ms" } else { c"1ms" });
        let result = f().and_then(|result| {
            fault::point(what)?;
            xact::commit()?;
            Ok(Some(result))
        });
        match result {
            Err(error) if [*b"55P03", *b"57014"].contains(&error.read().sqlstate) => {
                xact::abort();
                self.held_up = Some(after(clock::tick(), MOMENT));
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
        let give_up = after(begun, guc::shutdown_timeout() + GRACE);
        self.entry.elastic.store(false, SeqCst);
        loop {
            let now = clock::tick();
            self.may_try_again(now);
            self.release_what_the_gone_held(now)?;
            if self.pool.ask_all_to_leave(now) == 0 || now > give_up {
                return Ok(());
            }
            self.pool.terminate_overdue(now);
            latch::wait(Some(MOMENT));
        }
    }
}

/// What the scheduler searches the table for.
enum Scope {
    Nothing,
    /// Jobs that fell due since then.
    DueSince(Timestamp),
    /// Everything, as a hint may have been lost, and what fell due since then.
    All(Timestamp),
}

/// How many jobs wait on a shelf, as far as it knows.
fn waiting(ready: &Ready) -> usize {
    ready.len().max(usize::from(ready.has_more()))
}

/// A lock is renewed well before anyone may take it to be dead: external workers take 4 hours unless told otherwise.
fn renewal_interval() -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    (guc::job_expiry() / 3).min(LONGEST)
}
