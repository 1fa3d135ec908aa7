//! Jobs that fall under limits: what they are limited by, and the search for those that wait.

use super::search::{self, Search};
use super::{plan, table_shape};
use crate::error::Error;
use crate::pg::clock::{self, NEVER, Tick};
use crate::pg::heap;
use crate::pg::memory::Arena;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::schema;
use crate::schema::job_row::{Job, attribute};
use crate::shared::limits::{self, Claim, NO_KEY, Opened, Terms};
use crate::shared::ready_list::{Hint, Kind, Position};
use crate::shared::{Board, DatabaseEntry, TakenRange, Worker};
use crate::signals::wake;
use crate::tasks::limits::Limit;
use crate::tasks::registry::{Task, Tasks};
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

/// Returns true if what a job of the task is limited by is known only from its row.
pub fn has_keys(task: &Task) -> bool {
    limit_of_turns(task).is_some()
}

/// Returns the limit whose keys take turns on the ready list: the first of the task's limits that has keys.
pub fn limit_of_turns(task: &Task) -> Option<&Rc<Limit>> {
    task.limits.iter().find(|limit| limit.by.is_some())
}

/// Returns the key that stands for a job on the ready list.
pub fn key(task: &Task, payload: Value, queue_name: Value) -> u64 {
    limit_of_turns(task).map_or(NO_KEY, |limit| limit.claim(payload, queue_name).key)
}

/// Returns true if only the rows of some jobs say what they are limited by.
pub fn needs_rows(task: &Task, hints: &[Hint]) -> bool {
    let keyed = task.limits.iter().filter(|limit| limit.by.is_some()).count();
    keyed > 1 || keyed == 1 && hints.iter().any(|hint| hint.key == NO_KEY)
}

/// Returns what jobs of a task are limited by, for each the limits with the job's keys. Jobs that are gone are left out,
/// if their rows are looked at. To be called within a transaction, if that [is needed](needs_rows).
pub fn claims<'t>(task: &'t Task, hints: &[Hint]) -> Result<Vec<(Hint, Vec<Claim<'t>>)>, Error> {
    if !needs_rows(task, hints) {
        return Ok(hints.iter().map(|&hint| (hint, with_key(task, hint.key))).collect());
    }
    let mut found = claims_of(task, hints.iter().map(|hint| hint.position.id).collect())?;
    let with_claims = |&hint: &Hint| {
        let claims = found.remove(&hint.position.id)?;
        let key = claims.iter().find(|claim| claim.key != NO_KEY).map_or(NO_KEY, |claim| claim.key);
        Some((Hint { key, ..hint }, claims))
    };
    Ok(hints.iter().filter_map(with_claims).collect())
}

/// Returns the claims of a job with this key, under the only limit that has keys.
fn with_key(task: &Task, key: u64) -> Vec<Claim<'_>> {
    let key = |limit: &Limit| if limit.by.is_some() { key } else { NO_KEY };
    task.limits.iter().map(|limit| Claim { terms: &limit.terms, key: key(limit) }).collect()
}

fn claims_of(task: &Task, ids: Vec<i64>) -> Result<HashMap<i64, Vec<Claim<'_>>>, Error> {
    static KEYS: Plan = plan!("limit_keys", INT8ARRAYOID).by_index();
    thread_local! {
        static ROW: RefCell<Arena> = RefCell::new(Arena::new(c"kongtask limited job"));
    }
    /// Of few, looking up each costs less than a statement.
    const FEW: usize = 8;
    /// So many payloads are in memory at once.
    const CHUNK: usize = 500;
    let claims = |payload, queue| task.limits.iter().map(|limit| limit.claim(payload, queue)).collect();
    let installed = if ids.len() <= FEW && heap::may_write() { table_shape::table()? } else { None };
    let Some(installed) = installed else {
        let session = schema::session()?;
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(CHUNK) {
            let rows = session.read(&KEYS, &[ids.to_vec().into_datum()])?;
            let claims = |row| claims(rows.value(row, 1), rows.value(row, 2));
            found.extend((0..rows.count()).filter_map(|row| Some((rows.get(row, 0)?, claims(row)))));
            rows.free();
        }
        return Ok(found);
    };
    let _snapshot = LatestSnapshot::take();
    let mut found = HashMap::with_capacity(ids.len());
    for id in ids {
        let claims = ROW.with_borrow_mut(|arena| {
            arena.empty();
            arena.within(|| {
                let row = heap::find(installed.table, installed.primary_key, id)?.map(|found| Job::new(found.row));
                let [payload, queue] = [attribute::PAYLOAD, attribute::QUEUE_NAME];
                Ok::<_, Error>(
                    row.map(|job| job.columns([payload, queue])).map(|[payload, queue]| claims(payload, queue)),
                )
            })
        })?;
        found.extend(claims.map(|claims| (id, claims)));
    }
    Ok(found)
}

