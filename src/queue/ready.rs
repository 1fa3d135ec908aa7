//! What can run. These only read: they assign no transaction id and write no WAL.

use super::plan;
use crate::error::Error;
use crate::pg::clock::{self, Timestamp, before};
use crate::pg::spi::{Plan, Value, texts, texts_or_null};
use crate::pg::xact::LatestSnapshot;
use crate::queue::job::timestamp;
use crate::ready::{Hint, Kind, Place};
use crate::registry::{self, Task, Tasks};
use crate::{guc, schema, subscription};
use pgrx::IntoDatum;
use std::rc::Rc;

/// How a job is to be taken; `is_plain`: it has no key and was never tried.
pub fn kind(is_queued: bool, is_plain: bool) -> Kind {
    match (is_queued, is_plain) {
        (true, _) => Kind::Queued,
        (false, true) => Kind::Plain,
        (false, false) => Kind::Claimed,
    }
}

/// What to look for.
pub struct Search<'a> {
    /// Identifiers.
    pub tasks: &'a [String],
    pub forbidden_flags: &'a [String],
    pub from: Place,
    /// In priorities behind that of `from`, only jobs that are due since then.
    pub since: Timestamp,
    pub most: usize,
}

/// What was found.
pub struct Found {
    /// In the order in which they run.
    pub hints: Vec<Hint>,
    /// Everything before this place was looked at.
    pub to: Place,
}

/// The first jobs that can run. Within a transaction, by a snapshot taken now.
///
/// One statement for each priority: so that each begins where its jobs do, and ends at those that are not due yet.
pub fn search(search: &Search) -> Result<Found, Error> {
    static SCAN: Plan = plan!(
        "scan",
        INT4OID,
        TIMESTAMPTZOID,
        INT8OID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        INT8OID
    )
    .by_index();
    static NEXT_PRIORITY: Plan = plan!("next_priority", INT4OID).by_index();
    let _snapshot = LatestSnapshot::take();
    if subscription::feeds_jobs()?.is_some() {
        return Ok(Found { hints: Vec::new(), to: Place::END });
    }
    let session = schema::session()?;
    let now = clock::now();
    let (tasks, flags) = (texts(search.tasks), texts_or_null(search.forbidden_flags));
    let mut found = Found { hints: Vec::new(), to: Place::END };
    let mut from = search.from;
    loop {
        let left = search.most - found.hints.len();
        let rows = session.read(
            &SCAN,
            &[
                from.priority.into_datum(),
                from.run_at.into_datum(),
                from.id.into_datum(),
                now.into_datum(),
                before(now, guc::job_expiry()).into_datum(),
                tasks,
                flags,
                i64::try_from(left).ok().into_datum(),
            ],
        )?;
        found.hints.extend((0..rows.count()).map(|row| Hint {
            place: Place {
                priority: from.priority,
                run_at: timestamp(rows.value(row, 1)).unwrap_or(0),
                id: rows.get(row, 0).unwrap_or(0),
            },
            task: registry::tag(&rows.get::<String>(row, 2).unwrap_or_default()),
            kind: kind(rows.get(row, 3).unwrap_or(false), rows.get(row, 4).unwrap_or(false)),
        }));
        rows.free();
        if let Some(last) = found.hints.last().filter(|_| found.hints.len() == search.most) {
            found.to = last.place.next();
            return Ok(found);
        }
        let next = session.read(&NEXT_PRIORITY, &[from.priority.into_datum()])?;
        if next.count() == 0 {
            return Ok(found);
        }
        from = Place { priority: next.get(0, 0).unwrap_or(0), run_at: search.since, id: i64::MIN };
    }
}

/// The next job of a queue.
pub struct Head {
    pub hint: Hint,
    pub task: Rc<Task>,
}

/// The next job of a queue that is not locked; `None` if none can run now. Jobs of tasks that are handled elsewhere, and
/// those with a forbidden flag, hold nobody up.
pub fn head(queue_name: Value, tasks: &Tasks, forbidden_flags: &[String]) -> Result<Option<Head>, Error> {
    static HEAD: Plan = plan!("queue_head", TEXTOID, TIMESTAMPTZOID, TEXTARRAYOID, TEXTARRAYOID).by_index();
    let session = schema::session()?;
    let values = [queue_name, clock::now().into_datum(), texts(&tasks.identifiers()), texts_or_null(forbidden_flags)];
    let rows = session.execute(&HEAD, &values)?;
    if rows.count() == 0 {
        return Ok(None);
    }
    let task = rows.get::<String>(0, 3).and_then(|identifier| tasks.get(&identifier));
    Ok(task.map(|task| Head {
        hint: Hint {
            place: Place {
                priority: rows.get(0, 1).unwrap_or(0),
                run_at: timestamp(rows.value(0, 2)).unwrap_or(0),
                id: rows.get(0, 0).unwrap_or(0),
            },
            task: task.tag,
            kind: Kind::Queued,
        },
        task: task.clone(),
    }))
}

/// The earliest run_at after `now`.
pub fn next_due(now: Timestamp) -> Result<Option<Timestamp>, Error> {
    static NEXT_DUE: Plan = plan!("next_due", TIMESTAMPTZOID).by_index();
    let session = schema::session()?;
    Ok(timestamp(session.read(&NEXT_DUE, &[Some(now.into())])?.value(0, 0)))
}
