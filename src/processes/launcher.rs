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
//! Where a commit has left word which role has a job, a worker of that role is started beside the scheduler, and runs the job
//! without waiting for it.
//!
//! While slots are too few, databases get them in the order in which they have come to wait.

use crate::error::Error;
use crate::holds;
use crate::pg::background::{self, Fate, Started};
use crate::pg::catch::{Level, log, log_with};
use crate::pg::clock::{self, NEVER, Tick, Timestamp, after, until_tick};
use crate::pg::invalidation::{self, Watch};
use crate::pg::text::DbText;
use crate::pg::{fault, latch, role, xact};
use crate::processes::backoff::{Backoff, Reminder};
use crate::processes::pool::{SLOT_IS_FREE, TURN};
use crate::processes::{scheduler, worker};
use crate::settings::{self, ServedNames};
use crate::shared::{self, Board, DatabaseEntry, Restoring, State, counters, crash_records, limits, uptime};
use pgrx::pg_sys::{InvalidOid, Oid};
use std::collections::HashMap;
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
        if latch::reload_if_asked() {
            launcher.read_settings();
        }
    }
    log(Level::Log, format!("{KIND} stopped"));
    Ok(())
}

struct Launcher {
    board: Board,
    /// Those that allow connections and are no templates, by OID.
    databases: Vec<Known>,
    /// The databases of the board's entries at the latest look, and where each of them was in `databases`.
    entries: Vec<Oid>,
    of_entries: Vec<usize>,
    /// The entries of databases that are not served, or are gone.
    unserved: Vec<&'static DatabaseEntry>,
    served: ServedNames,
    no_slot: Backoff,
    /// Limits how often the log says that no further database can be served.
    no_entry: Reminder,
    /// In which order databases are looked at for the first time, as far as anything is known of them.
    ranks: HashMap<Oid, Rank>,
    begun: Tick,
    settings: WatchedSettings,
}

/// What the launcher knows of a database.
struct Known {
    database: background::Database,
    is_served: bool,
    entry: Option<&'static DatabaseEntry>,
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
struct Candidate {
    /// Where it is in [`Launcher::databases`].
    at: usize,
    /// Since when it has waited.
    since: Tick,
    /// True if nothing is known of that there is to do.
    is_routine: bool,
    /// True if it has been looked at before, and has been watched since.
    is_watched: bool,
    rank: Rank,
}

impl Candidate {
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
    fn new(database: background::Database, is_served: bool) -> Known {
        Known {
            database,
            is_served,
            entry: None,
            scheduler: None,
            lacks_extension: false,
            look_at: 0,
            look_again: false,
            vain_looks: 0,
            waits_since: None,
            failing: Backoff::new(),
            held: Reminder::default(),
            waited: false,
        }
    }

    fn oid(&self) -> u32 {
        self.database.oid.to_u32()
    }

    /// Returns the entry of the database, if it has one still.
    fn entry(&self) -> Option<&'static DatabaseEntry> {
        self.entry.filter(|entry| entry.oid.get() == self.database.oid)
    }

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
    fn remind(&mut self, entry: &DatabaseEntry, now: Tick) -> Option<Tick> {
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
            holds::remind(&self.database.name, restoring);
        }
        [waits_until, self.held.next()].into_iter().flatten().min()
    }
}

impl Launcher {
    fn new(board: Board) -> Launcher {
        let mut ranks: HashMap<Oid, Rank> = uptime::known_due()
            .into_iter()
            .map(|(database, due)| (database, if due == 0 { Rank::Busy } else { Rank::DueAt(due) }))
            .collect();
        ranks.extend(crash_records::charged_databases().into_iter().map(|database| (database, Rank::Busy)));
        Launcher {
            board,
            databases: Vec::new(),
            entries: Vec::new(),
            of_entries: Vec::new(),
            unserved: Vec::new(),
            served: ServedNames::read(),
            no_slot: Backoff::new(),
            no_entry: Reminder::default(),
            ranks,
            begun: clock::tick(),
            settings: WatchedSettings::read(),
        }
    }

