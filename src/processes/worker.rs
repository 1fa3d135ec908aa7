//! The worker. It is logged in as a role, and runs the jobs of that role's tasks.
//!
//! ```text
//! take from the ready list ── jobs ──► run them (run/) ──► take
//!   │ it is empty, or soon will be
//!   ├── there may be more in the table ──► search ──► take
//!   └── there is nothing ──► idle ──► woken ──► take
//! ```
//!
//! An error in one of the queue's own statements ends the process: the scheduler releases its jobs and starts another
//! worker.

use crate::error::Error;
use crate::jobs::limited;
use crate::jobs::search::{self, Search};
use crate::pg::background::Started;
use crate::pg::catch::{Failure, Level, log};
use crate::pg::clock::{self, NEVER, Tick, after, until_tick};
use crate::pg::memory::Arena;
use crate::pg::text::DbText;
use crate::pg::{background, fault, latch, role, xact};
use crate::run::limits::Room;
use crate::run::{Runner, TakenJobs};
use crate::schema;
use crate::settings;
use crate::shared::cancels;
use crate::shared::crash_records::{self, CrashRecord};
use crate::shared::ready_list::{CAPACITY, Hint, Kind, Position};
use crate::shared::{self, Board, DatabaseEntry, SharedReadyList, Slept, State, TakenRange, Worker};
use crate::signals::wake;
use crate::tasks::forbidden_flags::Flags;
use crate::tasks::registry::{self, Task, Tasks};
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

/// Its `backend_type`.
pub const KIND: &str = "kongtask worker";
/// The C function with which its process begins.
const MAIN: &str = "kongtask_worker_main";

/// A worker that was asked for.
pub struct New {
    pub slot: usize,
    pub process: Started,
}

/// Starts a worker. Returns `None` if there is no slot for it on the board, or no background worker slot. If `is_followed`,
/// the postmaster tells this process when the worker starts and when it ends.
pub fn start(board: Board, database: Oid, role: Oid, database_name: &DbText, is_followed: bool) -> Option<New> {
    let (slot, ticket) = board.take_slot(database, role, settings::max_workers())?;
    let title = format!("{KIND} ({database_name})");
    let argument = slot | (ticket as usize) << 32;
    let Some(process) = background::start(KIND, &title, MAIN, argument, is_followed) else {
        board.workers()[slot].free();
        return None;
    };
    Some(New { slot, process })
}

background::main_function!(kongtask_worker_main, main);

fn main(argument: usize) -> Result<(), Failure> {
    let (slot, ticket) = (argument & 0xffff_ffff, (argument >> 32) as u32);
    let Some(board) = shared::board() else { return Ok(()) };
    let me = &board.workers()[slot];
    if me.state() != State::Starting || me.ticket.load(SeqCst) != ticket {
        // The scheduler has given up waiting for this process.
        return Ok(());
    }
    me.pid.store(background::pid(), SeqCst);
    me.latch.is_mine();
    background::at_exit(leave, slot);
    latch::receive_signals();
    let (database, role) = (me.database.get(), me.role.get());
    background::connect_as_role(database, role);
    xact::forget_before_commit();
    let (name, extension) = introduce(database, role)?;
    let result = match extension {
        Some(extension) => {
            schema::while_there_is(extension, || run(board, me, database, role, crash_records::mine(slot), &name))
        }
        None => Ok(()),
    };
    if result.is_ok() {
        // The process ends as it should, even if it has seen a shutdown, or the end of the extension, before the
        // scheduler has.
        me.ask_to_leave(clock::tick());
    }
    result
}

