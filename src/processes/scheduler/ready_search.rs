//! What the scheduler searches the table for: jobs that fell due, and, as a safety net, those that no commit told of. It puts
//! them on the lists of the roles that run them, and wakes idle workers.

use super::Scheduler;
use crate::error::Error;
use crate::jobs::queues;
use crate::jobs::search::{self, Search, SearchResult};
use crate::pg::clock::{self, Tick, Timestamp, after};
use crate::pg::fault;
use crate::settings;
use crate::shared::ready_list::{Position, ReadyList};
use crate::shared::{SharedReadyList, TakenRange};
use crate::signals::wake;
use crate::tasks::registry::Tasks;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

impl Scheduler {
    /// Sees to it that what can run is on its role's shelf, and wakes idle workers for it; the roles that have more jobs than
    /// idle workers.
    pub(super) fn look(&mut self, tasks: &Tasks, roles: &[Oid], now: Tick) -> Result<Vec<Oid>, Error> {
        let time = clock::now();
        let scope = self.scope(now, time);
        fault::point("looking")?;
        let begun = Instant::now();
        let mut understaffed = Vec::new();
        for &role in roles {
            let list = self.board.list(self.database, role);
            let waiting = match (list, &scope) {
                (None, _) => self.search(tasks, role, search::search)?.hints.len(),
                (Some(list), Scope::All(since)) => {
                    let known = list.with(|ready| ready.begins());
                    let found = self.search(tasks, role, search::search)?;
                    self.add_to_ready_list(list, found, known);
                    // What fell due behind the first job that was known is on no list yet.
                    let found = self.search(tasks, role, |search| search::search_due(search, *since))?;
                    self.add_to_ready_list(list, found, Position::END)
                }
                (Some(list), Scope::DueSince(since)) => {
                    let found = self.search(tasks, role, |search| search::search_due(search, *since))?;
                    self.add_to_ready_list(list, found, Position::END)
                }
                (Some(list), Scope::Nothing) => list.with(|ready| waiting(ready)),
            };
            if wake::wake(self.board, self.database, role, waiting) < waiting {
                understaffed.push(role);
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
            // A safety net, which is to take little of the time however much has to be passed.
            self.may_search_at = after(now, begun.elapsed() * 50);
            self.search_at = self.may_search_at.max(after(now, settings::poll_interval()));
        }
        self.search_skipped_rows_again(now);
        Ok(understaffed)
    }

    /// Has all workers search the table from its beginning.
    pub(super) fn have_all_searched(&self) {
        for list in self.board.ready_lists_of(self.database) {
            list.with(|ready| ready.lower(Position::START));
        }
    }

    /// If somebody has committed what was prepared, all is searched again, but no more often than the whole table is anyway: there may be
    /// hundreds of those in a second, none of which has added a job.
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

    /// Has the table be searched again soon if somebody had a row that may be free by then.
    fn search_skipped_rows_again(&mut self, now: Tick) {
        // Whoever holds a row for long is not asked more often than that.
        const SOON: Duration = Duration::from_millis(100);
        if self.entry.has_skipped_rows.swap(false, SeqCst) {
            self.search_at = self.search_at.min(self.may_search_at.max(after(now, SOON)));
        }
    }

    /// What to search for now.
    fn scope(&mut self, now: Tick, time: Timestamp) -> Scope {
        let all = now >= self.search_at;
        if !all && time < self.entry.next_due.get() {
            return Scope::Nothing;
        }
        // Before the snapshot: what is committed after it is told anew.
        let told = self.entry.next_due.take();
        let since = told.min(self.searched);
        if all { Scope::All(since) } else { Scope::DueSince(since) }
    }

    /// The first jobs of a role that can run, as `search` finds them.
    pub(super) fn search(
        &mut self,
        tasks: &Tasks,
        role: Oid,
        search: impl FnOnce(&Search) -> Result<SearchResult, Error>,
    ) -> Result<SearchResult, Error> {
        const MOST: usize = 500;
        let (tasks, forbidden_flags) = (tasks.of_role(role), settings::forbidden_flags());
        let found =
            search(&Search { tasks: &tasks, forbidden_flags: &forbidden_flags, from: Position::START, most: MOST })?;
        // What came with the lock of a worker that is not here is released in the next pass.
        self.released &= !found.has_dead_locks;
        Ok(found)
    }

    /// Puts on a shelf what was found before the place where what was `known` began, and nobody runs; how many jobs wait
    /// there. Of what somebody may run among others, it is seen later whether it was so.
    fn add_to_ready_list(&self, list: &SharedReadyList, found: SearchResult, known: Position) -> usize {
        let held: Vec<TakenRange> =
            self.board.workers_of(self.database).filter_map(|(_, worker)| worker.held()).collect();
        let (mut hints, mut unsure) = (Vec::new(), false);
        for hint in found.hints.into_iter().filter(|hint| hint.position < known) {
            match held.iter().filter(|held| held.may_be(&hint)).map(TakenRange::is_one).max() {
                None => hints.push(hint),
                Some(is_run) => unsure |= !is_run,
            }
        }
        if unsure {
            self.entry.has_skipped_rows.store(true, SeqCst);
        }
        list.with(|ready| {
            hints.into_iter().for_each(|hint| ready.offer(hint));
            if found.to < known {
                ready.lower(found.to);
            }
            waiting(ready)
        })
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
fn waiting(ready: &ReadyList) -> usize {
    ready.len().max(usize::from(ready.has_more()))
}
