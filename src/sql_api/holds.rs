//! Functions that show and end what keeps jobs from running.

use crate::error::Error;
use crate::holds;
use crate::holds::restore;
use crate::pg::background;
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::text::{self, text};
use crate::shared;
use pgrx::IntoDatum;
use pgrx::pg_sys::InvalidOid;

/// Returns why no job runs, for each database of this server.
pub fn live_holds(call: &mut Call) -> Result<Value, Error> {
    let databases = shared::board().map(|board| board.databases()).unwrap_or_default();
    let rows = databases.iter().filter(|entry| entry.oid.get() != InvalidOid).flat_map(|entry| {
        let database = background::database_name(entry.oid.get()).and_then(text::name);
        let row =
            move |hold: holds::Hold| [database, text(hold.reason), hold.pid.into_datum(), hold.since.map(Into::into)];
        holds::of(entry).into_iter().map(row)
    });
    call.return_values(rows);
    Ok(None)
}

/// Has jobs run in this database although a dump is being restored. Returns true if one was.
pub fn release_holds(_: &mut Call) -> Result<Value, Error> {
    Ok(Some(restore::release_all().into()))
}