/// Runs when the process ends: the scheduler does the rest.
fn leave(slot: usize) {
    let Some(board) = shared::board() else { return };
    let me = &board.workers()[slot];
    me.latch.disown();
    if let Some(record) = crash_records::of(slot) {
        record.clear();
    }
    let mut leaves_jobs = false;
    if me.uses_ready_list.swap(false, SeqCst)
        && let Some(list) = board.list(me.database.get(), me.role.get())
    {
        if let Some(held) = me.held() {
            // Jobs running in place left no trace in the table, so lower the watermark to have them found again.
            list.with(|ready| ready.lower(held.begins));
        }
        leaves_jobs = board.leave_ready_list(list, background::pid());
    }
    me.enter(State::Gone);
    if let Some(entry) = board.database(me.database.get()) {
        if leaves_jobs {
            entry.has_unlisted_jobs.store(true, SeqCst);
        }
        entry.scheduler.set();
    }
}

fn run(
    board: Board,
    me: &'static Worker,
    database: Oid,
    role: Oid,
    crash_record: Option<&'static CrashRecord>,
    name: &str,
) -> Result<(), Error> {
    let id = background::random();
    cancels::receive(board.cancels(), me);
    me.set_encoding();
    me.set_id(id);
    let Some(list) = board.join_ready_list(database, role) else { return Ok(()) };
    me.uses_ready_list.store(true, SeqCst);
    if let Some(entry) = board.database(database) {
        latch::tell_what_is_asked(&me.asked_to_end, &entry.scheduler);
    }
    let mut this = WorkerLoop {
        board,
        list,
        database,
        tasks: Rc::default(),
        flags: Flags::default(),
        forbidden: None,
        is_current: false,
        idle_since: None,
        runner: Runner {
            me,
            crash_record,
            database,
            role,
            id: shared::worker_id(id),
            arena: Arena::new(c"kongtask job"),
            spare_arena: Arena::new(c"kongtask next job"),
            list,
            recently_failed: HashMap::new(),
            due_again: Cell::new(NEVER),
            timed_out: Cell::new(false),
            latest: Cell::default(),
            jobs_run: Cell::new(0),
            room: Room::default(),
        },
        looks_at: 1,
        passes: 1,
        largest_batch: 1,
        has_searched: false,
    };
    // Not at LOG: workers come and go as jobs do.
    log(Level::Debug, format!("{name} started"));
    me.enter(State::Looking);
    if let Some(entry) = board.database(database)
        && board.workers_of(database).any(|(_, worker)| worker.is_spent.load(SeqCst))
    {
        // It may be this one's place that the other is to give up.
        entry.scheduler.set();
    }
    while this.goes_on() {
        if this.run_next()? {
            this.idle_since = None;
            this.retire_if_spent();
        } else {
            this.sleep()?;
            this.is_current = false;
        }
    }
    log(Level::Debug, format!("{name} stopped"));
    Ok(())
}

/// Sets what pg_stat_activity shows. Returns the process's name for the log, and the extension's OID if it is
/// installed.
fn introduce(database: Oid, role: Oid) -> Result<(String, Option<Oid>), Error> {
    xact::begin();
    let extension = schema::extension();
    let database = background::database_name(database).unwrap_or_default();
    let role = role::name(role).unwrap_or_default();
    xact::commit()?;
    let name = format!("{KIND} ({database}, {role})");
    background::introduce_as(&name);
    background::report_idle();
    Ok((name, extension))
}

struct WorkerLoop {
    board: Board,
    list: &'static SharedReadyList,
    database: Oid,
    /// The tasks at the latest look.
    tasks: Rc<Tasks>,
    flags: Flags,
    /// The flags that were forbidden at the latest look; `None` before the first, and while the function fails.
    forbidden: Option<Vec<DbText>>,
    /// True while `tasks` and `forbidden` are known to be current.
    is_current: bool,
    /// Since when it has had nothing to do; `None` while it has.
    idle_since: Option<Tick>,
    /// How many jobs to take off the list to find one that has room: more while none has, as each look costs a
    /// statement. For tasks whose limits have keys.
    looks_at: usize,
    /// By how much the next search is larger than usual: ever more while searches find hardly any jobs that have room.
    passes: usize,
    /// The largest batch of the role's tasks, at the latest search.
    largest_batch: usize,
    /// True if it has searched the table since it last took jobs.
    has_searched: bool,
    runner: Runner,
}

