//! Jobs that fall under limits: what they are limited by, and the search for those that wait.

use super::plan;
use super::search::{self, Search};
use crate::error::Error;
use crate::pg::clock::{self, NEVER, Tick};
use crate::pg::spi::Plan;
use crate::pg::text::DbText;
use crate::schema;
use crate::shared::limits::{self, Claim, Opened, Terms};
use crate::shared::ready_list::{Hint, Kind, Position};
use crate::shared::{Board, DatabaseEntry};
use crate::signals::wake;
use crate::tasks::limits::Limit;
use crate::tasks::registry::{Task, Tasks};
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

/// Returns true if what a job of the task is limited by is known only from its row.
pub fn has_keys(task: &Task) -> bool {
    task.limits.iter().any(|limit| limit.by.is_some())
}

/// Returns what jobs of a task are limited by, for each the limits with the job's keys. Jobs that are gone are left out.
/// To be called within a transaction, if the task [has keys](has_keys).
pub fn claims<'t>(task: &'t Task, hints: &[Hint]) -> Result<Vec<(Hint, Vec<Claim<'t>>)>, Error> {
    if !has_keys(task) {
        return Ok(hints.iter().map(|&hint| (hint, keyless(task))).collect());
    }
    let mut found = claims_of(task, hints.iter().map(|hint| hint.position.id).collect())?;
    Ok(hints.iter().filter_map(|&hint| Some((hint, found.remove(&hint.position.id)?))).collect())
}

fn keyless(task: &Task) -> Vec<Claim<'_>> {
    task.limits.iter().map(|limit| limit.claim(None, None)).collect()
}

fn claims_of(task: &Task, ids: Vec<i64>) -> Result<HashMap<i64, Vec<Claim<'_>>>, Error> {
    static KEYS: Plan = plan!("limit_keys", INT8ARRAYOID).by_index();
    let session = schema::session()?;
    let rows = session.read(&KEYS, &[ids.into_datum()])?;
    let claims = |row| task.limits.iter().map(|limit| limit.claim(rows.value(row, 1), rows.value(row, 2))).collect();
    Ok((0..rows.count()).filter_map(|row| Some((rows.get(row, 0)?, claims(row)))).collect())
}

/// Returns what one job of a task is limited by. To be called within a transaction.
pub fn claims_of_one(task: &Task, id: i64) -> Result<Vec<Claim<'_>>, Error> {
    if !has_keys(task) {
        return Ok(keyless(task));
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

/// Leaves those of a role's jobs out that have no room, and notes that they wait. To be called within a transaction.
pub fn sift(board: Board, database: Oid, tasks: &Tasks, role: Oid, hints: &mut Vec<Hint>) -> Result<(), Error> {
    let limited =
        |hint: &Hint| tasks.tagged(role, hint.task).filter(|task| hint.kind != Kind::Queued && !task.limits.is_empty());
    let mut by_task: HashMap<u32, (&Rc<Task>, Vec<Hint>)> = HashMap::new();
    for hint in hints.iter() {
        if let Some(task) = limited(hint) {
            by_task.entry(hint.task).or_insert((task, Vec::new())).1.push(*hint);
        }
    }
    let mut waiting: Vec<i64> = Vec::new();
    for (task, hints) in by_task.values() {
        let claims = claims(task, hints)?;
        let jobs: Vec<_> = claims.into_iter().map(|(hint, claims)| (hint.position, claims)).collect();
        let (full, next_start) = limits::sift(board, database, &jobs);
        tell_next_start(board.database(database), next_start);
        waiting.extend(jobs.iter().zip(full).filter(|(_, is_full)| *is_full).map(|((position, _), _)| position.id));
    }
    if !waiting.is_empty() {
        waiting.sort_unstable();
        hints.retain(|hint| waiting.binary_search(&hint.position.id).is_err());
    }
    Ok(())
}

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
    for opened in opened {
        if let Some(limit) = tasks.limits.get(opened.limit) {
            let mut refill = Refill { board, database, tasks, forbidden_flags, limit, opened, rest: Position::END };
            let found = refill.find()?;
            refill.put(found, mine);
        }
    }
    Ok(())
}

struct Refill<'a> {
    board: Board,
    database: Oid,
    tasks: &'a Tasks,
    forbidden_flags: &'a [DbText],
    limit: &'a Limit,
    opened: &'a Opened,
    /// Where jobs may wait that were not looked at; `Position::END` if there are none.
    rest: Position,
}

