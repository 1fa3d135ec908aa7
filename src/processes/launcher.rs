//! The launcher. There is one for each server, connected to no database. It starts a scheduler in each database that is
//! served, a few at a time, and restarts schedulers that failed, after pauses that grow.
//!
//! ```text
//!   not looked at ──► a scheduler is started ──► it serves ──► it leaves ──► watched ──┐
//!                       ▲        ▲    │ no extension                                   │
//!                       │        │    └──► forgotten until CREATE EXTENSION            │
//!                       │        └──────────── it has failed: after a pause            │
//!                       └── a commit, a due time, a released hold, a look from time to time
//! ```
//!
//! While slots are too few, databases get them in the order in which they have come to wait.

use crate::error::Error;
use crate::holds;
use crate::pg::background::{self, Fate, Started};
use crate::pg::catch::{Level, log, log_with};
use crate::pg::clock::{self, NEVER, Tick, Timestamp, after, until_tick};
use crate::pg::text::DbText;
use crate::pg::{fault, latch, xact};
use crate::processes::backoff::{Backoff, Reminder};
use crate::processes::pool::{SLOT_IS_FREE, TURN};
use crate::processes::scheduler;
use crate::settings::{self, ServedNames};
use crate::shared::{self, Board, DatabaseEntry, Restoring, State, counters, crash_records, limits, uptime};
use pgrx::pg_sys::{InvalidOid, Oid};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const KIND: &str = "kongtask launcher";

/// How often to look for databases that appear in other ways than CREATE DATABASE and CREATE EXTENSION.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// How many schedulers may look at once at databases of which nothing is known that is to be done there.
const PROBES: usize = 3;

/// When to try again to look at a database that is watched, where there is no slot for that.
const LOOK_WITHOUT_SLOT: Duration = Duration::from_secs(10);

/// How many schedulers may be starting at once.
const STARTS: usize = 16;

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
    let mut launcher = Launcher::new(board);
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
    /// Limits how often the log says that no further database can be served.
    no_entry: Reminder,
    /// In which order databases are looked at for the first time, as far as anything is known of them.
    ranks: HashMap<Oid, Rank>,
    begun: Tick,
    settings: WatchedSettings,
}

/// What the launcher knows of a database.
#[derive(Default)]
struct Known {
    scheduler: Option<Started>,
    /// True if the extension was not installed when a scheduler last looked.
    lacks_extension: bool,
    /// When the database, while it is watched, is to be looked at again for what no commit has told of; 0 before the
    /// first look.
    look_at: Tick,
    /// True if a setting has changed while it had a scheduler, which may have left without seeing that.
    look_again: bool,
    /// How many looks have found nothing, one after another.
    vain_looks: u32,
    /// Since when it has been waiting for its scheduler.
    waits_since: Option<Tick>,
    failing: Backoff,
    /// Limits how often the log says that the database is held.
    held: Reminder,
    /// True if the rest of a dump was waited for when the log last said so.
    waited: bool,
}

/// How soon a database is looked at after a start, compared with others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    /// There are crashes to be charged, or its scheduler was there until the server ended.
    Busy,
    /// Something is due there at this time.
    DueAt(Timestamp),
    Unknown,
}

/// A database that needs a scheduler.
struct Candidate<'a> {
    database: &'a background::Database,
    /// Since when it has waited.
    since: Tick,
    /// True if nothing is known of that there is to do.
    is_routine: bool,
    /// True if it has been looked at before, and has been watched since.
    is_watched: bool,
    rank: Rank,
}

impl Candidate<'_> {
    /// Those that have waited for longest come first. A mere look is taken to have waited for less long, so that many of
    /// them hold up no job, and do not wait for ever either.
    fn order(&self) -> (Tick, Rank) {
        const LESS: Duration = Duration::from_secs(30);
        (if self.is_routine && self.rank > Rank::Busy { after(self.since, LESS) } else { self.since }, self.rank)
    }
}

/// What a look at a database has led to.
enum Need {
    /// It needs no scheduler before then, if nothing happens.
    Nothing(Option<Tick>),
    Scheduler {
        since: Tick,
        is_routine: bool,
    },
}

/// The settings on which it depends whether jobs run that do not run now.
#[derive(PartialEq)]
struct WatchedSettings {
    has_workers: bool,
    forbidden_flags: Vec<DbText>,
    forbidden_flags_function: Option<DbText>,
}

impl WatchedSettings {
    fn read() -> WatchedSettings {
        WatchedSettings {
            has_workers: settings::workers() > 0,
            forbidden_flags: settings::forbidden_flags(),
            forbidden_flags_function: settings::forbidden_flags_function(),
        }
    }
}

