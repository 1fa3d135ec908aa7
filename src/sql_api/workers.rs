//! Functions that show what runs.

use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::text::{self, DbText, text};
use crate::pg::{background, clock, role};
use crate::shared::{self, State};
use crate::tasks::handler;
use pgrx::IntoDatum;
use std::sync::atomic::Ordering::SeqCst;

/// Returns the row of the job whose handler calls this; NULL outside a handler.
pub fn current_job(_: &mut Call) -> Result<Value, Error> {
    Ok(handler::current_row())
}

/// Returns the live workers of the whole server.
pub fn live_workers(call: &mut Call) -> Result<Value, Error> {
    let workers = shared::board().map(|board| board.workers()).unwrap_or_default();
    let now = clock::tick();
    let rows = workers.iter().filter_map(|worker| {
        let state = match worker.state() {
            State::Free | State::Gone => return None,
            _ if worker.is_unresponsive(now) => "unresponsive",
            _ if worker.is_to_end() => "stopping",
            State::Starting => "starting",
            State::Looking | State::Idle => "idle",
            State::Running => "running",
        };
        // Shown to those to whom pg_stat_activity shows the role's queries: the role, its members, and members of
        // pg_read_all_stats.
        let running = worker.running().filter(|_| role::may_see_queries_of(worker.role.get()));
        let progress = running.as_ref().and_then(|running| running.progress.as_ref());
        Some([
            Some(worker.pid.load(SeqCst)).filter(|&pid| pid != 0).into_datum(),
            background::database_name(worker.database.get()).and_then(text::name),
            role::name(worker.role.get()).and_then(text::name),
            text(state),
            running.as_ref().map(|running| running.job).into_datum(),
            running.as_ref().and_then(|running| text(&DbText::of(&running.task, worker.encoding()))),
            Some(worker.since.load(SeqCst).into()),
            worker.id().and_then(|id| text(&id)),
            progress.map(|progress| progress.done).into_datum(),
            progress.and_then(|progress| progress.total).into_datum(),
            progress
                .and_then(|progress| progress.message.as_ref())
                .and_then(|message| text(&DbText::of(message.as_bytes(), worker.encoding()))),
        ])
    });
    call.return_values(rows);
    Ok(None)
}
