//! What the scheduler clears up: the locks of workers that ended, the crash records, locks that are to be renewed, and roles that
//! are missing.

use super::Scheduler;
use crate::error::Error;
use crate::jobs::{queues, recover, renew};
use crate::pg::catch::{Level, log, log_with};
use crate::pg::clock::{Tick, after};
use crate::pg::text::DbText;
use crate::settings;
use crate::shared::{self, State, crash_records};
use crate::tasks::registry;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

impl Scheduler {
    /// After a crash of the server, a promotion or a restore, once each: releases what bears our mark and no living worker
    /// holds, and charges who crashed. And whenever a search has found such locks, or queues that are locked for nothing.
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
            log(
                Level::Log,
                format!("kongtask released {released} queues that were locked for jobs that no longer exist"),
            );
        }
        Ok(())
    }

    /// Jobs whose workers crashed have failed; whether that is said of all of them.
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
                log(Level::Warning, format!("job {job} ({}) {what}: {}", charged.task, charged.error));
            }
            was_charged = true;
            Ok::<_, Error>(true)
        });
        if was_charged {
            // Not before: workers have passed the job over as long as it had its charge.
            self.have_all_searched();
        }
        settled
    }

    /// A worker that ended while it ran a job: the job can run again at once.
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
            self.pool.gone(slot, now);
        }
        Ok(())
    }

    /// Renews the locks of jobs that have run, or gone without renewal, for long: at two thirds of kongtask.job_expiry at
    /// the latest.
    pub(super) fn renew(&mut self, now: Tick) -> Result<(), Error> {
        self.renew_at = after(now, renewal_interval());
        let board = self.board;
        for (_, worker) in board.workers_of(self.database) {
            if worker.state() == State::Running
                && after(worker.renewed.load(SeqCst), renewal_interval()) <= now
                && let (Some(held), Some(id)) = (worker.held(), worker.id())
            {
                // Not before: a scheduler that fails here leaves it to the next.
                if self.briefly("renewing", || renew::renew(&id, held.ids))?.is_some() {
                    worker.renewed.store(now, SeqCst);
                }
            }
        }
        Ok(())
    }

    /// Says which tasks wait for a role that is not there, and has the table call those by their new names that were renamed.
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
        Ok(())
    }
}

/// A lock is renewed well before anyone may take it to be dead: external workers take 4 hours unless told otherwise.
fn renewal_interval() -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    (settings::job_expiry() / 3).min(LONGEST)
}
