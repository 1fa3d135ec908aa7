//! Where our objects are, and running statements as their owner: the one place in the code that knows the name of the
//! queue's schema.

use crate::error::Error;
use crate::pg::catalog;
use crate::pg::role::As;
use crate::pg::spi::{Plan, Session, Value};
use pgrx::pg_sys::Oid;

/// The schema of the compatible tables and functions.
pub const QUEUE: &str = "graphile_worker";

/// The role that the queue's statements run as: the owner of `jobs`.
pub fn owner() -> Result<Oid, Error> {
    catalog::relation(QUEUE, "jobs").and_then(catalog::relation_owner).ok_or(Error::NotInstalled)
}

/// The OID of the extension in this database, which changes when it is dropped and created again.
pub fn extension() -> Option<Oid> {
    catalog::extension("kongtask")
}

/// Runs one statement as the owner of the tables; the composite that it returns in the caller's memory context, if any.
pub fn one_row(plan: &Plan, values: &[Value]) -> Result<Value, Error> {
    let _as_owner = As::role(owner()?);
    let session = Session::open();
    Ok(session.execute(plan, values)?.carry())
}

/// Runs one statement as the owner of the tables; how many rows it affected.
pub fn affected(plan: &Plan, values: &[Value]) -> Result<usize, Error> {
    let _as_owner = As::role(owner()?);
    let session = Session::open();
    Ok(session.execute(plan, values)?.count())
}
