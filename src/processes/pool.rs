//! The workers of one database: how many run, and as which roles.
//!
//! A role with more jobs than idle workers is understaffed: workers are started for it, up to `kongtask.workers` in all.
//! If there are that many, an idle worker of another role ends to make room for it. For a role that has no worker at
//! all, even a busy worker does, after its job. A worker that has been idle for `kongtask.worker_idle_timeout` ends by
//! itself.
//!
//! Without that timeout the pool is fixed: each role that has tasks has a worker, and the rest goes to the roles that
//! have the fewest.

use crate::pg::background::{self, Fate, Started};
use crate::pg::catch::{Level, log_with};
use crate::pg::clock::{self, NEVER, Tick, after};
use crate::pg::latch;
use crate::pg::text::DbText;
use crate::processes::backoff::Backoff;
use crate::processes::worker::{self, New};
use crate::settings;
use crate::shared::{Board, Running, State, Worker};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A process that has not begun after this time never will.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// How often to try again while another database gives up a slot.
pub const SLOT_IS_FREE: Duration = Duration::from_millis(50);

/// A role that has more jobs than idle workers.
#[derive(Clone, Copy)]
pub struct Understaffed {
    pub role: Oid,
    /// How many jobs there are beyond its idle workers, as far as they were counted.
    pub jobs: usize,
}

pub struct Pool {
    board: Board,
    database: Oid,
    database_name: DbText,
    /// The processes that it has started and whose slots are not freed yet, by slot. (The launcher may have started others.)
    started: HashMap<usize, Started>,
    /// The roles whose workers fail, and until when none is started.
    failing: HashMap<Oid, Backoff>,
    /// The roles that have had jobs and no worker, and since when.
    without_worker: HashMap<Oid, Tick>,
    /// The workers that were started in place of spent ones: the slots of both, the spent one's first.
    successors: HashMap<usize, usize>,
    /// The roles whose workers ended as soon as they had started, and how often in a row.
    short_lived: HashMap<Oid, u32>,
    no_slot: Backoff,
    /// The unresponsive workers that the log has named, by slot, each with the time at which it was asked to end its
    /// call.
    warned: HashMap<usize, Tick>,
    /// True if a role would get another role's slot as soon as its worker is idle.
    pub waits_for_slot: bool,
    /// True if there are jobs but no worker, and no slot for one.
    starves: bool,
    /// When a role that has no worker gets the slot of a worker whose turn ends.
    turn_ends: Tick,
}

/// How long a worker runs jobs before it gives its slot to a role that has none. Starting a process takes milliseconds.
pub const TURN: Duration = Duration::from_millis(500);

impl Pool {
    pub fn new(board: Board, database: Oid, database_name: DbText) -> Pool {
        Pool {
            board,
            database,
            database_name,
            started: HashMap::new(),
            failing: HashMap::new(),
            without_worker: HashMap::new(),
            successors: HashMap::new(),
            short_lived: HashMap::new(),
            no_slot: Backoff::new(),
            warned: HashMap::new(),
            waits_for_slot: false,
            starves: false,
            turn_ends: NEVER,
        }
    }

    fn workers(&self) -> impl Iterator<Item = (usize, &'static Worker)> {
        self.board.workers_of(self.database).filter(|(_, worker)| worker.state() != State::Gone)
    }

