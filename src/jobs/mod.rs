//! The jobs and their queues: the only room that names those tables. One operation a file, its statements in
//! `sql/query/`. Everything here runs within the caller's transaction, as the owner of the tables, and takes no more than
//! row locks (ROW EXCLUSIVE on the tables).

// Lowest first.
mod table_shape;
pub mod search;
pub mod queues;
pub mod triggers;
pub mod recover;
pub mod renew;
pub mod new_job;
mod add_plain;
pub mod add;
pub mod add_many;
pub mod take;
pub mod claim;
pub mod complete;
pub mod fail;
pub mod admin;

use crate::pg::spi::plan;
use crate::schema::{affected, one_row};

/// Locks `jobs` as what writes to it does, before anything locks its indexes: otherwise REINDEX, which locks the table and
/// then its indexes, and whoever reads first and writes then, could wait for each other.
fn lock_table() -> Result<(), crate::error::Error> {
    Ok(crate::pg::heap::lock(crate::schema::queue()?.table)?)
}