impl WorkerLoop {
    fn goes_on(&mut self) -> bool {
        latch::serve_interrupts();
        self.is_current &= !latch::reload_if_asked();
        !latch::stop_asked() && !self.runner.me.is_to_end() && !self.is_held() && !xact::is_spoilt()
    }

    /// Has the scheduler start another worker in place of this one, which then asks this one to end, once it has run as
    /// many jobs as it may.
    fn retire_if_spent(&self) {
        let me = self.runner.me;
        if self.runner.is_spent()
            && !me.is_spent.swap(true, SeqCst)
            && let Some(entry) = self.board.database(self.database)
        {
            entry.scheduler.set();
        }
    }

    /// Returns true if the database is held. A hold begins before a dump's jobs can get on a list, so a look after
    /// taking them is enough.
    fn is_held(&self) -> bool {
        self.board.database(self.database).is_some_and(DatabaseEntry::is_held)
    }

    /// Runs the next jobs. Returns true if there were any.
    fn run_next(&mut self) -> Result<bool, Error> {
        if !self.is_current || self.is_stale() || settings::forbidden_flags_function().is_some() {
            self.look_around()?;
        }
        if self.forbidden.is_none() {
            return Ok(false);
        }
        fault::point("taking")?;
        let (hints, most) = self.take();
        let Some(first) = hints.first() else { return self.search() };
        if self.is_held() {
            self.runner.me.let_go();
            wake::offer(self.board, self.database, self.runner.role, &hints, None);
            return Ok(true);
        }
        fault::point("taken")?;
        if self.own_task(first).is_none() {
            // The task may be new.
            self.look_around()?;
        }
        // If the task is not this role's now and becomes so later, the table is searched again.
        let Some(task) = self.own_task(first).cloned() else {
            self.runner.me.let_go();
            return Ok(true);
        };
        if self.is_paused(first, &task)? {
            self.runner.me.let_go();
            return Ok(true);
        }
        let Some(hints) = self.find_room(&task, hints, most)? else {
            self.runner.me.let_go();
            return Ok(true);
        };
        let taken = TakenJobs { task, forbidden_flags: self.forbidden.clone().unwrap_or_default(), hints };
        let left = self.runner.run(&taken)?;
        if self.runner.holds_room() {
            self.runner.give_back(&self.tasks, &taken.forbidden_flags, &left)?;
        }
        if !left.is_empty() {
            wake::offer(self.board, self.database, self.runner.role, &left, None);
        }
        Ok(true)
    }

    /// Returns true if jobs off the ready list are paused: the end of the pause has the table searched for them. The
    /// pauses must be current for that, as one that has ended may be why the jobs are on the list. For jobs of queues,
    /// what they can be taken by tells: other jobs of the queue may be next.
    fn is_paused(&mut self, first: &Hint, task: &Task) -> Result<bool, Error> {
        if self.tasks.pauses.is_empty() || first.kind == Kind::Queued {
            return Ok(false);
        }
        if self.is_stale() {
            self.look_around()?;
        }
        Ok(self.tasks.pauses.until(&task.identifier, None, clock::now()).is_some())
    }