/// The jobs that a worker was granted room for.
#[derive(Default)]
pub struct Granted {
    /// Their task; `None` if there are none.
    pub task: Option<Rc<Task>>,
    /// The keys of each job, by its id, in the order of the task's limits.
    pub keys: HashMap<i64, Vec<u64>>,
}

impl Granted {
    /// Returns true if what the jobs are limited by depends on their rows.
    pub fn has_keys(&self) -> bool {
        self.task.as_ref().is_some_and(|task| has_keys(task))
    }

    /// Returns false if a job falls under other keys than it was granted room for.
    pub fn covers(&self, job: &Job) -> bool {
        let (Some(task), Some(keys)) = (self.task.as_ref().filter(|task| has_keys(task)), self.keys.get(&job.id))
        else {
            return true;
        };
        let [payload, queue] = job.columns([attribute::PAYLOAD, attribute::QUEUE_NAME]);
        task.limits.iter().map(|limit| limit.claim(payload, queue).key).eq(keys.iter().copied())
    }

    /// Returns what a job was granted room under.
    pub fn claims(&self, job: i64) -> impl Iterator<Item = Claim<'_>> {
        let limits = self.task.iter().flat_map(|task| task.limits.iter());
        let keys = self.keys.get(&job).into_iter().flatten();
        limits.zip(keys).map(|(limit, &key)| Claim { terms: &limit.terms, key })
    }
}

/// Returns what one job of a task is limited by. To be called within a transaction.
pub fn claims_of_one(task: &Task, id: i64) -> Result<Vec<Claim<'_>>, Error> {
    if !has_keys(task) {
        return Ok(with_key(task, NO_KEY));
    }
    Ok(claims_of(task, vec![id])?.remove(&id).unwrap_or_default())
}

/// Has the scheduler look again at a tick for jobs that wait for it.
pub fn tell_next_start(entry: Option<&DatabaseEntry>, next_start: Tick) {
    if let Some(entry) = entry
        && next_start != NEVER
        && entry.next_start.lower(next_start)
    {
        entry.scheduler.set();
    }
}

/// Leaves those tasks out that fall under a limit without keys that has no room. Jobs of theirs at a position and behind
/// it wait: whoever gives back room searches for them. To be called before the snapshot of the search.
pub fn leave_out(board: Board, database: Oid, tasks: &Tasks, names: &mut Vec<DbText>, from: Position) {
    let covers_any = |limit: &Limit| names.iter().any(|name| limit.covers(name));
    let limits: Vec<&Rc<Limit>> = tasks.limits.iter().filter(|limit| limit.by.is_none() && covers_any(limit)).collect();
    if limits.is_empty() {
        return;
    }
    let terms: Vec<&Terms> = limits.iter().map(|limit| &limit.terms).collect();
    let (full, next_start) = limits::leave_out(board, database, &terms, from);
    tell_next_start(board.database(database), next_start);
    for (limit, _) in limits.iter().zip(full).filter(|(_, is_full)| *is_full) {
        names.retain(|name| !limit.covers(name));
    }
}

