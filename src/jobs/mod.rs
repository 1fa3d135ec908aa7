//! Operations on jobs and queues. Their statements are in `sql/query`. All of them run in the caller's transaction, as
//! the owner of the tables. Apart from the lock on a queue's name (see `queues.rs`), they take row locks only (ROW
//! EXCLUSIVE on the tables).

// Lowest first.
mod table_shape;
mod queue_row;
pub mod search;
pub mod queue_search;
pub mod limited;
pub mod queues;
pub mod triggers;
pub mod runs;
pub mod recover;
pub mod renew;
pub mod new_job;
mod add_plain;
pub mod add;
pub mod add_many;
mod claim_row;
pub mod take;
pub mod get_job;
pub mod complete;
pub mod fail;
pub mod postpone;
pub mod cancel;
pub mod admin;

use crate::pg::args::Text;
use crate::pg::spi::plan;
use crate::schema::{affected, one_row};
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread::LocalKey;

/// Sets a variable of this thread while a function runs, and resets it afterwards even if the function panics.
fn with_set<T: Default, R>(variable: &'static LocalKey<Cell<T>>, value: T, run: impl FnOnce() -> R) -> R {
    struct Reset<T: Default + 'static>(&'static LocalKey<Cell<T>>);
    impl<T: Default> Drop for Reset<T> {
        fn drop(&mut self) {
            self.0.set(T::default());
        }
    }
    variable.set(value);
    let _reset = Reset(variable);
    run()
}

/// Returns a hash of a queue's name, which is not 0.
fn hash(name: Datum) -> u64 {
    let mut hasher = DefaultHasher::new();
    Text::new(name).bytes().hash(&mut hasher);
    hasher.finish().max(1)
}

/// Locks `jobs` in the mode of a write, before a statement locks its indexes. REINDEX locks the table and then its
/// indexes, and would deadlock with a transaction that reads first and writes then.
fn lock_table() -> Result<(), crate::error::Error> {
    Ok(crate::pg::heap::lock(crate::schema::queue()?.table)?)
}
