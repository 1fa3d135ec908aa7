//! Keeps jobs from running in a logical replica. The jobs are the publisher's and run there, so none runs in a database
//! while an enabled subscription feeds its table `jobs`.
//!
//! A worker checks this in the transaction that searches the table, and in the one that calls the handler. A row that
//! came by replication was committed after its subscription was made, and every process learns of a subscription before
//! that.

use crate::error::Error;
use crate::pg::invalidation::{self, Watch};
use crate::pg::spi::{Plan, plan};
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::pg::{background, catalog, heap};
use crate::schema;
use pgrx::IntoDatum;
use std::cell::RefCell;

/// Returns the name of an enabled subscription that feeds `jobs`, if there is one. To be called within a transaction:
/// no other subscription feeds rows that its snapshot shows. Costs next to nothing while no subscription changes.
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
        let subscriptions = catalog::relation("pg_catalog", "pg_subscription");
        if !subscriptions.map_or(Ok(true), heap::may_have_rows).inspect_err(|_| WATCH.spoil())? {
            FEEDING.set(None);
            return Ok(None);
        }
        let _snapshot = LatestSnapshot::take();
        let session = schema::session().inspect_err(|_| WATCH.spoil())?;
        let values = [background::database().into_datum(), table.into_datum()];
        let rows = session.read(&FEEDS, &values).inspect_err(|_| WATCH.spoil())?;
        FEEDING.set(if rows.count() == 0 { None } else { rows.get(0, 0) });
    }
    Ok(FEEDING.with_borrow(Clone::clone))
}