/// Leaves those of a role's jobs out that have no room, and notes that they wait. Of each key, as many stay as may begin, and
/// some more. To be called within a transaction.
pub fn sift(board: Board, database: Oid, tasks: &Tasks, role: Oid, hints: &mut Vec<Hint>) -> Result<(), Error> {
    // What runs in place is found as well. It must not stand for one that may begin.
    let held: Vec<TakenRange> = board.workers_of(database).filter_map(|(_, worker)| worker.held()).collect();
    let may_run = |hint: &Hint| held.iter().any(|held| held.may_be(hint));
    let limited =
        |hint: &Hint| tasks.tagged(role, hint.task).filter(|task| hint.kind != Kind::Queued && !task.limits.is_empty());
    let mut by_task: HashMap<u32, (&Rc<Task>, Vec<Hint>)> = HashMap::new();
    for hint in hints.iter() {
        if let Some(task) = limited(hint).filter(|_| !may_run(hint)) {
            by_task.entry(hint.task).or_insert((task, Vec::new())).1.push(*hint);
        }
    }
    // All at once, as tasks may share a limit.
    let mut jobs: Vec<(Position, Vec<Claim>)> = Vec::new();
    let mut keys: HashMap<i64, u64> = HashMap::new();
    let mut counts: HashMap<(u64, u64), usize> = HashMap::new();
    for (task, hints) in by_task.values() {
        for (hint, claims) in claims(task, hints)? {
            if hint.key != NO_KEY {
                keys.insert(hint.position.id, hint.key);
                let of_turns = claims.iter().find(|claim| claim.key == hint.key);
                of_turns.into_iter().for_each(|claim| *counts.entry(claim.id()).or_default() += 1);
            }
            jobs.push((hint.position, claims));
        }
    }
    if jobs.is_empty() {
        return Ok(());
    }
    for hint in hints.iter_mut() {
        hint.key = keys.get(&hint.position.id).copied().unwrap_or(NO_KEY);
    }
    jobs.sort_unstable_by_key(|(position, _)| *position);
    // So that the search goes on to the jobs of other keys, the rest of a key that has most jobs waits though it has room.
    let is_dominant = |count: &usize| *count > hints.len() / 2 && *count > MORE as usize * 2;
    let dominant = counts.iter().find(|(_, count)| is_dominant(count)).map(|(&id, _)| id);
    let (full, next_start) = limits::sift(board, database, &jobs, MORE, dominant);
    tell_next_start(board.database(database), next_start);
    let mut waiting: Vec<i64> =
        jobs.iter().zip(full).filter(|(_, is_full)| *is_full).map(|((position, _), _)| position.id).collect();
    if !waiting.is_empty() {
        waiting.sort_unstable();
        hints.retain(|hint| waiting.binary_search(&hint.position.id).is_err());
    }
    Ok(())
}

/// How many jobs more are put on the list than may begin at once: they are about to be wanted.
const MORE: u64 = 32;

/// Searches for jobs that wait under limits which have room now, and puts them on the lists of their roles. `mine` is the
/// role of a worker that takes one of them itself. To be called within a transaction.
pub fn refill(
    board: Board,
    database: Oid,
    tasks: &Tasks,
    forbidden_flags: &[DbText],
    opened: &[Opened],
    mine: Option<Oid>,
) -> Result<(), Error> {
    for limit in tasks.limits.iter() {
        let mut keys: Vec<Sought> =
            opened.iter().filter(|opened| opened.limit == limit.terms.id).map(Sought::new).collect();
        keys.sort_unstable_by_key(|sought| sought.opened.key);
        if !keys.is_empty() {
            let mut refill = Refill { board, database, tasks, forbidden_flags, limit, keys, mine };
            let found = refill.find()?;
            refill.put(found);
        }
    }
    Ok(())
}

/// A key of a limit for whose jobs the table is searched.
struct Sought<'a> {
    opened: &'a Opened,
    /// How many of its jobs were found, of one role.
    count: usize,
    /// Where jobs may wait that were not looked at; `Position::END` if there are none.
    rest: Position,
}

