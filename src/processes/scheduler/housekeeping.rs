//! The scheduler's housekeeping: it releases the jobs of workers that have ended, charges crashes, renews locks, and
//! reports roles that do not exist.

use super::Scheduler;
use crate::error::Error;
use crate::jobs::recover::Charged;
use crate::jobs::{queues, recover, renew, runs};
use crate::pg::catch::{Level, log, log_with};
use crate::pg::clock::{self, Tick, after};
use crate::pg::text::DbText;
use crate::schedules::table;
use crate::settings;
use crate::shared::counters::{self, Account, Outcome};
use crate::shared::{self, State, crash_records};
use crate::tasks::registry;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

impl Scheduler {
    /// Releases the jobs of kongtask workers that do not live, and charges crashes. Runs once after a crash of the
    /// server, a promotion or a restore, and again whenever a search has found such jobs or orphaned queue locks.
    pub(super) fn recover(&mut self) -> Result<(), Error> {
        if self.fed_by.is_some() {
            return Ok(());
        }
        if !self.released {
            let living: Vec<DbText> =
                self.board.workers_of(self.database).filter_map(|(_, worker)| worker.id()).collect();
            let released = self.briefly("recovering", || recover::release_all_but(shared::ID_PREFIX, &living))?;
            self.released = released.is_some();
            if let Some(released @ 1..) = released {
                log(Level::Log, format!("kongtask released {released} jobs of workers that have ended"));
            }
        }
        if !self.charged {
            self.charged = self.settle_charges()?;
        }
        if self.has_orphaned_queues
            && let Some(released) = self.briefly("unlocking", queues::release_orphaned)?
        {
            self.has_orphaned_queues = false;
            if released > 0 {
                log(
                    Level::Log,
                    format!("kongtask released {released} queues that were locked for jobs that no longer exist"),
                );
            }
        }
        Ok(())
    }

    /// Records a failed attempt for each job that crashed its worker. Returns true once all are recorded.
    fn settle_charges(&mut self) -> Result<bool, Error> {
        let mut was_charged = false;
        let settled = crash_records::settle(self.database, |charge| {
            let Some(job) = charge.job else {
                crash_records::suspect(self.database, charge.task);
                log_with(
                    Level::Warning,
                    "kongtask worker crashed while many jobs shared one call of their handler",
                    Some(format!(
                        "Jobs of this task run one at a time for {:?}, to find the one that crashes the server.",
                        crash_records::SUSPICION
                    )),
                    None,
                );
                return Ok(true);
            };
            let Some(charged) = self.briefly("charging", || recover::charge(job, charge.crashed))? else {
                return Ok(false);
            };
            if let Some(charged) = charged {
                let what = if charged.for_good { "failed for good" } else { "failed" };
                self.count_crash(&charged);
                if charged.for_good {
                    self.board.waits().wake(self.database, job);
                }
                log(Level::Warning, format!("job {job} ({}) {what}: {}", charged.task, charged.error));
            }
            was_charged = true;
            Ok::<_, Error>(true)
        });
        if was_charged {
            // Only now, as workers skip a job until its charge is settled.
            self.have_all_searched();
        }
        settled
    }

    fn count_crash(&self, charged: &Charged) {
        let counters = counters::of(self.database, registry::tag(&charged.task), &charged.task);
        let Some(counters) = counters else { return };
        counters.count(Outcome::Crashed, 1);
        if charged.is_attempt {
            counters.failed(&Account { jobs: 1, ..Account::default() }, &charged.error);
            counters.count(Outcome::Discarded, u64::from(charged.for_good));
        }
    }

    /// Releases the jobs of workers that have ended, so that they can run again at once.
    pub(super) fn release_jobs_of_ended_workers(&mut self, now: Tick) -> Result<(), Error> {
        let board = self.board;
        for (slot, worker) in board.workers_of(self.database) {
            if worker.state() != State::Gone {
                continue;
            }
            if let (Some(held), Some(id)) = (worker.held(), worker.id()) {
                let release = || recover::release_all_of(&id, held.ids);
                let Some(released) = self.briefly("releasing", release)? else {
                    continue;
                };
                match released {
                    0 => (),
                    1 => log(Level::Log, format!("job {} was released: its worker has ended", held.ids.0)),
                    _ => log(Level::Log, format!("{released} jobs were released: their worker has ended")),
                }
            }
            if worker.limits.has_lost_some() {
                self.have_all_searched();
            }
            self.pool.gone(slot, now);
        }
        Ok(())
    }

    /// Renews the locks of jobs that have run, or gone without renewal, for a third of kongtask.job_expiry. A lock is
    /// then never older than two thirds of it.
    pub(super) fn renew(&mut self, now: Tick) -> Result<(), Error> {
        self.renew_at = after(now, renewal_interval());
        let board = self.board;
        for (_, worker) in board.workers_of(self.database) {
            if worker.state() == State::Running
                && after(worker.renewed.load(SeqCst), renewal_interval()) <= now
                && let (Some(held), Some(id)) = (worker.held(), worker.id())
            {
                // Only now: if this scheduler fails here, the next one renews the lock.
                if self.briefly("renewing", || renew::renew(&id, held.ids))?.is_some() {
                    worker.renewed.store(now, SeqCst);
                }
            }
        }
        Ok(())
    }

    /// Removes the pauses that have ended, so that the table has only those that last.
    pub(super) fn remove_ended_pauses(&mut self) -> Result<(), Error> {
        if self.tasks.pauses.has_ended(clock::now()) {
            self.briefly("unpausing", registry::remove_ended_pauses)?;
        }
        Ok(())
    }

    /// Has the tables of kongtask.runs take turns, and empties those whose rows are old enough.
    pub(super) fn turn_run_tables(&mut self) -> Result<(), Error> {
        const SOON: Duration = Duration::from_millis(500);
        if !self.entry.has_new_runs.swap(false, SeqCst) && self.runs_at > clock::now() {
            return Ok(());
        }
        let keep_for = self.tasks.keep_for();
        match self.briefly("turning", || runs::turn(keep_for))? {
            Some(next) => self.runs_at = next,
            None => self.runs_at = after(clock::now(), SOON),
        }
        Ok(())
    }

    /// Logs which tasks wait for a role that does not exist, and updates the names of roles that were renamed.
    pub(super) fn report_missing_roles(&mut self, now: Tick) -> Result<(), Error> {
        const MOST: usize = 10;
        let tasks = self.tasks.clone();
        if !tasks.waiting.is_empty() && self.missing_roles.is_due(now, Duration::ZERO) {
            let named = tasks.waiting.iter().take(MOST).map(|(task, role)| format!("\"{task}\" (role {role})"));
            log_with(
                Level::Warning,
                format!("jobs of {} tasks wait because the roles of these tasks do not exist", tasks.waiting.len()),
                Some(format!("Tasks: {}.", named.collect::<Vec<_>>().join(", "))),
                Some(
                    "Create the role, register the task as another role with kongtask.register_task, or remove it with kongtask.unregister_task."
                        .into(),
                ),
            );
        }
        if tasks.has_former_names {
            self.briefly("renaming", registry::rename_roles)?;
        }
        if self.schedules.has_former_names() {
            self.briefly("renaming", table::rename_roles)?;
        }
        Ok(())
    }
}

/// A lock is renewed well before an external worker may take it to be dead: after 4 hours, unless get_job is told
/// otherwise.
fn renewal_interval() -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    (settings::job_expiry() / 3).min(LONGEST)
}
