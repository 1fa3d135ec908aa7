//! The counters of `kongtask.stat_tasks`.

use super::sight::may_read_jobs;
use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::pg::{background, role};
use crate::schema;
use crate::shared::counters::{self, Counts, OTHERS, Outcome, Times};
use crate::shared::{self, State};
use crate::tasks::registry;
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// Returns what is counted of each task in this database.
pub fn live_stats(call: &mut Call) -> Result<Value, Error> {
    let running = running(background::database());
    let may_read_errors = may_read_jobs()?;
    let rows = counters::all_of(background::database()).into_iter().map(|counts| {
        let running = counts.task.as_ref().and_then(|task| running.get(&registry::tag(task))).copied().unwrap_or(0);
        let number = |count: u64| (count as i64).into_datum();
        let time = |time: Option<i64>| time.map(Into::into);
        let Counts { run, wait, .. } = &counts;
        [
            text(counts.task.as_ref().unwrap_or(&OTHERS.into())),
            number(counts.added),
            number(counts.of(Outcome::Succeeded)),
            number(counts.of(Outcome::Failed)),
            number(counts.of(Outcome::Discarded)),
            number(counts.of(Outcome::Cancelled)),
            number(counts.of(Outcome::Snoozed)),
            number(counts.of(Outcome::TimedOut)),
            number(counts.of(Outcome::Crashed)),
            running.into_datum(),
            run.total.into_datum(),
            run.least.into_datum(),
            run.most.into_datum(),
            run.mean.into_datum(),
            run.stddev.into_datum(),
            wait.total.into_datum(),
            wait.most.into_datum(),
            time(counts.last_success_at),
            time(counts.last_failure_at),
            counts.last_error.as_ref().filter(|_| may_read_errors).and_then(text),
            Some(counts.since.into()),
        ]
    });
    call.return_values(rows);
    Ok(None)
}

/// Returns how many jobs run now, by the tag of their task.
fn running(database: Oid) -> HashMap<u32, i64> {
    let mut running: HashMap<u32, i64> = HashMap::new();
    let Some(board) = shared::board() else { return running };
    for (_, worker) in board.workers_of(database) {
        if worker.state() == State::Running
            && let Some(held) = worker.held()
        {
            *running.entry(held.task).or_default() += i64::from(held.count);
        }
    }
    running
}

/// Starts counting anew. Errors: 42501.
pub fn stat_reset(call: &mut Call) -> Result<Value, Error> {
    let task = call.text(0).map(|task| task.read());
    let me = role::current();
    let is_owner = schema::queue()?.owners().iter().any(|&owner| role::has_privileges_of(me, owner));
    let runs_as = match &task {
        Some(task) => registry::tasks()?.get(task).map(|task| task.role),
        None => None,
    };
    if !is_owner && !runs_as.is_some_and(|role| role::has_privileges_of(me, role)) {
        return Err(Error::MayNotReset(task));
    }
    counters::reset(background::database(), task.as_ref());
    Ok(None)
}

/// Returns how many jobs ran, or waited, for how long. Errors: 22023.
pub fn stat_histogram(call: &mut Call) -> Result<Value, Error> {
    let task = call.text(0).map(|task| task.read());
    let what = call.text(1).ok_or(Error::NullArgument("what"))?.read();
    let of: fn(&Counts) -> &Times = match what.as_bytes() {
        b"run" => |counts| &counts.run,
        b"wait" => |counts| &counts.wait,
        _ => return Err(Error::UnknownHistogram(what)),
    };
    let is_it = |counts: &Counts| {
        let name = || counts.task.clone().unwrap_or_else(|| DbText::from(OTHERS));
        task.as_ref().is_none_or(|task| *task == name())
    };
    let mut sums = [0u64; counters::BUCKETS];
    for counts in counters::all_of(background::database()).iter().filter(|counts| is_it(counts)) {
        sums.iter_mut().zip(of(counts).buckets).for_each(|(sum, count)| *sum += count);
    }
    call.return_values(
        (0..counters::BUCKETS).map(|at| [counters::bound(at).into_datum(), (sums[at] as i64).into_datum()]),
    );
    Ok(None)
}
