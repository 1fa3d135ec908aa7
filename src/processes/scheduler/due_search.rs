//! The scheduler's searches: for jobs that fall due, and, as a safety net, for jobs that no commit reported. It adds
//! them to the ready lists of their roles and wakes idle workers.

use super::Scheduler;
use crate::error::Error;
use crate::jobs::search::{self, Search, SearchResult};
use crate::jobs::{limited, queues};
use crate::pg::clock::{self, NEVER, Tick, Timestamp, after};
use crate::pg::fault;
use crate::processes::pool::Understaffed;
use crate::settings;
use crate::shared::ready_list::{Position, ReadyList};
use crate::shared::{SharedReadyList, TakenRange, limits};
use crate::signals::wake;
use crate::tasks::registry::Tasks;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

impl Scheduler {
    /// Adds the jobs that can run to the ready lists of their roles, and wakes idle workers for them. Returns the roles
    /// that have more jobs than idle workers.
    pub(super) fn look(&mut self, tasks: &Tasks, roles: &[Oid], now: Tick) -> Result<Vec<Understaffed>, Error> {
        let time = clock::now();
        // Before the snapshot, as a session sets it after its commit.
        let has_unlisted = self.entry.has_unlisted_jobs.swap(false, SeqCst) || self.has_unlisted_jobs;
        self.has_unlisted_jobs = false;
        let scope = self.scope(now, time);
        let looks_for_skipped = now >= self.skipped_at;
        if looks_for_skipped {
            self.skipped_at = NEVER;
        }
        let begun = Instant::now();
        fault::point("looking")?;
        let (mut understaffed, mut are_skipped) = (Vec::new(), false);
        for &role in roles {
            let list = self.board.list(self.database, role);
            if let Some(list) = list.filter(|_| looks_for_skipped) {
                are_skipped |= self.look_for_skipped(tasks, role, list)?;
            }
            let waiting = match (list, &scope) {
                (None, Scope::Nothing) if !has_unlisted => 0,
                (None, Scope::DueSince(since)) if !has_unlisted => {
                    self.search(tasks, role, |search| search::search_due(search, *since))?.hints.len()
                }
                (None, _) => self.search(tasks, role, search::search)?.hints.len(),
                (Some(list), Scope::All(since)) => {
                    let known = list.with(|ready| ready.begins());
                    let found = self.search(tasks, role, search::search)?;
                    if self.add_to_ready_list(list, found, known).is_unsure {
                        self.entry.has_skipped_rows.store(true, SeqCst);
                    }
                    // Jobs that fell due behind the first one on the list are on no list yet.
                    let found = self.search(tasks, role, |search| search::search_due(search, *since))?;
                    self.add_to_ready_list(list, found, Position::END).waiting
                }
                (Some(list), Scope::DueSince(since)) => {
                    let found = self.search(tasks, role, |search| search::search_due(search, *since))?;
                    self.add_to_ready_list(list, found, Position::END).waiting
                }
                (Some(list), Scope::Nothing) => list.with(|ready| waiting(ready)),
            };
            self.has_unlisted_jobs |= list.is_none() && waiting > 0;
            let unattended = waiting - wake::wake(self.board, self.database, role, waiting);
            if unattended > 0 {
                understaffed.push(Understaffed { role, jobs: unattended });
            }
        }
        if !matches!(scope, Scope::Nothing) {
            self.searched = time;
            if let Some(due) = search::next_due(time)? {
                self.entry.next_due.lower(due);
            }
        }
        if matches!(scope, Scope::All(_)) {
            self.has_orphaned_queues = queues::has_orphaned()?;
            // The safety net takes a fiftieth of the time at most, however many rows a search has to skip.
            self.may_search_at = after(now, begun.elapsed() * 50);
            self.search_at = self.may_search_at.max(after(now, settings::poll_interval()));
            if self.entry.has_unnoted_jobs.load(SeqCst) {
                self.search_at = self.search_at.min(self.may_search_at);
            }
        }
        if looks_for_skipped {
            // Some stay locked for long.
            self.skipped_pause = if are_skipped { (self.skipped_pause * 2).min(SOON * 8) } else { SOON };
        }
        self.search_again_for_skipped(now);
        Ok(understaffed)
    }

    /// Adds those of the jobs that a role's workers have skipped to its list that can run. Those that workers may have now are
    /// looked for again: a worker may have skipped one of several that it holds. Returns true if any can run.
    fn look_for_skipped(&mut self, tasks: &Tasks, role: Oid, list: &SharedReadyList) -> Result<bool, Error> {
        let skipped = list.with(|ready| ready.take_skipped());
        if skipped.is_empty() {
            return Ok(false);
        }
        let found = self.search(tasks, role, |search| search::search_those(search, &skipped))?;
        let can_run = !found.hints.is_empty();
        let added = self.add_to_ready_list(list, found, Position::END);
        if !added.held.is_empty() {
            list.with(|ready| added.held.iter().for_each(|&job| _ = ready.skip(job)));
            self.entry.has_skipped_jobs.store(true, SeqCst);
        }
        Ok(can_run)
    }

    /// Searches for jobs that wait under limits that have room.
    pub(super) fn look_for_waiting(&mut self, tasks: &Tasks) -> Result<(), Error> {
        if tasks.limits.is_empty() {
            return Ok(());
        }
        // Before the look, as a worker lowers it after it has noted a job.
        self.entry.next_start.take();
        let terms = |id| tasks.limits.get(id).map(|limit| &limit.terms);
        let (opened, next_start) = limits::open(self.board, self.database, None, terms, None);
        self.entry.next_start.lower(next_start);
        limited::refill(self.board, self.database, tasks, &settings::forbidden_flags(), &opened, None)
    }

