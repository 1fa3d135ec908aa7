//! The launcher. There is one for each server, connected to no database. It starts a scheduler in each database that is
//! served, a few at a time, and restarts schedulers that failed, after pauses that grow.

use crate::error::Error;
use crate::holds;
use crate::pg::background::{self, Fate, Started};
use crate::pg::catch::{Level, log, log_with};
use crate::pg::clock::{self, Tick, after, until_tick};
use crate::pg::text::DbText;
use crate::pg::{fault, latch, xact};
use crate::processes::backoff::{Backoff, Reminder};
use crate::processes::pool::{SLOT_IS_FREE, TURN};
use crate::processes::scheduler;
use crate::settings;
use crate::shared::{self, Board, DatabaseEntry, Restoring, State, counters, limits};
use pgrx::pg_sys::{InvalidOid, Oid};
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const KIND: &str = "kongtask launcher";

/// How often to look for databases that appear in other ways than CREATE DATABASE and CREATE EXTENSION.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// How many schedulers may find out at once whether their database has the extension.
const PROBES: usize = 3;

/// Registers the launcher. To be called while the library is preloaded.
pub fn register() {
    background::register_static(KIND, "kongtask_launcher_main");
}

background::main_function!(kongtask_launcher_main, main);

fn main(_: usize) -> Result<(), Error> {
    let Some(board) = shared::board() else { return Ok(()) };
    latch::receive_signals();
    background::connect_to_no_database();
    background::introduce_as(KIND);
    background::report_idle();
    board.launcher().is_mine();
    log(Level::Log, format!("{KIND} started"));
    let mut launcher = Launcher { board, known: HashMap::new(), no_slot: Backoff::new() };
    while !latch::stop_asked() {
        let next_look = launcher.look()?;
        latch::wait(until_tick(next_look));
        latch::reload_if_asked();
    }
    log(Level::Log, format!("{KIND} stopped"));
    Ok(())
}

struct Launcher {
    board: Board,
    known: HashMap<Oid, Known>,
    no_slot: Backoff,
}

/// What the launcher knows of a database.
#[derive(Default)]
struct Known {
    scheduler: Option<Started>,
    /// True if the extension was not installed when a scheduler last looked.
    lacks_extension: bool,
    failing: Backoff,
    /// Limits how often the log says that the database is held.
    held: Reminder,
    /// True if the rest of a dump was waited for when the log last said so.
    waited: bool,
}

impl Known {
    /// Logs from time to time why the database is held. Returns when to look again.
    fn remind(&mut self, name: &DbText, entry: &DatabaseEntry, now: Tick) -> Option<Tick> {
        const AT_FIRST: Duration = Duration::from_secs(60);
        let restoring = entry.restores.all().first().copied()?;
        let waits_until = match restoring {
            Restoring::Loading { .. } => None,
            Restoring::Waiting { until, .. } => Some(until),
        };
        if self.waited != waits_until.is_some() {
            self.waited = waits_until.is_some();
            self.held.over();
        }
        // The session has already logged that it loads a dump.
        if self.held.is_due(now, if self.waited { Duration::ZERO } else { AT_FIRST }) {
            holds::remind(name, restoring);
        }
        [waits_until, self.held.next()].into_iter().flatten().min()
    }
}

impl Launcher {
    /// Compares the schedulers that run with those that should. Returns when to look again.
    fn look(&mut self) -> Result<Tick, Error> {
        xact::begin();
        let databases = background::databases();
        counters::forget(|database| background::database_name(database).is_none());
        limits::forget(|database| background::database_name(database).is_none());
        xact::commit()?;
        let now = clock::tick();
        self.reap(&databases, now);
        self.clear_up(&databases);
        let mut next_look = after(now, BETWEEN_LOOKS);
        fault::point("launching")?;
        for database in databases.iter().filter(|database| settings::serves(&database.name)) {
            if let Some(again) = self.see_to(database, now) {
                next_look = next_look.min(again);
            }
        }
        Ok(next_look)
    }

