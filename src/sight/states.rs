//! The state of a job, as a statement sees it. Every job is in exactly one.
//!
//! Whether a job runs is known from its row where a worker has claimed it. One that runs in place has been deleted or
//! locked by a transaction that is in progress; the board says whether that is a worker's. If that transaction has
//! ended since the statement's snapshot was taken, the board may already say something else: then the job is taken to
//! have been running as of the snapshot.

use crate::error::Error;
use crate::holds;
use crate::pg::clock::{self, NEVER, Timestamp, before};
use crate::pg::role;
use crate::pg::scan::{self, Holder};
use crate::pg::spi::{Plan, plan};
use crate::pg::text::{DbText, text};
use crate::pg::{background, version};
use crate::schema;
use crate::schema::job_row::timestamp;
use crate::settings;
use crate::shared::limits::{self, Claim};
use crate::shared::{self, ID_PREFIX, State as WorkerState, TakenRange};
use crate::tasks::registry::{self, Tasks};
use pgrx::pg_sys::{Datum, InvalidOid, InvalidTransactionId, TransactionId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A worker can take it at once.
    Ready,
    /// It is due, and something keeps it from running.
    Waiting,
    /// It has never been tried, and is to run later.
    Scheduled,
    Running,
    /// An attempt has failed, and the next is to be made later.
    Retrying,
    /// It has failed for good.
    Failed,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Waiting => "waiting",
            State::Scheduled => "scheduled",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Failed => "failed",
        }
    }
}

/// What the state of a job depends on.
pub struct Seen<'a> {
    pub id: i64,
    pub task: &'a [u8],
    pub queue_name: Option<&'a [u8]>,
    pub run_at: Timestamp,
    pub attempts: i32,
    pub max_attempts: i32,
    pub locked_at: Option<Timestamp>,
    pub locked_by: Option<&'a [u8]>,
    /// A `jsonb`.
    pub flags: Option<Datum>,
    /// A `json`.
    pub payload: Option<Datum>,
    /// `queue_name`, a `text`.
    pub queue: Option<Datum>,
    /// See [`scan::holder`].
    pub deleter: TransactionId,
}

/// Everything but the jobs themselves that their states depend on, as one statement sees it.
pub struct Outlook {
    now: Timestamp,
    /// Locks of external workers from before this time are dead.
    expired: Timestamp,
    tasks: Rc<Tasks>,
    living: HashSet<Vec<u8>>,
    forbidden_flags: Vec<DbText>,
    /// The queues that are locked, each with the job that it runs.
    busy: HashMap<Vec<u8>, Option<i64>>,
    /// Why no job runs in this database.
    stopped: Option<String>,
    /// Why no job of a task runs.
    blocked: RefCell<BTreeMap<Vec<u8>, Option<Rc<str>>>>,
    /// Which limits have no room, by their hashes and those of keys.
    full: RefCell<HashMap<(u64, u64), bool>>,
}

/// Returns the job that a worker runs. One that runs in place in its queue does not say so in its row.
fn running_job(worker_id: &DbText) -> Option<i64> {
    let board = shared::board()?;
    let mut workers = board.workers_of(background::database());
    workers.find(|(_, worker)| worker.id().as_ref() == Some(worker_id))?.1.running().map(|running| running.job)
}

impl Outlook {
    /// Looks around. To be called once in a statement.
    pub fn new() -> Result<Outlook, Error> {
        static BUSY: Plan = plan!("queues_locked").by_index();
        let now = clock::now();
        let mut outlook = Outlook {
            now,
            expired: before(now, settings::job_expiry()),
            tasks: registry::tasks()?,
            living: shared::living_workers().iter().map(|id| id.as_bytes().to_vec()).collect(),
            forbidden_flags: settings::forbidden_flags(),
            busy: HashMap::new(),
            stopped: stopped(),
            blocked: RefCell::default(),
            full: RefCell::default(),
        };
        let session = schema::session()?;
        let rows = session.read(&BUSY, &[])?;
        for row in 0..rows.count() {
            let (name, by) = (rows.get::<DbText>(row, 0), rows.get::<DbText>(row, 2));
            let locked_at = timestamp(rows.value(row, 3));
            if let Some(name) = name.filter(|_| outlook.is_alive(by.as_ref().map(DbText::as_bytes), locked_at)) {
                let running = rows.get(row, 1).or_else(|| by.as_ref().and_then(running_job));
                outlook.busy.insert(name.as_bytes().to_vec(), running);
            }
        }
        Ok(outlook)
    }