    /// Asks for room for jobs of a task. Returns those that may begin; `None` if none may.
    fn find_room(&mut self, task: &Rc<Task>, hints: Vec<Hint>, most: usize) -> Result<Option<Vec<Hint>>, Error> {
        const MOST_LOOKS: usize = 1024;
        if hints.first().is_some_and(|first| first.kind == Kind::Queued) {
            // For the queue's next job, which may be another one.
            self.runner.asks_for_next_of_queue(&self.tasks);
            self.runner.tell_of_room(self.board, 0);
            return Ok(Some(hints));
        }
        if task.limits.is_empty() {
            self.runner.tell_of_room(self.board, 0);
            return Ok(Some(hints));
        }
        let forbidden = self.forbidden.as_deref().unwrap_or_default();
        let granted = self.runner.grant(&self.tasks, forbidden, task, &hints, most)?;
        if granted.is_empty() {
            fault::point("no_room")?;
            self.looks_at = (self.looks_at * 2).min(MOST_LOOKS);
            return Ok(None);
        }
        fault::point("granted")?;
        self.looks_at = 1;
        self.runner.tell_of_room(self.board, if limited::has_keys(task) { 0 } else { granted.len() as u64 });
        Ok(Some(granted))
    }

    /// Returns true if the tasks may be others than at the latest look: running a job reads them again, too.
    fn is_stale(&self) -> bool {
        !registry::is_latest(&self.tasks)
    }

    fn own_task(&self, hint: &Hint) -> Option<&Rc<Task>> {
        self.tasks.tagged(self.runner.role, hint.task)
    }

    /// Reads the tasks and the forbidden flags.
    fn look_around(&mut self) -> Result<(), Error> {
        xact::begin_for_queue();
        self.tasks = registry::tasks()?;
        let forbidden = self.flags.forbidden()?;
        xact::commit()?;
        self.is_current = true;
        if forbidden != self.forbidden {
            if self.forbidden.is_some() {
                // Jobs that were skipped for their flags may run now.
                self.list.with(|ready| ready.lower(Position::START));
            }
            self.forbidden = forbidden;
        }
        if !self.tasks.limits.is_empty() {
            // What this worker ran until now may have been counted under a limit that it did not know.
            self.runner.refill(&self.tasks, self.forbidden.as_deref().unwrap_or_default(), None)?;
        }
        Ok(())
    }

    /// Takes the first job off the ready list, and more jobs of its task if they may share a transaction. Leaves other
    /// workers their share of what there is. Returns also how many of them may share it: more are taken where only their rows
    /// tell which of them have room. Takes none if the worker is to search first.
    fn take(&mut self) -> (Vec<Hint>, usize) {
        let may_search = !std::mem::take(&mut self.has_searched) && self.tasks.limits.is_empty();
        let few = if self.largest_batch == 1 { self.list.users() } else { self.users() * self.largest_batch };
        let few = few.min(CAPACITY / 2);
        loop {
            let mut most = 1;
            let mut hints = self.list.with(|ready| {
                if may_search && ready.runs_low(few) {
                    // While the others run what is left. Without that, they would wait for the search, and batches would get
                    // ever smaller towards the end of the list.
                    return Vec::new();
                }
                let (waiting, has_backlog) = (ready.len(), ready.has_backlog());
                ready.take(|hint| {
                    let task = self.own_task(hint);
                    most = match task {
                        Some(task) if task.max_batch > 1 && !crash_records::is_suspect(self.database, hint.task) => {
                            let users = self.users();
                            task.max_batch
                                .min(if has_backlog { CAPACITY / users } else { waiting.div_ceil(users) })
                                .max(1)
                        }
                        _ => 1,
                    };
                    match task {
                        Some(task) if limited::has_keys(task) && hint.kind != Kind::Queued => most.max(self.looks_at),
                        _ => most,
                    }
                })
            });
            if hints.is_empty() {
                return (hints, most);
            }
            // The scheduler has the table searched again once it has settled the charges.
            hints.retain(|hint| !crash_records::is_charged(self.database, hint.position.id));
            if !hints.is_empty() {
                // From here on, the jobs are looked for if this process ends.
                self.runner.me.hold(TakenRange::of(&hints), &DbText::default());
                return (hints, most);
            }
        }
    }

