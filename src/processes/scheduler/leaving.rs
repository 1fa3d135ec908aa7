//! The scheduler's leave: a database in which nothing is to be done needs no process.

use super::Scheduler;
use crate::error::Error;
use crate::pg::catch::{Level, log};
use crate::pg::clock::{self, NEVER, Tick, after};
use crate::pg::fault;
use crate::settings;
use crate::shared::uptime;
use pgrx::pg_sys::InvalidOid;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A scheduler does not leave for less time than this: what is due soon is not worth another start.
const NOT_WORTH_IT: Duration = Duration::from_secs(5);

impl Scheduler {
    /// Returns true if the process is to end, because there has been nothing to do for a while or because another
    /// database needs its slot. The launcher then watches the database.
    pub(super) fn leaves(&mut self) -> Result<bool, Error> {
        let now = clock::tick();
        let gives_way = self.entry.gives_way.swap(false, SeqCst);
        let is_at_rest = self.is_at_rest();
        self.entry.is_idle.store(is_at_rest, SeqCst);
        if is_at_rest {
            self.idle_since.get_or_insert(now);
        } else {
            self.idle_since = None;
            return Ok(gives_way && self.gives_its_place());
        }
        let is_needed_elsewhere = gives_way || self.board.is_slot_needed_elsewhere(self.database);
        if self.leaves_at() > now && !is_needed_elsewhere || self.is_due_soon(is_needed_elsewhere) {
            return Ok(false);
        }
        fault::point("leaving_database")?;
        self.hand_over()
    }

    /// Returns when to leave, if nothing happens until then; `NEVER` if there is something to do.
    pub(super) fn leaves_at(&self) -> Tick {
        match (settings::scheduler_idle_timeout(), self.idle_since) {
            (Some(timeout), Some(since)) => after(since, timeout),
            _ => NEVER,
        }
    }

    /// Hands the database over to the launcher, and looks once more. Returns false if there is something to do after
    /// all: then the database is this process's again.
    fn hand_over(&mut self) -> Result<bool, Error> {
        self.entry.left_at.store(clock::now(), SeqCst);
        self.entry.fires_at.store(NEVER, SeqCst);
        self.entry.wanted_role.set(InvalidOid);
        self.entry.attendance.hand_over();
        fault::point("handed_over")?;
        // Everything is searched, by a snapshot that is taken after that.
        (self.search_at, self.may_search_at) = (0, 0);
        if self.stays()? {
            self.pass()?;
            if self.is_at_rest() && !self.entry.attendance.is_wanted() {
                self.entry.next_due.lower(self.tasks.pauses.next_end(clock::now()).min(self.runs_at));
                self.entry.fires_at.store(self.schedules.due_since(), SeqCst);
                self.entry.was_at_rest.store(true, SeqCst);
                uptime::is_due_at(self.database, self.entry.is_due_at());
                fault::point("looked_once_more")?;
                log(Level::Debug, format!("nothing is to be done in database \"{}\"", self.name));
                return Ok(true);
            }
        }
        self.entry.attendance.take_back();
        self.idle_since = None;
        Ok(false)
    }

    /// Ends although there is something to do, as another database has waited for longer. The launcher starts a scheduler
    /// again when it is this database's turn. Returns false if there are workers, which need their scheduler.
    fn gives_its_place(&mut self) -> bool {
        if !self.pool.has_no_worker() || self.fed_by.is_some() || !self.schedules.have_caught_up() {
            return false;
        }
        self.entry.left_at.store(clock::now(), SeqCst);
        self.entry.fires_at.store(self.schedules.due_since(), SeqCst);
        self.entry.attendance.hand_over();
        self.entry.attendance.want();
        true
    }

    /// Returns true if there is nothing that only a scheduler would notice or end.
    fn is_at_rest(&mut self) -> bool {
        let is_settled = self.released && self.charged && !self.has_orphaned_queues && self.retry_writes_at.is_none();
        let has_news = self.entry.has_unlisted_jobs.load(SeqCst)
            || self.entry.has_unnoted_jobs.load(SeqCst)
            || self.entry.has_skipped_rows.load(SeqCst)
            || self.unsure_at != NEVER
            || self.entry.has_new_runs.load(SeqCst);
        is_settled
            && !has_news
            && !self.has_work
            && !self.has_unlisted_jobs
            && self.pool.is_empty()
            && self.fed_by.is_none()
            // A role that is made is no commit of this database's.
            && self.tasks.waiting.is_empty()
            && self.board.cancels().of(self.database).is_empty()
            && self.schedules.are_at_rest()
    }

    /// Returns true if a job, a schedule or a turn of the tables of kongtask.runs is due soon.
    fn is_due_soon(&mut self, is_needed_elsewhere: bool) -> bool {
        let timeout = settings::scheduler_idle_timeout().unwrap_or(NOT_WORTH_IT);
        let soon = if is_needed_elsewhere { Duration::from_secs(1) } else { NOT_WORTH_IT };
        let due = self.entry.next_due.get().min(self.tasks.pauses.next_end(clock::now())).min(self.runs_at);
        due.min(self.schedules.next().unwrap_or(NEVER)) < after(clock::now(), soon.min(timeout))
    }
}
