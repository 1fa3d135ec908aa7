//! A job whose handler may end transactions: a procedure, or the command of a schedule.
//!
//! It is claimed. What the handler did after its last COMMIT is one transaction with the job's completion; what it
//! committed before stays if it then fails. So its effects are there at least once, and it must bear to begin again.

use super::Runner;
use crate::error::Error;
use crate::pg::text::DbText;
use crate::pg::xact;
use crate::schema::job_row::Job;
use crate::settings;
use crate::tasks::handler::Handler;
use crate::tasks::registry::Task;

impl Runner {
    /// Runs a claimed job, and leaves the handler's last transaction open for the job to be completed in.
    pub(super) fn call_procedure(&self, job: &Job, task: &Task, handler: &Handler) -> Result<(), Error> {
        let steps = self.arena.within(|| handler.steps(job, self.role, &task.handler))?;
        self.report(DbText::of_c(steps.statement()), job, &task.identifier);
        xact::begin_steps(settings::synchronous_commit().as_deref())?;
        self.call(task, handler, || steps.run())?;
        if !xact::is_read_committed() {
            // Its snapshot may be older than the latest renewal of the job's lock.
            xact::commit()?;
            xact::begin_for_queue();
        }
        Ok(())
    }
}