impl Sought<'_> {
    fn new(opened: &Opened) -> Sought<'_> {
        Sought { opened, count: 0, rest: Position::END }
    }

    /// Returns true if a job at a position may be one that waits.
    fn reaches(&self, position: Position) -> bool {
        (self.opened.from..=self.opened.last).contains(&position)
    }
}

/// The search for jobs of all keys of a limit that have room: one pass over the table, which leaves out what lies between
/// those that wait.
struct Refill<'a> {
    board: Board,
    database: Oid,
    tasks: &'a Tasks,
    forbidden_flags: &'a [DbText],
    limit: &'a Limit,
    keys: Vec<Sought<'a>>,
    /// The role of the worker that searches; `None` for the scheduler.
    mine: Option<Oid>,
}

/// A job that was found: its role, and the place of its key.
struct Found {
    role: Oid,
    key: usize,
    hint: Hint,
}

impl Refill<'_> {
    /// Returns how many jobs of a key are to be found. Where room comes with the end of other jobs, some more than there
    /// is room for, as those are about to be wanted.
    fn most(&self, key: &Sought) -> usize {
        const MOST: usize = 500;
        let more = if self.limit.terms.rate.is_none() { MORE as usize / self.keys.len() } else { 0 };
        usize::try_from(key.opened.room).unwrap_or(MOST).saturating_add(more).min(MOST)
    }

    fn find(&mut self) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for role in self.tasks.roles() {
            let mut names = self.tasks.running_of_role(role, clock::now());
            names.retain(|name| self.limit.covers(name));
            if names.is_empty() {
                continue;
            }
            match self.board.list(self.database, role) {
                Some(list) => {
                    // What the next search will find need not be looked for. One that is under way may leave it out.
                    let until = list.with(|ready| ready.next_search());
                    self.find_of_role(role, &names, until, &mut found)?;
                }
                // The role's next worker searches the whole table.
                None => {
                    if let Some(entry) = self.board.database(self.database) {
                        entry.has_unlisted_jobs.store(true, SeqCst);
                        // The scheduler looks at the table after this.
                        if self.mine.is_some() {
                            entry.scheduler.set();
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn find_of_role(
        &mut self,
        role: Oid,
        names: &[DbText],
        until: Position,
        found: &mut Vec<Found>,
    ) -> Result<(), Error> {
        const MOST_AT_ONCE: usize = 1000;
        self.keys.iter_mut().for_each(|key| key.count = 0);
        let mut from = Position::START;
        // Mostly the first ones have the keys. Where others do, more and more are passed at once.
        let mut at_once = self.keys.iter().map(|key| self.most(key)).sum::<usize>().min(MOST_AT_ONCE);
        while let Some((begin, end)) = self.next_span(from, until) {
            let result = search::search(&Search {
                tasks: names,
                forbidden_flags: self.forbidden_flags,
                pauses: &self.tasks.pauses,
                from: begin,
                until: end,
                most: at_once,
            })?;
            from = result.to;
            at_once = (at_once * 4).min(MOST_AT_ONCE);
            let mut hints = result.hints;
            hints.retain(|hint| !self.is_running(hint));
            for (hint, key) in self.with_keys(role, &hints)? {
                self.note(role, hint, key, until, found);
            }
        }
        Ok(())
    }

    /// Returns where the next jobs may wait, from a position on and up to another.
    fn next_span(&self, from: Position, until: Position) -> Option<(Position, Position)> {
        let wanted = |key: &&Sought| key.count < self.most(key) && key.opened.last >= from && key.opened.from < until;
        let begin = self.keys.iter().filter(wanted).map(|key| key.opened.from.max(from)).min()?;
        let end = self.keys.iter().filter(wanted).map(|key| key.opened.last.next()).max()?.min(until);
        (begin < end).then_some((begin, end))
    }

    /// Notes a job, if it is one of those that are sought.
    fn note(&mut self, role: Oid, hint: Hint, key: u64, until: Position, found: &mut Vec<Found>) {
        let Ok(at) = self.keys.binary_search_by_key(&key, |sought| sought.opened.key) else { return };
        let most = self.most(&self.keys[at]);
        let sought = &mut self.keys[at];
        if !sought.reaches(hint.position) || sought.count == most {
            return;
        }
        sought.count += 1;
        found.push(Found { role, key: at, hint });
        let next = hint.position.next();
        if sought.count == most && next < until && next <= sought.opened.last {
            sought.rest = sought.rest.min(next);
        }
    }

    /// Returns true if a worker runs the job in place, so that its row looks as if it waited. One that holds the job and has
    /// no room for it has not let go of it yet: the job waits.
    fn is_running(&self, hint: &Hint) -> bool {
        let holds = |worker: &Worker| worker.held().is_some_and(|held| held.is_one() && held.may_be(hint));
        self.board.workers_of(self.database).any(|(_, worker)| worker.limits.is_used() && holds(worker))
    }

    /// Returns the key that each of some jobs has under the limit, in the order of the jobs.
    fn with_keys(&self, role: Oid, hints: &[Hint]) -> Result<Vec<(Hint, u64)>, Error> {
        let Some(id) = self.limit.by.as_ref().map(|_| self.limit.terms.id) else {
            return Ok(hints.iter().map(|&hint| (hint, NO_KEY)).collect());
        };
        let mut keys = Vec::new();
        for name in self.tasks.of_role(role).iter().filter(|name| self.limit.covers(name)) {
            let Some(task) = self.tasks.get(name) else { continue };
            let its: Vec<Hint> = hints.iter().filter(|hint| hint.task == task.tag).copied().collect();
            let key = |claims: &[Claim]| claims.iter().find(|claim| claim.terms.id == id).map(|claim| claim.key);
            keys.extend(claims(task, &its)?.into_iter().filter_map(|(hint, claims)| Some((hint, key(&claims)?))));
        }
        keys.sort_unstable_by_key(|(hint, _)| hint.position);
        Ok(keys)
    }

    /// Puts jobs on the lists of their roles, and wakes workers. The rest waits again.
    fn put(&mut self, mut found: Vec<Found>) {
        found.sort_unstable_by_key(|found| (found.key, found.hint.position));
        let mut jobs: Vec<Found> = Vec::with_capacity(found.len());
        let mut count = 0;
        for one in found {
            count = if jobs.last().is_some_and(|last| last.key == one.key) { count + 1 } else { 1 };
            // Of several roles, more were found than are to begin.
            let most = self.most(&self.keys[one.key]);
            if count > most {
                let sought = &mut self.keys[one.key];
                sought.rest = sought.rest.min(one.hint.position);
            } else {
                jobs.push(one);
            }
        }
        for sought in self.keys.iter().filter(|sought| sought.rest != Position::END) {
            // There is room in the table: the entry was not freed, or another was.
            if !limits::park(self.database, &self.claim(sought), sought.rest, sought.opened.last)
                && let Some(entry) = self.board.database(self.database)
            {
                entry.has_skipped_rows.store(true, SeqCst);
            }
        }
        let mut roles: Vec<Oid> = jobs.iter().map(|found| found.role).collect();
        roles.sort_unstable_by_key(|role| role.to_u32());
        roles.dedup();
        for &role in &roles {
            let mut hints: Vec<Hint> = jobs.iter().filter(|found| found.role == role).map(|found| found.hint).collect();
            hints.sort_unstable_by_key(|hint| hint.position);
            wake::offer(self.board, self.database, role, &hints, None);
        }
        // Only now: a worker that gives back room from here on finds the jobs on its list.
        let mut room: Vec<u64> =
            self.keys.iter().map(|sought| limits::room(self.board, self.database, &self.claim(sought))).collect();
        for role in roles {
            let mut begin = 0;
            for found in jobs.iter().filter(|found| found.role == role) {
                let begins = u64::from(room[found.key] > 0);
                room[found.key] -= begins;
                begin += begins as usize;
            }
            let others = begin - usize::from(begin > 0 && self.mine == Some(role));
            wake::wake_enough(self.board, self.database, role, others);
        }
    }

    fn claim(&self, sought: &Sought) -> Claim<'_> {
        Claim { terms: &self.limit.terms, key: sought.opened.key }
    }
}
