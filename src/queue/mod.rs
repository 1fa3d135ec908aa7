//! The jobs and their queues: the only room that names those tables. One operation a file, its statements in
//! `sql/query/`. Everything here runs within the caller's transaction, as the owner of the tables, and takes no more than
//! row locks (ROW EXCLUSIVE on the tables).

pub mod add;
pub mod admin;
pub mod claim;
pub mod complete;
pub mod due;
pub mod fail;
pub mod job;
pub mod recover;
pub mod renew;
pub mod triggers;

use crate::error::Error;
use crate::pg::role::As;
use crate::pg::spi::{Plan, Session, Value, plan};
use crate::schema;

/// Runs one statement as the owner of the tables; the composite that it returns in the caller's memory context, if any.
fn one_row(plan: &Plan, values: &[Value]) -> Result<Value, Error> {
    let _as_owner = As::role(schema::owner()?);
    let session = Session::open();
    Ok(session.execute(plan, values)?.carry())
}

/// Runs one statement as the owner of the tables; how many rows it affected.
fn affected(plan: &Plan, values: &[Value]) -> Result<usize, Error> {
    let _as_owner = As::role(schema::owner()?);
    let session = Session::open();
    Ok(session.execute(plan, values)?.count())
}
