//! Where our objects are: the one place in the code that knows the name of the queue's schema.

use crate::error::Error;
use crate::pg::catalog;
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
