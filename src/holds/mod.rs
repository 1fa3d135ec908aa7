//! Why no job runs in a database for a while: a dump is being restored there, a subscription feeds its queue, or a
//! statement needs it empty.

// Lowest first.
pub mod subscription;
pub mod restore;

use crate::pg::catch::{Level, log_with};
use crate::pg::clock::{self, Timestamp};
use crate::pg::text::DbText;
use crate::shared::{DatabaseEntry, Restoring};
use std::sync::atomic::Ordering::SeqCst;

/// A reason why no job runs in a database.
pub struct Hold {
    pub reason: &'static str,
    /// The session that caused it, if one did.
    pub pid: Option<i32>,
    pub since: Option<Timestamp>,
}

const LOADING: &str = "a session is loading a dump";
const WAITING: &str = "a dump has been loaded, and its indexes and constraints are still to come";

const FED: &str = "an enabled subscription feeds jobs";

/// Returns all reasons why no job runs in a database.
pub fn of(entry: &DatabaseEntry) -> Vec<Hold> {
    let mut holds: Vec<Hold> = entry.restores.all().into_iter().map(of_restore).collect();
    let fed_since = entry.fed_since.load(SeqCst);
    if fed_since != 0 {
        holds.push(Hold { reason: FED, pid: None, since: Some(fed_since) });
    }
    if entry.holds.load(SeqCst) > 0 {
        let reason = "a statement is about to drop the extension, or needs the database empty";
        holds.push(Hold { reason, pid: None, since: None });
    }
    holds
}

fn of_restore(restoring: Restoring) -> Hold {
    match restoring {
        Restoring::Loading { pid, since } => Hold { reason: LOADING, pid: Some(pid), since: Some(since) },
        Restoring::Waiting { since, .. } => Hold { reason: WAITING, pid: None, since: Some(since) },
    }
}

/// Logs that a subscription feeds a database's queue.
pub fn remind_of_subscription(database: &DbText, subscription: &DbText) {
    log_with(
        Level::Log,
        format!("no jobs run in database \"{database}\": subscription \"{subscription}\" feeds jobs"),
        Some("The jobs run on the publisher.".into()),
        Some("To run them here, disable the subscription (ALTER SUBSCRIPTION ... DISABLE) or drop it.".into()),
    );
}

/// Logs why no job runs in a database, and what to do about it.
pub fn remind(database: &DbText, restoring: Restoring) {
    let release = format!("SELECT kongtask.release_holds() in database \"{database}\"");
    let (why, hint) = match restoring {
        Restoring::Loading { pid, .. } => (
            format!("the session with pid {pid} has loaded a dump and has not ended"),
            format!("If the dump is complete, run SELECT pg_terminate_backend({pid}), or {release}."),
        ),
        Restoring::Waiting { until, .. } => (
            WAITING.into(),
            format!(
                "Jobs run when a session has made them and has ended, or in {} seconds. To run jobs at once, run {release}.",
                until.saturating_sub(clock::tick()) / 1_000_000
            ),
        ),
    };
    log_with(Level::Log, format!("no jobs run in database \"{database}\": {why}"), None, Some(hint));
}
