//! Cancels that no worker carries out: their jobs wait, as they were put back, have failed or lost their worker since they
//! were seen running.

use super::Scheduler;
use crate::error::Error;
use crate::jobs::cancel;
use crate::pg::args::Row;
use crate::pg::catch::{Level, log};
use crate::pg::clock::{self, NEVER, Tick, after};
use crate::pg::text::DbText;
use crate::schema::job_row::attribute;
use crate::signals::cancel_requests;
use std::time::Duration;

/// What became of a job that was to be cancelled.
enum Settled {
    /// It has failed for good, in this moment. Its task.
    Cancelled(DbText),
    /// It had ended before.
    Over,
    /// Another transaction has locked it.
    Locked,
}

impl Scheduler {
    /// Cancels the jobs that no worker has, and forgets the requests for those that have ended.
    pub(super) fn settle_cancels(&mut self, now: Tick) -> Result<(), Error> {
        /// A handler may have caught the interrupt, and gone on.
        const AGAIN: Duration = Duration::from_secs(1);
        /// Nothing tells when a row is unlocked.
        const SOON: Duration = Duration::from_millis(100);
        let cancels = self.board.cancels();
        let jobs = cancels.of(self.database);
        self.cancels_at = NEVER;
        if jobs.is_empty() {
            self.interrupt_at = NEVER;
            return Ok(());
        }
        let is_again = self.interrupt_at <= now;
        if is_again || self.interrupt_at == NEVER {
            self.interrupt_at = after(now, AGAIN);
        }
        // The first time, the session that asked has done so.
        let taken = if is_again { cancel_requests::interrupt(&jobs) } else { cancel_requests::taken(&jobs) };
        for job in jobs {
            if taken.contains(&job) {
                self.cancels_at = self.cancels_at.min(self.interrupt_at);
                continue;
            }
            let Some(said) = cancels.find(self.database, job) else { continue };
            match self.briefly("cancelling_idle", || settle(job, &said))? {
                Some(Settled::Cancelled(task)) => {
                    cancels.settle(self.database, job);
                    log(Level::Log, format!("job {job} ({task}) {said}"));
                }
                Some(Settled::Over) => cancels.settle(self.database, job),
                Some(Settled::Locked) => self.cancels_at = self.cancels_at.min(after(clock::tick(), SOON)),
                // Its next pass is set.
                None => (),
            }
        }
        Ok(())
    }
}

fn settle(job: i64, said: &DbText) -> Result<Settled, Error> {
    if let Some(row) = cancel::cancel_idle(job, said)? {
        return Ok(Settled::Cancelled(Row::new(row).get(attribute::TASK_IDENTIFIER).unwrap_or_default()));
    }
    let is_over = cancel::look(job)?.is_none_or(|found| found.is_over);
    Ok(if is_over { Settled::Over } else { Settled::Locked })
}