    /// Returns true if the lock of a worker counts.
    fn is_alive(&self, locked_by: Option<&[u8]>, locked_at: Option<Timestamp>) -> bool {
        let Some(by) = locked_by else { return false };
        match by.starts_with(ID_PREFIX.as_bytes()) {
            true => self.living.contains(by),
            false => locked_at.is_some_and(|at| at >= self.expired),
        }
    }

    /// Returns the state of a job, if what is in this process's memory says it. Raises nothing, and allocates nothing.
    pub fn known_state(&self, job: &Seen) -> Option<State> {
        if job.locked_at.is_some() || job.deleter != InvalidTransactionId {
            return None;
        }
        if let Some(state) = self.state_of_idle(job) {
            return Some(state);
        }
        if job.flags.is_some() || !self.tasks.pauses.is_empty() || !self.tasks.limits.is_empty() {
            return None;
        }
        let is_task_blocked = self.blocked.borrow().get(job.task)?.is_some();
        let is_queue_busy = || job.queue_name.is_some_and(|name| self.busy.contains_key(name));
        Some(if is_task_blocked || is_queue_busy() { State::Waiting } else { State::Ready })
    }

    /// Returns the state of a job that does not run; `None` if it is due.
    fn state_of_idle(&self, job: &Seen) -> Option<State> {
        if job.attempts >= job.max_attempts {
            Some(State::Failed)
        } else if job.run_at > self.now {
            Some(if job.attempts == 0 { State::Scheduled } else { State::Retrying })
        } else {
            None
        }
    }

    /// Returns the state of a job.
    pub fn state(&self, job: &Seen) -> Result<State, Error> {
        Ok(if self.is_running(job) {
            State::Running
        } else if let Some(state) = self.state_of_idle(job) {
            state
        } else if self.is_blocked(job)? {
            State::Waiting
        } else {
            State::Ready
        })
    }

    /// Returns why a job that is in a state does not run.
    pub fn why(&self, job: &Seen, state: State) -> Result<Option<String>, Error> {
        let due = || format!("not due before {}", clock::written(job.run_at));
        Ok(match state {
            State::Ready | State::Running => None,
            State::Failed => Some(format!("failed for good after {} attempts", job.attempts)),
            State::Scheduled => Some(due()),
            State::Retrying => Some(format!("attempt {} of {} failed; {}", job.attempts, job.max_attempts, due())),
            State::Waiting => self.reason(job)?,
        })
    }

    fn is_running(&self, job: &Seen) -> bool {
        if job.locked_at.is_some() && self.is_alive(job.locked_by, job.locked_at) {
            return true;
        }
        match scan::holder(job.deleter) {
            Holder::None => false,
            Holder::HasHeld => true,
            Holder::Holds => shared::board().is_some_and(|board| {
                let tag = registry::tag(&DbText::new(job.task));
                let is_its = |held: TakenRange| held.task == tag && held.ids.0 <= job.id && job.id <= held.ids.1;
                let mut workers = board.workers_of(background::database());
                workers.any(|(_, worker)| worker.state() == WorkerState::Running && worker.held().is_some_and(is_its))
            }),
        }
    }

    /// Returns true if [`Outlook::reason`] has one. Allocates nothing for most jobs.
    fn is_blocked(&self, job: &Seen) -> Result<bool, Error> {
        let is_task_blocked = |blocked: &BTreeMap<Vec<u8>, Option<Rc<str>>>| blocked.get(job.task).map(Option::is_some);
        if self.paused_until(job).is_some() {
            return Ok(true);
        }
        let known = self.blocked.borrow();
        match is_task_blocked(&known) {
            Some(true) => Ok(true),
            Some(false) => Ok(self.own_reason(job)?.is_some()),
            None => {
                drop(known);
                Ok(self.reason(job)?.is_some())
            }
        }
    }

    /// Returns what keeps a job that is due from running.
    fn reason(&self, job: &Seen) -> Result<Option<String>, Error> {
        if let Some(until) = self.paused_until(job) {
            return self.why_paused(job, until).map(Some);
        }
        let known = self.blocked.borrow().get(job.task).cloned();
        let of_task = known.unwrap_or_else(|| {
            let reason: Option<Rc<str>> = self.reason_of_task(&DbText::new(job.task)).map(Into::into);
            self.blocked.borrow_mut().insert(job.task.to_vec(), reason.clone());
            reason
        });
        match of_task {
            Some(reason) => Ok(Some(reason.to_string())),
            None => self.own_reason(job),
        }
    }