    /// Returns the workers that respond. An unresponsive one has another in its place.
    fn responsive(&self) -> impl Iterator<Item = &'static Worker> {
        let now = clock::tick();
        self.workers().map(|(_, worker)| worker).filter(move |worker| !worker.is_unresponsive(now))
    }

    fn staying(&self) -> Vec<&'static Worker> {
        self.responsive().filter(|worker| !worker.is_to_end()).collect()
    }

    /// Returns true if no worker can be added. Replacements of unresponsive workers count only up to `most`.
    fn is_full(&self, most: usize) -> bool {
        self.responsive().count() >= most || self.workers().count() >= 2 * most
    }

    /// Starts and stops workers. `roles` are those that have tasks, `understaffed` some of them.
    pub fn balance(&mut self, roles: &[Oid], understaffed: &[Understaffed], now: Tick) {
        self.clear_false_starts(now);
        self.warn_of_unresponsive(now);
        for worker in self.staying() {
            if !roles.contains(&worker.role.get()) {
                worker.ask_to_leave(now);
            }
        }
        let most = settings::workers();
        self.shrink(most, now);
        // No slot is kept for a role that cannot use it.
        let may_start = |role: &Oid| self.failing.get(role).and_then(Backoff::until).is_none_or(|until| until <= now);
        let roles: Vec<Oid> = roles.iter().copied().filter(may_start).collect();
        let short: Vec<Understaffed> = understaffed.iter().copied().filter(|short| may_start(&short.role)).collect();
        let understaffed = self.in_turn(&short, now);
        self.replace_spent(now);
        self.grow(most, &roles, &short, now);
        self.look_for_slot(most, &understaffed, now);
        self.turn_ends = self.exchange(most, &roles, &understaffed, now).unwrap_or(NEVER);
        self.waits_for_slot = roles.len() > 1 && (!understaffed.is_empty() || self.lacks(most, &roles));
    }

    /// Returns the roles that have too few workers, first those without any, in the order in which they have come to
    /// wait.
    fn in_turn(&mut self, short: &[Understaffed], now: Tick) -> Vec<Oid> {
        let staying = self.staying();
        let waits = |role: &Oid| count_of(&staying, *role) == 0 && short.iter().any(|short| short.role == *role);
        self.without_worker.retain(|role, _| waits(role));
        let mut roles: Vec<Oid> = short.iter().map(|short| short.role).collect();
        for role in roles.iter().copied().filter(waits) {
            self.without_worker.entry(role).or_insert(now);
        }
        roles.sort_by_key(|role| self.waiting_since(*role));
        roles
    }

    /// Returns since when a role has had jobs and no worker; `NEVER` if it has one.
    fn waiting_since(&self, role: Oid) -> Tick {
        self.without_worker.get(&role).copied().unwrap_or(NEVER)
    }

    /// Starts a worker in place of each that has run as many jobs as it may, and then has that one end. Where none can
    /// be started, it ends first.
    fn replace_spent(&mut self, now: Tick) {
        let board = self.board;
        for (slot, worker) in board.workers_of(self.database) {
            if !worker.is_spent.load(SeqCst) || worker.is_to_end() || worker.state() == State::Gone {
                continue;
            }
            let successor = match self.successors.get(&slot) {
                Some(&successor) => Some(successor),
                None => self.start_in_slot(worker.role.get()),
            };
            let is_starting = |slot: usize| board.workers()[slot].state() == State::Starting;
            match successor {
                Some(successor) if is_starting(successor) => _ = self.successors.insert(slot, successor),
                _ => {
                    self.successors.remove(&slot);
                    worker.ask_to_give_way(now);
                }
            }
        }
    }

    /// Asks those to leave that are more than `most`. One that another is about to take the place of is none of them: that other
    /// would be asked to leave in its stead.
    fn shrink(&self, most: usize, now: Tick) {
        let mut staying = self.staying();
        for &slot in self.successors.keys() {
            let replaced = &self.board.workers()[slot];
            staying.retain(|&worker| !(std::ptr::eq(worker, replaced) && worker.is_spent.load(SeqCst)));
        }
        while staying.len() > most {
            let excess = pick(&staying, |worker| (rank(worker.state()), count_of(&staying, worker.role.get())));
            staying.swap_remove(excess).ask_to_leave(now);
        }
    }

    /// Has another database give up a slot, if this one has jobs and not one worker because all slots are taken.
    fn look_for_slot(&mut self, most: usize, understaffed: &[Oid], now: Tick) {
        let starves = most > 0 && !understaffed.is_empty() && self.responsive().next().is_none();
        self.starves = starves;
        let needs_slot = !self.board.is_full(settings::max_workers());
        let Some(entry) = self.board.database(self.database) else { return };
        let since = entry.starve(starves.then_some(needs_slot), now);
        if starves {
            self.board.ask_for_slot(self.database, since, needs_slot, TURN, now);
        }
    }

    /// Returns true if another database is to get the next slot.
    fn lets_others_go_first(&self, is_in_need: bool, now: Tick) -> bool {
        if !is_in_need {
            return self.board.is_other_starving(self.database);
        }
        let since = self.board.database(self.database).map_or(0, |entry| entry.starving_since.load(SeqCst));
        self.board.others_go_first(self.database, if since == 0 { now } else { since }, false)
    }

    /// Fills free slots: understaffed roles first and, in a fixed pool, then the role with the fewest workers. While
    /// another database waits for a slot, only a database that has jobs and no worker takes one.
    fn grow(&mut self, most: usize, roles: &[Oid], understaffed: &[Understaffed], now: Tick) {
        while !self.is_full(most) {
            let is_in_need = !understaffed.is_empty() && self.responsive().next().is_none();
            if self.lets_others_go_first(is_in_need, now) {
                return;
            }
            let staying = self.staying();
            // Each of these is about to take one of the jobs.
            let coming = |role: Oid| {
                let comes = |worker: &Worker| matches!(worker.state(), State::Starting | State::Looking);
                staying.iter().filter(|worker| worker.role.get() == role && comes(worker)).count()
            };
            let lacks_one =
                |role: Oid| understaffed.iter().any(|short| short.role == role && short.jobs > coming(role));
            let candidates = roles.iter().copied().filter(|&role| is_fixed() || lacks_one(role));
            let Some(role) =
                candidates.min_by_key(|&role| (!lacks_one(role), count_of(&staying, role), self.waiting_since(role)))
            else {
                return;
            };
            if !self.start(role, now) {
                return;
            }
        }
    }

    /// If all slots are taken, has a worker end to make room for an understaffed role. Returns when to try again, if
    /// that must wait for the end of a turn.
    fn exchange(&self, most: usize, roles: &[Oid], understaffed: &[Oid], now: Tick) -> Option<Tick> {
        let is_full = self.is_full(most) || self.has_no_slot();
        if !is_full || self.responsive().any(|worker| worker.is_about_to_end(now)) {
            return None;
        }
        let staying = self.staying();
        let turn_ends = |worker: &Worker| after(worker.begun.load(SeqCst), TURN);
        let mut again = None;
        for &role in understaffed {
            let has_none = count_of(&staying, role) == 0;
            let others = || staying.iter().copied().filter(|worker| worker.role.get() != role);
            // A worker that is idle now may be busy in a moment. So a slot changes roles at most once a turn, unless a
            // role has no worker.
            let may_give_from = |worker: &Worker| match worker.state() {
                State::Idle if understaffed.contains(&worker.role.get()) => None,
                State::Idle if has_none => Some(now),
                State::Idle => Some(turn_ends(worker)),
                _ => has_none.then(|| turn_ends(worker)),
            };
            let donors: Vec<&Worker> =
                others().filter(|worker| may_give_from(worker).is_some_and(|when| when <= now)).collect();
            if !donors.is_empty() {
                let donor = pick(&donors, |worker| (rank(worker.state()), count_of(&staying, worker.role.get())));
                donors[donor].ask_to_give_way(now);
                return None;
            }
            again = again.into_iter().chain(others().filter_map(may_give_from)).min();
        }
        // No donor can give a slot now: let a spare worker make room for a role without one.
        let spare = |worker: &&&Worker| {
            worker.state() == State::Idle
                && count_of(&staying, worker.role.get()) > 1
                && !understaffed.contains(&worker.role.get())
        };
        if self.lacks(most, roles)
            && let Some(donor) = staying.iter().filter(spare).max_by_key(|worker| count_of(&staying, worker.role.get()))
        {
            donor.ask_to_give_way(now);
        }
        again
    }

    /// Returns true if no worker could be started, as far as is known.
    fn has_no_slot(&self) -> bool {
        self.no_slot.until().is_some() || self.board.is_full(settings::max_workers())
    }

    /// Returns true if the pool is fixed, there is a slot for each role, and a role has no worker.
    fn lacks(&self, most: usize, roles: &[Oid]) -> bool {
        let staying = self.staying();
        is_fixed() && roles.len() <= most && roles.iter().any(|&role| count_of(&staying, role) == 0)
    }

    /// Starts a worker. Returns its slot on the board; `None` if there is none, or no background worker slot.
    fn start_in_slot(&mut self, role: Oid) -> Option<usize> {
        let New { slot, process } = worker::start(self.board, self.database, role, &self.database_name, true)?;
        self.started.insert(slot, process);
        Some(slot)
    }

    fn start(&mut self, role: Oid, now: Tick) -> bool {
        if self.board.is_full(settings::max_workers()) {
            return false;
        }
        match self.start_in_slot(role) {
            Some(_) => {
                self.no_slot.over();
                true
            }
            None => {
                if self.no_slot.until().is_none_or(|until| until <= now) {
                    self.no_slot.longer(now);
                    let live = self.workers().count();
                    // Those that there are run all jobs.
                    let level = if live == 0 { Level::Warning } else { Level::Log };
                    background::tell_of_no_slot(
                        level,
                        &format!(
                            "only {live} of {} kongtask workers could be started in database \"{}\"",
                            settings::workers(),
                            self.database_name
                        ),
                    );
                }
                false
            }
        }
    }

    /// Frees the slot of a worker that has ended, after its jobs were released. A worker that ended before it had an id
    /// could not log in. A role whose workers end as soon as they start, several times in a row, is left alone for a
    /// while.
    pub fn gone(&mut self, slot: usize, now: Tick) {
        const AT_ONCE: Duration = Duration::from_secs(1);
        const TOO_OFTEN: u32 = 3;
        let worker = &self.board.workers()[slot];
        let role = worker.role.get();
        if worker.id().is_some() && after(worker.begun.load(SeqCst), AT_ONCE) <= now {
            self.short_lived.remove(&role);
            self.failing.remove(&role);
        } else if worker.is_to_end() || latch::stop_asked() {
            // It was asked to end.
        } else if worker.id().is_none() {
            let hint = "Give the role LOGIN, and CONNECT on the database, or register its tasks as another role.";
            self.failed(role, now, "log in to", hint);
        } else {
            let times = self.short_lived.entry(role).or_default();
            *times += 1;
            if *times >= TOO_OFTEN {
                self.failed(
                    role,
                    now,
                    "keep running in",
                    "Check whether the queue's tables, or their owner, have been changed.",
                );
            }
        }
        self.started.remove(&slot);
        self.successors.remove(&slot);
        worker.free();
    }

    fn failed(&mut self, role: Oid, now: Tick, to: &str, hint: &str) {
        let failing = self.failing.entry(role).or_default();
        if failing.until().is_some_and(|until| until > now) {
            // Several workers that failed together count once.
            return;
        }
        let pause = failing.longer(now);
        let name = background::role_name(role);
        log_with(
            Level::Warning,
            format!("kongtask workers cannot {to} database \"{}\" as role {name}", self.database_name),
            Some(format!(
                "The worker's own error message precedes this line in the log. The next try is in {pause:?}."
            )),
            Some(hint.into()),
        );
    }

    /// Logs, once for each, workers that do not end their call.
    fn warn_of_unresponsive(&mut self, now: Tick) {
        for (slot, worker) in self.board.workers_of(self.database) {
            let asked = worker.asked_to_end.load(SeqCst);
            if worker.state() == State::Gone || !worker.is_unresponsive(now) {
                self.warned.remove(&slot);
            } else if self.warned.insert(slot, asked) != Some(asked) {
                let pid = worker.pid.load(SeqCst);
                let running = worker.running();
                // The task is text in this database's encoding.
                let job = |Running { job, task, .. }| format!(" of job {job} ({})", DbText::new(&task));
                let of = running.map(job).unwrap_or_default();
                log_with(
                    Level::Warning,
                    format!("{} {pid} does not end its call{of}", worker::KIND),
                    Some("It was asked to by a timeout, pg_cancel_backend or pg_terminate_backend. Until it ends, another worker takes its place.".into()),
                    Some(format!("If pg_terminate_backend({pid}) does not end it, only a stop of the server or kill -9 {pid} does. After kill -9 the server restarts all of its processes, and the job runs again.")),
                );
            }
        }
    }

    /// Frees the slots of processes that never began.
    fn clear_false_starts(&mut self, now: Tick) {
        let board = self.board;
        for (slot, worker) in board.workers_of(self.database) {
            if worker.state() != State::Starting || worker.pid.load(SeqCst) != 0 {
                continue;
            }
            let failed = match self.started.get(&slot) {
                Some(started) => started.fate() == Fate::Gone,
                None => after(worker.begun.load(SeqCst), STARTS_WITHIN) <= now,
            };
            if failed {
                self.gone(slot, now);
            }
        }
    }

    /// Returns true if the database has no worker and waits for none.
    pub fn is_empty(&self) -> bool {
        !self.starves && self.has_no_worker()
    }

    /// Returns true if the database has no worker, not even one that has ended and is not cleared away.
    pub fn has_no_worker(&self) -> bool {
        self.board.workers_of(self.database).next().is_none()
    }

    /// Returns true if no worker can run jobs for now: there may be none, or no slot is free for the first one. As soon as
    /// that changes, the scheduler makes a pass.
    pub fn can_start_none(&self) -> bool {
        settings::workers() == 0 || self.starves
    }

    /// Returns true if an understaffed role could get a free slot, or another role's.
    pub fn can_rebalance(&self, roles: &[Oid]) -> bool {
        roles.len() > 1 || self.staying().len() < settings::workers()
    }

    /// Forgets failed logins, as something has changed.
    pub fn forgive(&mut self) {
        self.failing.clear();
        self.short_lived.clear();
    }

    /// Asks all workers to end. Returns how many have not ended yet.
    pub fn ask_all_to_leave(&self, now: Tick) -> usize {
        self.workers().inspect(|(_, worker)| worker.ask_to_leave(now)).count()
    }

    /// Terminates the workers that were asked to end kongtask.shutdown_timeout ago.
    pub fn terminate_overdue(&mut self, now: Tick) {
        self.clear_false_starts(now);
        for (_, worker) in self.workers() {
            let pid = worker.pid.load(SeqCst);
            if pid != 0 && deadline(worker) <= now {
                latch::terminate(pid);
            }
        }
    }

    /// Returns when the pool must act next. What is overdue has just been tried, and is tried again a little later: a
    /// time in the past would keep the scheduler from sleeping.
    pub fn next_event(&self, now: Tick) -> Tick {
        const AGAIN: Duration = Duration::from_millis(500);
        let deadlines = self.workers().map(|(_, worker)| deadline(worker)).chain([self.turn_ends]);
        let deadlines = deadlines.map(|when| if when > now { when } else { after(now, AGAIN) });
        let unresponsive = self.workers().map(|(_, worker)| worker.unresponsive_at()).filter(|&when| when > now);
        let retries =
            self.failing.values().chain([&self.no_slot]).filter_map(Backoff::until).filter(|&when| when > now);
        // No process reports a free slot: it is free once the postmaster has seen the process end.
        let slot = self.starves.then(|| after(now, SLOT_IS_FREE));
        deadlines.chain(retries).chain(unresponsive).chain(slot).min().unwrap_or(NEVER)
    }
}

/// Returns when a worker that was asked to end is terminated.
fn deadline(worker: &Worker) -> Tick {
    if worker.must_leave.load(SeqCst) {
        after(worker.must_leave_since.load(SeqCst), settings::shutdown_timeout())
    } else {
        NEVER
    }
}

/// Returns true if the pool is as large as it may be, whether there are jobs or not.
fn is_fixed() -> bool {
    settings::worker_idle_timeout().is_none()
}

fn count_of(workers: &[&Worker], role: Oid) -> usize {
    workers.iter().filter(|worker| worker.role.get() == role).count()
}

/// Ranks workers by how little they are missed.
fn rank(state: State) -> u8 {
    match state {
        State::Idle => 2,
        State::Running => 0,
        _ => 1,
    }
}

fn pick<K: Ord>(workers: &[&Worker], by: impl Fn(&Worker) -> K) -> usize {
    (0..workers.len()).max_by_key(|&i| by(workers[i])).unwrap_or(0)
}