    /// Searches the table from the watermark on. Returns true if the ready list must be looked at again.
    fn search(&mut self) -> Result<bool, Error> {
        /// Large enough for the search to cost little beside the jobs.
        const AT_LEAST: usize = 500;
        let begun = self.list.with(|ready| Some((ready.begin_search(background::pid())?, ready.len())));
        let Some((from, waiting)) = begun else { return Ok(self.list.with(|ready| ready.len() > 0)) };
        self.has_searched = true;
        xact::begin_for_queue();
        // Read after the search has begun: a task that is registered, or a pause that ends, later has the table searched
        // again.
        let tasks = registry::tasks()?;
        let mut names = tasks.running_of_role(self.runner.role, clock::now());
        if !tasks.limits.is_empty() {
            limited::leave_out(self.board, self.database, &tasks, &mut names, from);
        }
        self.largest_batch =
            names.iter().filter_map(|name| tasks.get(name)).map(|task| task.max_batch).max().unwrap_or(1);
        let room = if self.passes == 1 { (CAPACITY - waiting).max(AT_LEAST) } else { CAPACITY };
        let most = (self.largest_batch * self.users()).max(AT_LEAST * self.passes).min(room);
        let mut found = search::search(&Search {
            tasks: &names,
            forbidden_flags: self.forbidden.as_deref().unwrap_or_default(),
            pauses: &tasks.pauses,
            from,
            until: Position::END,
            most,
        })?;
        let count = found.hints.len();
        if !tasks.limits.is_empty() {
            limited::sift(self.board, self.database, &tasks, self.runner.role, &mut found.hints)?;
        }
        xact::commit()?;
        fault::point("searched")?;
        // It finds hardly any jobs that have room.
        let passes = found.hints.len() * 8 < count;
        self.passes = if passes { (self.passes * 2).min(CAPACITY) } else { 1 };
        let is_left = self.list.with(|ready| {
            ready.end_search(&found.hints, found.to);
            if passes {
                ready.passes();
            } else if count == most && tasks.limits.is_empty() {
                ready.ends_full();
            }
            ready.next_search() != Position::END
        });
        // This worker takes one job, others the rest. Another one goes on with the search if anything is left to it: sessions that
        // added it meanwhile may have found no idle worker, and those that have gone idle since left it to this one.
        let others = (found.hints.len() + usize::from(is_left)).saturating_sub(1);
        wake::wake_enough(self.board, self.database, self.runner.role, others);
        Ok(true)
    }

    /// Returns how many workers the list has, with those that are starting, which have not joined it yet.
    fn users(&self) -> usize {
        let starts = |worker: &Worker| worker.state() == State::Starting && worker.role.get() == self.runner.role;
        let starting = self.board.workers_of(self.database).filter(|(_, worker)| starts(worker)).count();
        (self.list.users() + starting).max(1)
    }

    /// Sleeps until there is something to do, or the worker has been idle for kongtask.worker_idle_timeout: then it is
    /// to end.
    fn sleep(&mut self) -> Result<(), Error> {
        let me = self.runner.me;
        let since = *self.idle_since.get_or_insert_with(clock::tick);
        let ends_at = settings::worker_idle_timeout().map(|timeout| after(since, timeout));
        background::report_statistics(true);
        fault::point("tired")?;
        let look = || {
            fault::point("idle")?;
            if let Some(entry) = self.board.database(self.database).filter(|entry| entry.wants_idle_notice.is_set()) {
                // Another role may want this slot.
                entry.scheduler.set();
            }
            self.board.offer_slot(self.database);
            let has_more = self.forbidden.is_some() && self.list.with(|ready| ready.has_more());
            Ok::<_, Error>(has_more || me.is_to_end())
        };
        let slept = me.sleep(look, || latch::wait(ends_at.and_then(until_tick)))?;
        if slept == Slept::Undisturbed && ends_at.is_some_and(|end| end <= clock::tick()) {
            fault::point("leaving")?;
            // A job that comes from here on finds no idle worker, and has the scheduler start one.
            me.ask_to_leave(clock::tick());
        }
        Ok(())
    }
}