impl Known {
    /// Begins to watch the database. It is looked at from time to time for what no commit tells of, such as rows that
    /// were replicated or copied with triggers off: less and less often while there is none.
    fn watch(&mut self, was_routine: bool, now: Tick) {
        const LONGEST: Duration = Duration::from_secs(3600);
        const POLLS: u32 = 30;
        self.vain_looks = if was_routine { self.vain_looks + 1 } else { 0 };
        let shortest = settings::poll_interval() * POLLS;
        let pause = shortest.saturating_mul(1 << self.vain_looks.min(16)).min(LONGEST.max(shortest));
        self.look_at = if std::mem::take(&mut self.look_again) { 0 } else { after(now, pause) };
    }

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

type Entries = HashMap<Oid, &'static DatabaseEntry>;

impl Launcher {
    fn new(board: Board) -> Launcher {
        let mut ranks: HashMap<Oid, Rank> = uptime::known_due()
            .into_iter()
            .map(|(database, due)| (database, if due == 0 { Rank::Busy } else { Rank::DueAt(due) }))
            .collect();
        ranks.extend(crash_records::charged_databases().into_iter().map(|database| (database, Rank::Busy)));
        Launcher {
            board,
            known: HashMap::new(),
            no_slot: Backoff::new(),
            no_entry: Reminder::default(),
            ranks,
            begun: clock::tick(),
            settings: WatchedSettings::read(),
        }
    }

    /// Compares the schedulers that run with those that should. Returns when to look again.
    fn look(&mut self) -> Result<Tick, Error> {
        xact::begin();
        let databases = background::databases();
        counters::forget(|database| background::database_name(database).is_none());
        limits::forget(|database| background::database_name(database).is_none());
        xact::commit()?;
        let now = clock::tick();
        let served = ServedNames::read();
        let (served, others): (Vec<_>, Vec<_>) = databases.iter().partition(|database| served.include(&database.name));
        let entries: Entries = self.board.databases().iter().map(|entry| (entry.oid.get(), entry)).collect();
        self.reap(&databases, &entries, now);
        self.clear_up(
            &served.iter().map(|database| database.oid).collect(),
            &others.iter().map(|database| database.oid).collect(),
        );
        self.see_settings();
        fault::point("launching")?;
        let mut next_look = after(now, BETWEEN_LOOKS);
        let mut candidates = Vec::new();
        for database in served {
            match self.need(database, entries.get(&database.oid).copied(), now) {
                Need::Nothing(again) => next_look = again.into_iter().fold(next_look, Tick::min),
                Need::Scheduler { since, is_routine } => {
                    let rank = self.ranks.get(&database.oid).copied().unwrap_or(Rank::Unknown);
                    let entry = entries.get(&database.oid);
                    let is_watched = entry.is_some_and(|entry| entry.attendance.is_watched());
                    candidates.push(Candidate { database, since, is_routine, is_watched, rank });
                }
            }
        }
        candidates.sort_by_key(Candidate::order);
        if self.start_some(&candidates, &entries, now) {
            next_look = next_look.min(after(now, SLOT_IS_FREE));
        }
        Ok(next_look)
    }