    /// Has workers search the whole table again.
    pub(super) fn have_all_searched(&mut self) {
        self.has_unlisted_jobs = true;
        self.board.forget_queues(self.database);
        for list in self.board.ready_lists_of(self.database) {
            list.with(|ready| ready.lower(Position::START));
        }
    }

    /// Searches the whole table after a COMMIT PREPARED, as that may have added jobs that no commit reported. Not more
    /// often than the safety net does: there may be hundreds of them in a second that add no job.
    pub(super) fn search_after_unnoted_commits(&mut self, now: Tick) {
        if now < self.may_search_at {
            if self.entry.has_unnoted_jobs.load(SeqCst) {
                self.search_at = self.search_at.min(self.may_search_at);
            }
        } else if self.entry.has_unnoted_jobs.swap(false, SeqCst) {
            self.search_at = now;
            self.have_all_searched();
        }
    }

    /// If jobs were skipped, schedules a search for them soon: what kept them from being taken may be gone by then.
    fn search_again_for_skipped(&mut self, now: Tick) {
        if self.entry.has_skipped_jobs.swap(false, SeqCst) {
            self.skipped_at = self.skipped_at.min(after(now, self.skipped_pause));
        }
        if self.entry.has_skipped_rows.swap(false, SeqCst) {
            self.search_at = self.search_at.min(self.may_search_at.max(after(now, SOON)));
        }
    }

    /// Returns what to search for now.
    fn scope(&mut self, now: Tick, time: Timestamp) -> Scope {
        let all = now >= self.search_at;
        let may_have_ended = now >= self.unsure_at;
        if !all && !may_have_ended && time < self.entry.next_due.get() {
            return Scope::Nothing;
        }
        // Before the snapshot, as a commit that the snapshot does not show reports again.
        let told = self.entry.next_due.take();
        let mut since = told.min(self.searched);
        if may_have_ended {
            since = since.min(self.unsure_since);
            (self.unsure_since, self.unsure_at) = (NEVER, NEVER);
        }
        if all { Scope::All(since) } else { Scope::DueSince(since) }
    }

    /// Returns the first jobs of a role that can run, by one of the searches of [`crate::jobs::search`].
    pub(super) fn search(
        &mut self,
        tasks: &Tasks,
        role: Oid,
        search: impl FnOnce(&Search) -> Result<SearchResult, Error>,
    ) -> Result<SearchResult, Error> {
        const MOST: usize = 500;
        let forbidden_flags = settings::forbidden_flags();
        let mut found = search(&Search {
            tasks: &tasks.running_of_role(role, clock::now()),
            forbidden_flags: &forbidden_flags,
            pauses: &tasks.pauses,
            from: Position::START,
            until: Position::END,
            most: MOST,
        })?;
        if !tasks.limits.is_empty() {
            let count = found.hints.len();
            limited::sift(self.board, self.database, tasks, role, &mut found.hints)?;
            if found.hints.len() < count && found.to != Position::START {
                // What waits under limits would have workers pass all of it again each time, and never come to its end.
                found.to = Position::END;
            }
        }
        // The next pass releases jobs that arrived with the lock of a worker that does not live here.
        self.released &= !found.has_dead_locks;
        Ok(found)
    }

    /// Adds the jobs found before the position `known` to a ready list, but for those that a worker runs. A job that may
    /// be among several that a worker has taken is left out; if it has fallen due, it is searched for again soon.
    fn add_to_ready_list(&mut self, list: &SharedReadyList, found: SearchResult, known: Position) -> Added {
        let held: Vec<TakenRange> =
            self.board.workers_of(self.database).filter_map(|(_, worker)| worker.held()).collect();
        let (mut hints, mut left_out, mut unsure_since) = (Vec::new(), Vec::new(), NEVER);
        for hint in found.hints.into_iter().filter(|hint| hint.position < known) {
            match held.iter().filter(|held| held.may_be(&hint)).map(TakenRange::is_one).max() {
                None => {
                    hints.push(hint);
                    continue;
                }
                Some(true) => {}
                Some(false) => unsure_since = unsure_since.min(hint.position.run_at),
            }
            left_out.push(hint.position.id);
        }
        let is_unsure = unsure_since != NEVER;
        if is_unsure {
            self.unsure_since = self.unsure_since.min(unsure_since);
            self.unsure_at = self.unsure_at.min(after(clock::tick(), SOON));
        }
        let waiting = list.with(|ready| {
            hints.into_iter().for_each(|hint| ready.offer(hint));
            if found.to < known {
                ready.lower(found.to);
            }
            waiting(ready)
        });
        Added { waiting, held: left_out, is_unsure }
    }
}

/// How soon a search is made again for jobs that another process has. One that stays locked for long is not tried more
/// often than that.
pub(super) const SOON: Duration = Duration::from_millis(100);

/// What came of adding jobs to a ready list.
struct Added {
    /// How many jobs wait there.
    waiting: usize,
    /// The jobs that were left out, as workers have them or may have them.
    held: Vec<i64>,
    /// True if a job was left out that may be among several that a worker has taken.
    is_unsure: bool,
}

/// The scope of a search.
enum Scope {
    Nothing,
    /// Jobs that fell due since this time.
    DueSince(Timestamp),
    /// The whole table, as a report may have been lost, and jobs that fell due since this time.
    All(Timestamp),
}

/// Returns how many jobs wait on a ready list, as far as it knows.
fn waiting(ready: &ReadyList) -> usize {
    ready.len().max(usize::from(ready.has_more()))
}
