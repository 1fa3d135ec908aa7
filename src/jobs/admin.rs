//! Operations of administrators. They skip jobs that are locked or that another transaction is changing, so that they
//! never wait for a running handler.

use super::{affected, one_row, plan};
use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::texts;
use crate::schema;
use crate::shared;

static COMPLETE_MANY: Plan = plan!("complete_many", INT8ARRAYOID, TEXTARRAYOID);
static FAIL_MANY: Plan = plan!("fail_many", INT8ARRAYOID, TEXTARRAYOID, TEXTOID);
static RESCHEDULE_MANY: Plan =
    plan!("reschedule_many", INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID, INT4OID, INT4OID, INT4OID);

fn many(call: &mut Call, plan: &Plan, values: &[Value]) -> Result<(), Error> {
    let session = schema::session()?;
    let rows = session.execute(plan, values)?;
    call.return_rows(&[rows]);
    Ok(())
}

/// Returns the ids of the live workers, however old their locks are by the clock.
fn living() -> Value {
    texts(&shared::living_workers())
}

/// Deletes jobs and returns them.
pub fn complete_many(call: &mut Call, ids: Value) -> Result<(), Error> {
    many(call, &COMPLETE_MANY, &[ids, living()])
}

/// Fails jobs for good and returns them.
pub fn fail_many(call: &mut Call, ids: Value, message: Value) -> Result<(), Error> {
    many(call, &FAIL_MANY, &[ids, living(), message])
}

/// Changes run_at, priority, attempts and max_attempts where they are given, and returns the jobs.
pub fn reschedule_many(call: &mut Call, ids: Value, changes: [Value; 4]) -> Result<(), Error> {
    let [run_at, priority, attempts, max_attempts] = changes;
    many(call, &RESCHEDULE_MANY, &[ids, living(), run_at, priority, attempts, max_attempts])
}

/// Gives jobs that have failed for good further attempts: of a task, with these ids, so many at most, each NULL for all.
/// Returns how many there were.
pub fn redrive(task: Value, ids: Value, most: Value, run_at: Value) -> Result<usize, Error> {
    static REDRIVE: Plan = plan!("redrive", TEXTOID, INT8ARRAYOID, INT8OID, TIMESTAMPTZOID);
    affected(&REDRIVE, &[task, ids, most, run_at])
}

/// Deletes the job that has a key. If it is running, takes its key and further attempts away instead. Returns the row.
pub fn remove(job_key: Value) -> Result<Value, Error> {
    static REMOVE: Plan = plan!("remove", TEXTOID);
    static SUPERSEDE: Plan = plan!("supersede", TEXTOID);
    match one_row(&REMOVE, &[job_key])? {
        None => one_row(&SUPERSEDE, &[job_key]),
        row => Ok(row),
    }
}
