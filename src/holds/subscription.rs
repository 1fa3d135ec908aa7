//! A queue that a logical replica has from its publisher: the jobs are the publisher's, and run there. So nothing runs in a
//! database for as long as an enabled subscription feeds its `jobs`.
//!
//! Workers look in the transaction in which they have searched the table, and in the one in which they call a handler. What they
//! see of what was replicated was committed after the subscription was made, and every process is told of that before.

use crate::error::Error;
use crate::pg::background;
use crate::pg::invalidation::{self, Watch};
use crate::pg::spi::{Plan, plan};
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::schema;
use pgrx::IntoDatum;
use std::cell::RefCell;

/// The name of an enabled subscription that feeds `jobs`, if there is one. Within a transaction: what its snapshot shows is fed
/// by no other. Costs next to nothing while no subscription changes.
pub fn feeds_jobs() -> Result<Option<DbText>, Error> {
    static WATCH: Watch = Watch::new().and_subscriptions();
    static FEEDS: Plan = plan!("subscription", OIDOID, OIDOID);
    thread_local! {
        static FEEDING: RefCell<Option<DbText>> = const { RefCell::new(None) };
    }
    invalidation::accept();
    let table = schema::queue()?.table;
    if WATCH.is_stale() || !WATCH.is_of(table) {
        WATCH.renew();
        WATCH.relation(table);
        let _snapshot = LatestSnapshot::take();
        let session = schema::session().inspect_err(|_| WATCH.spoil())?;
        let values = [background::database().into_datum(), table.into_datum()];
        let rows = session.read(&FEEDS, &values).inspect_err(|_| WATCH.spoil())?;
        FEEDING.set(if rows.count() == 0 { None } else { rows.get(0, 0) });
    }
    Ok(FEEDING.with_borrow(Clone::clone))
}
