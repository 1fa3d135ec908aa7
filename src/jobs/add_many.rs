//! Adding many jobs at once.

use super::{affected, new_job, plan};
use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, elements, texts};
use crate::schema;
use crate::schema::job_row::attribute;
use std::collections::HashSet;

/// Checks the jobs as [`new_job::check`] checks one. Returns the keys among them.
fn check(specs: Value) -> Result<Vec<DbText>, Error> {
    static CHECK: Plan = plan!("add_many_check", RECORDARRAYOID);
    let session = schema::session()?;
    let rows = session.read(&CHECK, &[specs])?;
    let longest = |column| rows.get(0, column).unwrap_or(0);
    new_job::check(longest(0), longest(1), longest(2), rows.get(0, 3).unwrap_or(1))?;
    Ok(elements(rows.value(0, 4)))
}

/// Adds jobs, or changes those that have their keys, and returns them. `specs` is a `job_spec[]`. A job whose key
/// belongs to one that is running, or has failed for good, is added and takes over the key. Waits as
/// [`super::add::add`] does.
pub fn add_many(call: &mut Call, specs: Value, preserve_run_at: bool) -> Result<(), Error> {
    static ADD: Plan = plan!("add_many", RECORDARRAYOID, BOOLOID, TEXTARRAYOID);
    static SUPERSEDE: Plan = plan!("add_many_supersede", RECORDARRAYOID);
    /// Another transaction can take a job just after this one has freed its key. If that is not the reason, a user's
    /// trigger keeps jobs out.
    const MOST_IN_VAIN: usize = 10;
    let mut missing = check(specs)?;
    let session = schema::session()?;
    let preserve_run_at = Some(preserve_run_at.into());
    let mut sets = vec![session.execute(&ADD, &[specs, preserve_run_at, None])?];
    let mut in_vain = 0;
    loop {
        if let Some(rows) = sets.last() {
            let column = usize::from(attribute::KEY.unsigned_abs()) - 1;
            let added: HashSet<DbText> = (0..rows.count()).filter_map(|row| rows.get(row, column)).collect();
            missing.retain(|key| !added.contains(key));
        }
        if missing.is_empty() || in_vain == MOST_IN_VAIN {
            break;
        }
        // These keys belong to jobs that could not be changed: those lose their keys.
        let superseded = affected(&SUPERSEDE, &[specs])?;
        sets.push(session.execute(&ADD, &[specs, preserve_run_at, texts(&missing)])?);
        let added = sets.last().map_or(0, |rows| rows.count());
        in_vain = if superseded + added == 0 { in_vain + 1 } else { 0 };
    }
    call.return_rows(&sets);
    Ok(())
}