    /// Finds out why schedulers have ended.
    fn reap(&mut self, databases: &[background::Database], entries: &Entries, now: Tick) {
        for (&oid, known) in &mut self.known {
            if known.scheduler.as_ref().is_none_or(|started| started.fate() != Fate::Gone) {
                continue;
            }
            known.scheduler = None;
            let entry = entries.get(&oid).copied().filter(|entry| entry.oid.get() == oid);
            known.lacks_extension = entry.is_some_and(|entry| entry.lacks_extension.load(SeqCst));
            if known.lacks_extension
                && let Some(entry) = entry
            {
                self.board.forget(entry);
            } else if let Some(entry) = entry.filter(|entry| entry.ended_in_order.load(SeqCst)) {
                known.watch(entry.is_routine.load(SeqCst), now);
            } else if let Some(database) = databases.iter().find(|database| database.oid == oid) {
                if let Some(entry) = entry {
                    // What it had been about to do is to be looked for.
                    entry.attendance.take_back();
                    entry.starve(None, now);
                }
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
    fn clear_up(&mut self, served: &HashSet<Oid>, others: &HashSet<Oid>) {
        for entry in self.board.databases().iter().filter(|entry| entry.oid.get() != InvalidOid) {
            let oid = entry.oid.get();
            if served.contains(&oid) {
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
        let exists = |oid| served.contains(&oid) || others.contains(&oid);
        for worker in self.board.workers().iter().filter(|worker| worker.state() == State::Gone) {
            // Its jobs went with their database.
            if !exists(worker.database.get()) {
                worker.free();
            }
        }
        self.known.retain(|&oid, _| exists(oid));
    }

    /// Has all databases looked at if a setting has changed by which jobs may run there that did not before.
    fn see_settings(&mut self) {
        let settings = WatchedSettings::read();
        if settings != self.settings {
            self.settings = settings;
            self.known
                .values_mut()
                .for_each(|known| (known.look_at, known.look_again) = (0, known.scheduler.is_some()));
        }
    }

    /// Returns whether a database needs a scheduler that it does not have.
    fn need(&mut self, database: &background::Database, entry: Option<&DatabaseEntry>, now: Tick) -> Need {
        /// The wall clock may be set, of which nothing tells.
        const CLOCK_IS_READ: Duration = Duration::from_secs(10);
        let begun = self.begun;
        let known = self.known.entry(database.oid).or_default();
        if entry.is_some_and(|entry| entry.serving.load(SeqCst)) {
            known.failing.over();
        }
        // It was started by this launcher, or by one before it.
        if known.scheduler.is_some() || entry.is_some_and(|entry| entry.attendance.has_scheduler()) {
            known.waits_since = None;
            return Need::Nothing(None);
        }
        if let Some(entry) = entry.filter(|entry| entry.is_held()) {
            entry.starve(None, now);
            return Need::Nothing(known.remind(&database.name, entry, now));
        }
        known.held.over();
        let is_wanted = entry.is_some_and(|entry| entry.attendance.is_wanted());
        if known.lacks_extension && !is_wanted {
            return Need::Nothing(None);
        }
        if let Some(wait) = known.failing.until().filter(|&until| until > now) {
            return Need::Nothing(Some(wait));
        }
        let due = entry.filter(|entry| entry.attendance.is_watched()).map(DatabaseEntry::is_due_at);
        let is_due = due.is_some_and(|due| due <= clock::now());
        if let Some(due) = due.filter(|_| !is_wanted && !is_due && known.look_at > now) {
            known.waits_since = None;
            let until = clock::until(due).map_or(NEVER, |until| after(now, until.min(CLOCK_IS_READ)));
            return Need::Nothing(Some(known.look_at.min(until)));
        }
        let waits_since = *known.waits_since.get_or_insert(if known.look_at == 0 { begun } else { now });
        let starves_since = entry.map(|entry| entry.starving_since.load(SeqCst)).filter(|&since| since != 0);
        Need::Scheduler { since: starves_since.unwrap_or(waits_since), is_routine: !is_wanted && !is_due }
    }

    /// Starts the schedulers of some of these databases, in this order. Returns true if there is no slot for the next of
    /// them.
    fn start_some(&mut self, candidates: &[Candidate], entries: &Entries, now: Tick) -> bool {
        let (mut routine, mut all) = self.probing(entries);
        for candidate in candidates {
            // A scheduler wakes the launcher once it knows.
            if all >= STARTS || candidate.is_routine && routine >= PROBES {
                continue;
            }
            if self.board.has_waited_longer(candidate.database.oid, candidate.since, true) {
                return true;
            }
            let Some(has_slot) = self.start(candidate, now) else { continue };
            if !has_slot {
                return true;
            }
            (routine, all) = (routine + usize::from(candidate.is_routine), all + 1);
        }
        false
    }

    /// Returns how many schedulers are finding out whether the extension is installed: of those that were started to
    /// have a look, and of all.
    fn probing(&self, entries: &Entries) -> (usize, usize) {
        let mut probing = (0, 0);
        for (oid, known) in &self.known {
            let Some(started) = &known.scheduler else { continue };
            let entry = entries.get(oid);
            if started.fate() != Fate::Gone && entry.is_none_or(|entry| !entry.serving.load(SeqCst)) {
                probing.0 += usize::from(entry.is_none_or(|entry| entry.is_routine.load(SeqCst)));
                probing.1 += 1;
            }
        }
        probing
    }

    /// Starts the scheduler of a database. Returns true if there is a slot for it; `None` if it can do without one for now,
    /// or the board has no entry left.
    fn start(&mut self, candidate: &Candidate, now: Tick) -> Option<bool> {
        let database = candidate.database;
        let Some(entry) = self.board.prepare(database.oid, candidate.is_routine) else {
            if self.no_entry.is_due(now, Duration::ZERO) {
                background::warn_of_no_entry(&database.name);
            }
            return None;
        };
        let title = format!("{} ({})", scheduler::KIND, database.name);
        let started = background::start(scheduler::KIND, &title, scheduler::MAIN, database.oid.to_u32() as usize);
        let known = self.known.entry(database.oid).or_default();
        known.lacks_extension = false;
        known.scheduler = started;
        if known.scheduler.is_some() {
            self.no_slot.over();
            return Some(true);
        }
        if !candidate.is_routine {
            entry.attendance.want();
        } else if candidate.is_watched {
            // Nothing waits for this look.
            known.look_at = after(now, LOOK_WITHOUT_SLOT);
            return None;
        }
        if self.no_slot.until().is_none_or(|until| until <= now) {
            self.no_slot.longer(now);
            let message = format!("no scheduler could be started in database \"{}\"", database.name);
            background::tell_of_no_slot(Level::Warning, &message);
        }
        entry.starving_since.compare_exchange(0, candidate.since, SeqCst, SeqCst).ok();
        let since = entry.starve(Some(true), now);
        self.board.ask_for_slot(database.oid, since, true, TURN, now);
        Some(false)
    }
}