    /// Compares the schedulers that run with those that should. Returns when to look again.
    ///
    /// A wake-up does not say what for, so all databases are looked at. The catalog is read only if it has changed, and
    /// so a look costs some nanoseconds a database.
    fn look(&mut self) -> Result<Tick, Error> {
        // Before the catalog is read: an entry is taken for a database that the catalog has.
        self.entries.clear();
        self.entries.extend(self.board.databases().iter().map(|entry| entry.oid.get()));
        self.read_catalog()?;
        let (now, time) = (clock::tick(), clock::now());
        self.find_entries();
        self.reap(now);
        self.clear_up();
        fault::point("launching")?;
        let mut next_look = after(now, BETWEEN_LOOKS);
        let mut candidates = Vec::new();
        for (at, known) in self.databases.iter_mut().enumerate().filter(|(_, known)| known.is_served) {
            match known.need(self.begun, now, time) {
                Need::Nothing(again) => next_look = again.into_iter().fold(next_look, Tick::min),
                Need::Scheduler { since, is_routine } => {
                    let rank = self.ranks.get(&known.database.oid).copied().unwrap_or(Rank::Unknown);
                    let is_watched = known.entry().is_some_and(|entry| entry.attendance.is_watched());
                    candidates.push(Candidate { at, since, is_routine, is_watched, rank });
                }
            }
        }
        candidates.sort_by_key(Candidate::order);
        if self.start_some(&candidates, now)? {
            next_look = next_look.min(after(now, SLOT_IS_FREE));
        }
        Ok(next_look)
    }

    /// Reads which databases there are, if that may have changed, and forgets those that are gone.
    fn read_catalog(&mut self) -> Result<(), Error> {
        static WATCH: Watch = Watch::new().and_databases();
        xact::begin();
        invalidation::accept();
        if WATCH.is_stale() {
            WATCH.renew();
            let mut databases = background::databases();
            databases.sort_by_key(|database| database.oid.to_u32());
            let mut before = std::mem::take(&mut self.databases).into_iter().peekable();
            for database in databases {
                let oid = database.oid.to_u32();
                while before.next_if(|known| known.oid() < oid).is_some() {}
                let known = before.next_if(|known| known.oid() == oid);
                let is_served = self.served.include(&database.name);
                self.databases.push(match known {
                    Some(known) => Known { database, is_served, ..known },
                    None => Known::new(database, is_served),
                });
            }
            counters::forget(|database| background::database_name(database).is_none());
            limits::forget(|database| background::database_name(database).is_none());
        }
        xact::commit()?;
        Ok(())
    }

    /// Finds the entry of each database, and those that are of no database which is served.
    fn find_entries(&mut self) {
        self.unserved.clear();
        self.of_entries.resize(self.entries.len(), 0);
        let entries = self.board.databases().iter().zip(&self.entries).zip(&mut self.of_entries);
        for ((entry, &oid), at) in entries.filter(|((_, oid), _)| **oid != InvalidOid) {
            if self.databases.get(*at).is_none_or(|known| known.database.oid != oid) {
                match self.databases.binary_search_by_key(&oid.to_u32(), Known::oid) {
                    Ok(found) => *at = found,
                    Err(_) => {
                        self.unserved.push(entry);
                        continue;
                    }
                }
            }
            let known = &mut self.databases[*at];
            known.entry = Some(entry);
            if !known.is_served {
                self.unserved.push(entry);
            }
        }
    }

    fn database(&mut self, oid: Oid) -> Option<&mut Known> {
        let at = self.databases.binary_search_by_key(&oid.to_u32(), Known::oid).ok()?;
        Some(&mut self.databases[at])
    }

