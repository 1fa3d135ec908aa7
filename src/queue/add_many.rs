//! Adding many jobs at once.

use super::{affected, plan};
use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::spi::{Plan, Value};
use crate::schema;

/// What is to be checked of the jobs, as of [`super::add`].
struct Longest {
    count: usize,
    identifier: i32,
    queue_name: i32,
    job_key: i32,
    fewest_attempts: i32,
}

fn look_at(specs: Value) -> Result<Longest, Error> {
    static CHECK: Plan = plan!(["add_many_check", "specs"], RECORDARRAYOID);
    let session = schema::session()?;
    let rows = session.read(&CHECK, &[specs])?;
    Ok(Longest {
        count: rows.get::<i64>(0, 0).and_then(|count| usize::try_from(count).ok()).unwrap_or(0),
        identifier: rows.get(0, 1).unwrap_or(0),
        queue_name: rows.get(0, 2).unwrap_or(0),
        job_key: rows.get(0, 3).unwrap_or(0),
        fewest_attempts: rows.get(0, 4).unwrap_or(1),
    })
}

/// Adds jobs, or changes those that have their keys, and returns them. `specs` is a `job_spec[]`. A job whose key belongs to
/// one that is running, or has failed for good, is added, and takes the key. Waits as [`super::add::add`] does.
pub fn add_many(call: &mut Call, specs: Value, preserve_run_at: bool) -> Result<(), Error> {
    static ADD: Plan = plan!(["add_many", "specs", "add_many_replace"], RECORDARRAYOID, BOOLOID, BOOLOID);
    static SUPERSEDE: Plan = plan!(["add_many_supersede", "specs", "add_many_supersede_end"], RECORDARRAYOID);
    let longest = look_at(specs)?;
    super::add::check(longest.identifier, longest.queue_name, longest.job_key, longest.fewest_attempts)?;
    let session = schema::session()?;
    let preserve_run_at = Some(preserve_run_at.into());
    let mut sets = vec![session.execute(&ADD, &[specs, preserve_run_at, Some(true.into())])?];
    while sets.iter().map(|rows| rows.count()).sum::<usize>() < longest.count {
        // Some keys are those of jobs that could not be changed: these lose them.
        affected(&SUPERSEDE, &[specs])?;
        sets.push(session.execute(&ADD, &[specs, preserve_run_at, Some(false.into())])?);
    }
    call.return_rows(&sets);
    Ok(())
}