    /// Finds out why schedulers have ended.
    fn reap(&mut self, databases: &[background::Database], now: Tick) {
        for (&oid, known) in &mut self.known {
            if known.scheduler.as_ref().is_none_or(|started| started.fate() != Fate::Gone) {
                continue;
            }
            known.scheduler = None;
            let entry = self.board.database(oid);
            known.lacks_extension = entry.is_some_and(|entry| entry.lacks_extension.load(SeqCst));
            if known.lacks_extension
                && let Some(entry) = entry
            {
                self.board.forget(entry);
            } else if !entry.is_some_and(|entry| entry.ended_in_order.load(SeqCst))
                && let Some(database) = databases.iter().find(|database| database.oid == oid)
            {
                let pause = known.failing.longer(now);
                log_with(
                    Level::Warning,
                    format!(
                        "kongtask scheduler of database \"{}\" failed and will be started again in {pause:?}",
                        database.name
                    ),
                    None,
                    Some("The scheduler's own error message precedes this line in the log.".into()),
                );
            }
        }
    }

    /// Tells schedulers of databases that are not served to leave, and forgets databases that are gone.
    fn clear_up(&mut self, databases: &[background::Database]) {
        let is_served = |oid| databases.iter().any(|database| database.oid == oid && settings::serves(&database.name));
        for entry in self.board.databases().iter().filter(|entry| entry.oid.get() != InvalidOid) {
            let oid = entry.oid.get();
            if is_served(oid) {
                continue;
            }
            if entry.attendance.take()
                && let Some(known) = self.known.get_mut(&oid)
            {
                // It may have the extension by now, and be served again later.
                known.lacks_extension = false;
            }
            if entry.attendance.has_scheduler() {
                entry.must_leave.store(true, SeqCst);
                entry.scheduler.set();
            } else if self.known.get(&oid).is_none_or(|known| known.scheduler.is_none()) {
                self.board.forget(entry);
            }
        }
        let exists = |oid| databases.iter().any(|database| database.oid == oid);
        for worker in self.board.workers().iter().filter(|worker| worker.state() == State::Gone) {
            // Its jobs went with their database.
            if !exists(worker.database.get()) {
                worker.free();
            }
        }
        self.known.retain(|&oid, _| exists(oid));
    }

    /// Starts the scheduler of a database if it needs one. Returns when to look at it again, if that is before the next
    /// look at all.
    fn see_to(&mut self, database: &background::Database, now: Tick) -> Option<Tick> {
        let board = self.board;
        let probing = self.probing();
        let known = self.known.entry(database.oid).or_default();
        let entry = board.database(database.oid);
        if entry.is_some_and(|entry| entry.serving.load(SeqCst)) {
            known.failing.over();
        }
        // It was started by this launcher, or by one before it.
        if known.scheduler.is_some() || entry.is_some_and(|entry| entry.attendance.has_scheduler()) {
            return None;
        }
        let is_held = entry.is_some_and(DatabaseEntry::is_held);
        let is_wanted = entry.is_some_and(|entry| entry.attendance.is_wanted());
        if is_held {
            return entry.and_then(|entry| known.remind(&database.name, entry, now));
        }
        known.held.over();
        if known.lacks_extension && !is_wanted {
            return None;
        }
        if let Some(wait) = known.failing.until().filter(|&until| until > now) {
            return Some(wait);
        }
        if probing >= PROBES {
            // A scheduler wakes the launcher once it knows.
            return None;
        }
        self.start(database, now)
    }

    /// Returns how many schedulers are finding out whether the extension is installed.
    fn probing(&self) -> usize {
        let is_probing = |oid: Oid, known: &Known| {
            known.scheduler.as_ref().is_some_and(|started| started.fate() != Fate::Gone)
                && self.board.database(oid).is_none_or(|entry| !entry.serving.load(SeqCst))
        };
        self.known.iter().filter(|&(&oid, known)| is_probing(oid, known)).count()
    }

    fn start(&mut self, database: &background::Database, now: Tick) -> Option<Tick> {
        let entry = self.board.prepare(database.oid)?;
        let title = format!("{} ({})", scheduler::KIND, database.name);
        let started = background::start(scheduler::KIND, &title, scheduler::MAIN, database.oid.to_u32() as usize);
        let known = self.known.entry(database.oid).or_default();
        known.lacks_extension = false;
        known.scheduler = started;
        entry.starving.store(known.scheduler.is_none(), SeqCst);
        if known.scheduler.is_some() {
            self.no_slot.over();
            return None;
        }
        entry.attendance.want();
        if self.no_slot.until().is_none_or(|until| until <= now) {
            self.no_slot.longer(now);
            background::warn_of_no_slot(&format!("no scheduler could be started in database \"{}\"", database.name));
        }
        self.board.ask_for_slot(database.oid, TURN, now);
        Some(after(now, SLOT_IS_FREE))
    }
}