impl Refill<'_> {
    /// Returns how many jobs are to be found. Where room comes with the end of other jobs, some more than there is room
    /// for, as those are about to be wanted.
    fn most(&self) -> usize {
        const MOST: usize = 500;
        const MORE: usize = 32;
        let more = if self.limit.terms.rate.is_none() && self.limit.by.is_none() { MORE } else { 0 };
        usize::try_from(self.opened.room).unwrap_or(MOST).saturating_add(more).min(MOST)
    }

    fn find(&mut self) -> Result<Vec<(Oid, Hint)>, Error> {
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
                    let until = self.opened.last.next().min(list.with(|ready| ready.next_search()));
                    self.find_of_role(role, &names, until, &mut found)?;
                }
                // The role's next worker searches the whole table.
                None => {
                    if let Some(entry) = self.board.database(self.database) {
                        entry.has_unlisted_jobs.store(true, SeqCst);
                        entry.scheduler.set();
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
        found: &mut Vec<(Oid, Hint)>,
    ) -> Result<(), Error> {
        /// Of jobs with other keys, so many are passed at once.
        const CHUNK: usize = 100;
        let most = self.most();
        let (mut from, mut count) = (self.opened.from, 0);
        while count < most && from < until {
            let result = search::search(&Search {
                tasks: names,
                forbidden_flags: self.forbidden_flags,
                pauses: &self.tasks.pauses,
                from,
                until,
                most: if self.limit.by.is_some() { CHUNK } else { most },
            })?;
            from = result.to;
            let mut hints = result.hints;
            hints.retain(|hint| !self.is_running(hint));
            if self.limit.by.is_some() {
                self.keep_those_with_key(role, &mut hints)?;
            }
            if count + hints.len() > most {
                from = hints[most - count].position;
                hints.truncate(most - count);
            }
            count += hints.len();
            found.extend(hints.into_iter().map(|hint| (role, hint)));
        }
        if from < until {
            self.rest = self.rest.min(from);
        }
        Ok(())
    }

    /// Returns true if a worker runs the job in place, so that its row looks as if it waited.
    fn is_running(&self, hint: &Hint) -> bool {
        let mut held = self.board.workers_of(self.database).filter_map(|(_, worker)| worker.held());
        held.any(|held| held.is_one() && held.may_be(hint))
    }

    fn keep_those_with_key(&self, role: Oid, hints: &mut Vec<Hint>) -> Result<(), Error> {
        let mut kept = Vec::new();
        for name in self.tasks.of_role(role).iter().filter(|name| self.limit.covers(name)) {
            let Some(task) = self.tasks.get(name) else { continue };
            let its: Vec<Hint> = hints.iter().filter(|hint| hint.task == task.tag).copied().collect();
            let has_key = |claims: &[Claim]| {
                claims.iter().any(|claim| claim.terms.id == self.opened.limit && claim.key == self.opened.key)
            };
            kept.extend(claims(task, &its)?.into_iter().filter(|(_, claims)| has_key(claims)).map(|(hint, _)| hint));
        }
        kept.sort_unstable_by_key(|hint| hint.position);
        *hints = kept;
        Ok(())
    }

    /// Puts jobs on the lists of their roles, and wakes workers. The rest waits again.
    fn put(&mut self, mut found: Vec<(Oid, Hint)>, mine: Option<Oid>) {
        found.sort_unstable_by_key(|(_, hint)| hint.position);
        let most = self.most();
        if let Some((_, next)) = found.get(most) {
            self.rest = self.rest.min(next.position);
            found.truncate(most);
        }
        if self.rest != Position::END {
            let claim = Claim { terms: &self.limit.terms, key: self.opened.key };
            // There is room in the table: the entry was not freed, or another was.
            if !limits::park(self.database, &claim, self.rest, self.opened.last)
                && let Some(entry) = self.board.database(self.database)
            {
                entry.has_skipped_rows.store(true, SeqCst);
            }
        }
        let mut roles: Vec<Oid> = found.iter().map(|(role, _)| *role).collect();
        roles.sort_unstable_by_key(|role| role.to_u32());
        roles.dedup();
        for &role in &roles {
            let hints: Vec<Hint> = found.iter().filter(|(of, _)| *of == role).map(|(_, hint)| *hint).collect();
            wake::offer(self.board, self.database, role, &hints, None);
        }
        // Only now: a worker that gives back room from here on finds the jobs on its list.
        let claim = Claim { terms: &self.limit.terms, key: self.opened.key };
        let mut room = usize::try_from(limits::room(self.board, self.database, &claim)).unwrap_or(usize::MAX);
        for role in roles {
            let hints: Vec<Hint> = found.iter().filter(|(of, _)| *of == role).map(|(_, hint)| *hint).collect();
            let begin = hints.len().min(room);
            room -= begin;
            let others = begin.saturating_sub(usize::from(mine == Some(role)));
            if wake::wake(self.board, self.database, role, others) < others
                && let Some(entry) = self.board.database(self.database)
                && entry.can_rebalance.is_set()
            {
                entry.scheduler.set();
            }
        }
    }
}