    /// Finds out why schedulers have ended.
    fn reap(&mut self, now: Tick) {
        for known in &mut self.databases {
            if known.scheduler.as_ref().is_none_or(|started| started.fate() != Fate::Gone) {
                continue;
            }
            known.scheduler = None;
            let entry = known.entry();
            known.lacks_extension = entry.is_some_and(|entry| entry.lacks_extension.load(SeqCst));
            if known.lacks_extension
                && let Some(entry) = entry
            {
                self.board.forget(entry);
            } else if let Some(entry) = entry.filter(|entry| entry.ended_in_order.load(SeqCst)) {
                known.watch(entry.is_routine.load(SeqCst), now);
            } else {
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
                        known.database.name
                    ),
                    None,
                    Some("The scheduler's own error message precedes this line in the log.".into()),
                );
            }
        }
    }

    /// Tells schedulers of databases that are not served to leave, and forgets databases that are gone.
    fn clear_up(&mut self) {
        for entry in std::mem::take(&mut self.unserved) {
            let was_wanted = entry.attendance.take();
            let known = self.database(entry.oid.get());
            let has_scheduler = known.as_ref().is_some_and(|known| known.scheduler.is_some());
            if let Some(known) = known.filter(|_| was_wanted) {
                // It may have the extension by now, and be served again later.
                known.lacks_extension = false;
            }
            if entry.attendance.has_scheduler() {
                entry.must_leave.store(true, SeqCst);
                entry.scheduler.set();
            } else if !has_scheduler {
                self.board.forget(entry);
            }
        }
        for worker in self.board.workers().iter().filter(|worker| worker.state() == State::Gone) {
            // Its jobs went with their database, or with the extension.
            let is_left = self.database(worker.database.get()).is_none_or(|known| known.lacks_extension);
            if is_left {
                worker.free();
            }
        }
    }

    /// Reads the settings again. Has all databases looked at if one has changed by which jobs may run there that did not
    /// before.
    fn read_settings(&mut self) {
        self.served = ServedNames::read();
        for known in &mut self.databases {
            known.is_served = self.served.include(&known.database.name);
        }
        let settings = WatchedSettings::read();
        if settings != self.settings {
            self.settings = settings;
            self.databases
                .iter_mut()
                .for_each(|known| (known.look_at, known.look_again) = (0, known.scheduler.is_some()));
        }
    }

    /// Starts the schedulers of some of these databases, in this order. Returns true if there is no slot for some of
    /// them.
    fn start_some(&mut self, candidates: &[Candidate], now: Tick) -> Result<bool, Error> {
        if candidates.is_empty() {
            return Ok(false);
        }
        let (mut routine, mut all) = self.probing();
        let mut lacks_slot = false;
        for candidate in candidates {
            // A scheduler wakes the launcher once it knows.
            if all >= STARTS || candidate.is_routine && routine >= PROBES {
                continue;
            }
            let oid = self.databases[candidate.at].database.oid;
            if self.board.others_go_first(oid, candidate.since, true) {
                return Ok(true);
            }
            let Some(has_slot) = self.start(candidate, now)? else { continue };
            // The next ones say that they wait, too.
            lacks_slot |= !has_slot;
            (routine, all) = (routine + usize::from(candidate.is_routine), all + 1);
        }
        Ok(lacks_slot)
    }

    /// Returns how many schedulers are finding out whether the extension is installed: of those that were started to
    /// have a look, and of all.
    fn probing(&self) -> (usize, usize) {
        let mut probing = (0, 0);
        for known in &self.databases {
            let Some(started) = &known.scheduler else { continue };
            let entry = known.entry();
            if started.fate() != Fate::Gone && entry.is_none_or(|entry| !entry.serving.load(SeqCst)) {
                probing.0 += usize::from(entry.is_none_or(|entry| entry.is_routine.load(SeqCst)));
                probing.1 += 1;
            }
        }
        probing
    }

    /// Starts the scheduler of a database. Returns true if there is a slot for it; `None` if it can do without one for now,
    /// or the board has no entry left.
    fn start(&mut self, candidate: &Candidate, now: Tick) -> Result<Option<bool>, Error> {
        let known = &mut self.databases[candidate.at];
        let (oid, name) = (known.database.oid, known.database.name.clone());
        let Some((entry, role)) = self.board.prepare(oid, candidate.is_routine) else {
            if self.no_entry.is_due(now, Duration::ZERO) {
                background::warn_of_no_entry(&name);
            }
            return Ok(None);
        };
        known.entry = Some(entry);
        known.lacks_extension = false;
        let title = format!("{} ({name})", scheduler::KIND);
        known.scheduler = background::start(scheduler::KIND, &title, scheduler::MAIN, oid.to_u32() as usize, true);
        if known.scheduler.is_some() {
            self.no_slot.over();
            if let Some(role) = role {
                self.start_worker(entry, role, &name)?;
            }
            return Ok(Some(true));
        }
        if !candidate.is_routine {
            entry.attendance.want();
        } else if candidate.is_watched {
            // Nothing waits for this look.
            known.look_at = after(now, LOOK_WITHOUT_SLOT);
            return Ok(None);
        }
        if self.no_slot.until().is_none_or(|until| until <= now) {
            self.no_slot.longer(now);
            let message = format!("no scheduler could be started in database \"{name}\"");
            background::tell_of_no_slot(Level::Warning, &message);
        }
        entry.starving_since.compare_exchange(0, candidate.since, SeqCst, SeqCst).ok();
        let since = entry.starve(Some(true), now);
        self.board.ask_for_slot(oid, since, true, TURN, now);
        Ok(Some(false))
    }

    /// Starts a worker beside the scheduler of a database, of the role that runs the job for which a session wants it:
    /// so the job waits for one start of a process, not for two. The scheduler starts one if this does not.
    fn start_worker(&self, entry: &DatabaseEntry, role: Oid, name: &DbText) -> Result<(), Error> {
        let oid = entry.oid.get();
        // Of a database that was left in order: the first scheduler after a crash has to settle that before.
        let is_in_order = entry.attendance.is_watched() && entry.was_at_rest.load(SeqCst);
        if !is_in_order || settings::workers() == 0 || self.board.is_other_starving(oid) {
            return Ok(());
        }
        xact::begin();
        let is_there = role::name(role).is_some();
        xact::commit()?;
        if is_there {
            worker::start(self.board, oid, role, name, false);
        }
        Ok(())
    }
}