    /// Returns when the pauses end under which a job falls; `None` if it is not paused.
    fn paused_until(&self, job: &Seen) -> Option<Timestamp> {
        let pauses = &self.tasks.pauses;
        if pauses.is_empty() {
            return None;
        }
        pauses.until(&DbText::new(job.task), job.queue_name.map(DbText::new).as_ref(), self.now)
    }

    fn why_paused(&self, job: &Seen, until: Timestamp) -> Result<String, Error> {
        let reason = registry::pause_reason(&DbText::new(job.task), job.queue_name.map(DbText::new).as_ref())?;
        let until = if until == NEVER { String::new() } else { format!(" until {}", clock::written(until)) };
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Ok(format!("paused{until}{reason}"))
    }

    /// Returns what keeps all jobs of a task from running.
    fn reason_of_task(&self, identifier: &DbText) -> Option<String> {
        let Some(task) = self.tasks.get(identifier) else {
            return Some("no task of that name is registered here".into());
        };
        if task.role == InvalidOid {
            let mut waiting = self.tasks.waiting.iter();
            let role = waiting.find(|(task, _)| task == identifier).map(|(_, role)| role.to_string());
            // The number of a role that was dropped stands in place of its name.
            return Some(match role.filter(|role| !role.bytes().all(|byte| byte.is_ascii_digit())) {
                Some(role) => format!("role {role} does not exist"),
                None => "its role has been dropped".into(),
            });
        }
        let name = || role::name(task.role).unwrap_or_default();
        if version::WORKER_NEEDS_LOGIN && !role::can_login(task.role) {
            return Some(format!("role \"{}\" cannot log in", name()));
        }
        if !version::may_connect(background::database(), task.role) {
            return Some(format!("role \"{}\" may not connect to this database", name()));
        }
        self.stopped.clone()
    }

    /// Returns what keeps this job from running, of what does not concern all jobs of its task.
    fn own_reason(&self, job: &Seen) -> Result<Option<String>, Error> {
        if let Some(flags) = job.flags {
            for flag in &self.forbidden_flags {
                if let Some(key) = text(flag)
                    && scan::has_key(flags, key)?
                {
                    return Ok(Some(format!("flag \"{flag}\" is forbidden")));
                }
            }
        }
        if let Some(limit) = self.full_limit(job) {
            return Ok(Some(format!("limit {limit} is reached")));
        }
        let running = job.queue_name.and_then(|name| self.busy.get(name));
        Ok(running.map(|running| match running {
            Some(running) => format!("its queue is busy: it runs job {running}"),
            None => "its queue is busy".into(),
        }))
    }
}

impl Outlook {
    /// Returns the name of a limit that has no room for a job.
    fn full_limit(&self, job: &Seen) -> Option<DbText> {
        if self.tasks.limits.is_empty() {
            return None;
        }
        let (board, task) = (shared::board()?, self.tasks.get(&DbText::new(job.task))?);
        let is_full = |claim: Claim| {
            let mut full = self.full.borrow_mut();
            let known = || limits::known(board, background::database(), &claim).is_full;
            *full.entry((claim.terms.id, claim.key)).or_insert_with(known)
        };
        let limit = task.limits.iter().find(|limit| is_full(limit.claim(job.payload, job.queue)));
        limit.map(|limit| limit.name.clone())
    }
}

/// Returns why no job runs in this database.
fn stopped() -> Option<String> {
    let database = background::database();
    let Some(board) = shared::board() else {
        return Some("no worker: kongtask is not in shared_preload_libraries".into());
    };
    if background::is_standby() {
        return Some("no worker: the server is a standby".into());
    }
    if !background::database_name(database).is_some_and(|name| settings::serves(&name)) {
        return Some("no worker: kongtask.databases does not list this database".into());
    }
    if settings::workers() == 0 {
        return Some("no worker: kongtask.workers is 0".into());
    }
    let entry = board.database(database);
    if let Some(hold) = entry.and_then(|entry| holds::of(entry).into_iter().next()) {
        return Some(format!("held: {}", hold.reason));
    }
    let has_scheduler = entry.is_some_and(|entry| entry.attendance.has_scheduler());
    let has_worker = || board.workers_of(database).next().is_some();
    match entry {
        Some(entry) if entry.is_starving() && !has_worker() => {
            Some("no worker: all slots for background workers are in use".into())
        }
        // A scheduler is started for the first job.
        Some(entry) if entry.attendance.is_watched() || entry.attendance.is_wanted() => None,
        None if board.has_no_entry_left() => Some("no worker: kongtask.max_databases is reached".into()),
        _ if !has_scheduler => Some("no worker: no scheduler runs in this database".into()),
        _ => None,
    }
}
