//! Functions that show jobs and what keeps them from running.

use crate::error::{Error, headline};
use crate::pg::args::{Row, Text, interval};
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::text::quoted;
use crate::pg::text::text;
use crate::pg::{background, clock, procedure, role, version, xact};
use crate::schema;
use crate::schema::job_row::{attribute, timestamp};
use crate::settings;
use crate::shared::{self, State as WorkerState};
use crate::sight::overview;
use crate::sight::states::{Outlook, Seen, State};
use crate::tasks::handler::{self, Handler};
use pgrx::IntoDatum;
use pgrx::pg_sys::TransactionId;

/// Returns the state of a job and why it does not run, from its row and the row's xmax.
pub fn job_state(call: &mut Call) -> Result<Value, Error> {
    let (Some(row), deleter) = (call.value(0), call.oid(1)) else { return Ok(None) };
    let outlook = call.once_in_a_statement(Outlook::new)?;
    let row = Row::new(row);
    let words = |attribute| row.value(attribute).map(Text::new);
    let number = |attribute| row.value(attribute).map_or(0, |datum| datum.value() as i64);
    let (task, queue_name) = (words(attribute::TASK_IDENTIFIER), words(attribute::QUEUE_NAME));
    let locked_by = words(attribute::LOCKED_BY);
    let job = Seen {
        id: number(attribute::ID),
        task: task.as_ref().map_or(&[], |task| task.bytes()),
        queue_name: queue_name.as_ref().map(Text::bytes),
        run_at: number(attribute::RUN_AT),
        attempts: number(attribute::ATTEMPTS) as i32,
        max_attempts: number(attribute::MAX_ATTEMPTS) as i32,
        locked_at: timestamp(row.value(attribute::LOCKED_AT)),
        locked_by: locked_by.as_ref().map(Text::bytes),
        flags: row.value(attribute::FLAGS),
        payload: row.value(attribute::PAYLOAD),
        queue: row.value(attribute::QUEUE_NAME),
        deleter: TransactionId::from(deleter.map_or(0, |xid| xid.to_u32())),
    };
    let state = outlook.state(&job)?;
    let why = outlook.why(&job, state)?;
    call.return_values(std::iter::once([text(state.name()), why.as_ref().and_then(text)]));
    Ok(None)
}

/// Returns the one row of kongtask.overview. Errors: 42501, for a role that may not read all jobs.
pub fn live_overview(call: &mut Call) -> Result<Value, Error> {
    if !may_read_jobs()? {
        return Err(Error::MayNotReadJobs);
    }
    let counted = overview::count()?;
    let database = background::database();
    let board = shared::board();
    let workers: Vec<WorkerState> =
        board.map(|board| board.workers_of(database).map(|(_, worker)| worker.state()).collect()).unwrap_or_default();
    let count = |is_it: fn(&WorkerState) -> bool| workers.iter().filter(|state| is_it(state)).count() as i64;
    let rate = board.and_then(|board| board.database(database)).map_or(0.0, |entry| entry.finished.per_second());
    let age = |since: i64| interval((clock::now() - since).max(0) / 1000);
    call.return_values(std::iter::once([
        counted.of(State::Ready).into_datum(),
        counted.of(State::Waiting).into_datum(),
        counted.of(State::Running).into_datum(),
        counted.of(State::Scheduled).into_datum(),
        counted.of(State::Retrying).into_datum(),
        counted.of(State::Failed).into_datum(),
        counted.ready_since.map(age),
        rate.into_datum(),
        count(|state| *state == WorkerState::Running).into_datum(),
        count(|state| *state != WorkerState::Gone).into_datum(),
    ]));
    Ok(None)
}

/// Returns true if the current role may read all jobs.
pub(super) fn may_read_jobs() -> Result<bool, Error> {
    let queue = schema::queue()?;
    let (may_read, is_limited) = role::may_read(queue.table);
    // As the policy of the table says.
    let get_job = "get_job(text, text[], interval, text[], timestamp with time zone)";
    let is_worker =
        || Ok::<_, Error>(version::may_execute(procedure::find(&get_job.into(), &queue.path)?, role::current()));
    Ok(may_read && (!is_limited || is_worker()?))
}

/// Returns what kongtask.doctor wants to know of the server and this database.
pub fn server_state(call: &mut Call) -> Result<Value, Error> {
    let database = background::database();
    let entry = shared::board().and_then(|board| board.database(database));
    let is_served = background::database_name(database).is_some_and(|name| settings::serves(&name));
    let expiry = i64::try_from(settings::job_expiry().as_millis()).unwrap_or(i64::MAX);
    let problem = settings::forbidden_flags_function().and_then(|name| {
        let check = || handler::check_for_texts(&name).map_err(|error| headline(&error.read()));
        xact::in_subtransaction(check).err()
    });
    call.return_values(std::iter::once([
        Some(shared::board().is_some().into()),
        Some(is_served.into()),
        (settings::workers() as i32).into_datum(),
        Some(entry.is_some_and(|entry| entry.is_starving()).into()),
        Some(version::WORKER_NEEDS_LOGIN.into()),
        Some(interval(expiry)),
        problem.as_ref().and_then(text),
    ]));
    Ok(None)
}

/// Returns why a handler cannot be called as a role, and the statement that mends it, if there is one.
pub fn handler_problem(call: &mut Call) -> Result<Value, Error> {
    let (Some(name), Some(role)) = (call.text(0), call.oid(1)) else { return Ok(None) };
    let queue = schema::queue()?;
    let checked = xact::in_subtransaction(|| {
        let found = procedure::find(&name.read(), &queue.path).map_err(Error::from);
        found.and_then(|function| Handler::check(function, role)).map(|_| ()).map_err(|error| {
            let mend = match &error {
                Error::HandlerForbidden { handler, role } => {
                    Some(format!("grant execute on function {handler} to {}", quoted(role)))
                }
                _ => None,
            };
            (error.read().message, mend)
        })
    });
    let (problem, mend) = match checked {
        Ok(()) => (None, None),
        Err((problem, mend)) => (text(&problem), mend.as_ref().and_then(text)),
    };
    call.return_values(std::iter::once([problem, mend]));
    Ok(None)
}