impl Known {
    /// Returns whether the database needs a scheduler that it does not have. `begun` is when the launcher began, `now` and
    /// `time` are the times of this look.
    fn need(&mut self, begun: Tick, now: Tick, time: Timestamp) -> Need {
        /// The wall clock may be set, of which nothing tells.
        const CLOCK_IS_READ: Duration = Duration::from_secs(10);
        let entry = self.entry();
        if entry.is_some_and(|entry| entry.serving.load(SeqCst)) {
            self.failing.over();
        }
        // It was started by this launcher, or by one before it.
        if self.scheduler.is_some() || entry.is_some_and(|entry| entry.attendance.has_scheduler()) {
            self.waits_since = None;
            return Need::Nothing(None);
        }
        if let Some(entry) = entry.filter(|entry| entry.is_held()) {
            entry.starve(None, now);
            return Need::Nothing(self.remind(entry, now));
        }
        self.held.over();
        let is_wanted = entry.is_some_and(|entry| entry.attendance.is_wanted());
        if self.lacks_extension && !is_wanted {
            return Need::Nothing(None);
        }
        if let Some(wait) = self.failing.until().filter(|&until| until > now) {
            return Need::Nothing(Some(wait));
        }
        let due = entry.filter(|entry| entry.attendance.is_watched()).map(DatabaseEntry::is_due_at);
        let is_due = due.is_some_and(|due| due <= time);
        if let Some(due) = due.filter(|_| !is_wanted && !is_due && self.look_at > now) {
            self.waits_since = None;
            let until = clock::between(time, due).map_or(NEVER, |until| after(now, until.min(CLOCK_IS_READ)));
            return Need::Nothing(Some(self.look_at.min(until)));
        }
        let waits_since = *self.waits_since.get_or_insert(if self.look_at == 0 { begun } else { now });
        let starves_since = entry.map(|entry| entry.starving_since.load(SeqCst)).filter(|&since| since != 0);
        Need::Scheduler { since: starves_since.unwrap_or(waits_since), is_routine: !is_wanted && !is_due }
    }
}
