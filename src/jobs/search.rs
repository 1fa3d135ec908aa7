//! Searches for jobs that can run. They only read: they assign no transaction id and write no WAL.

use super::{hash, plan};
use crate::error::Error;
use crate::holds::subscription;
use crate::pg::clock::{self, Timestamp, before};
use crate::pg::heap::RowAddress;
use crate::pg::spi::{Plan, Rows, Session, Value};
use crate::pg::text::{DbText, texts, texts_or_null};
use crate::pg::xact::LatestSnapshot;
use crate::schema::job_row::timestamp;
use crate::schema::{self, OwnerSession};
use crate::settings;
use crate::shared;
use crate::shared::ready_list::{Hint, Kind, NO_KEY, NO_ROW, Position};
use crate::tasks::pauses::{PausedQueues, Pauses};
use crate::tasks::registry;
use pgrx::IntoDatum;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Returns how a job is to be taken. `is_plain` means that it has no key and was never tried.
pub fn kind(is_queued: bool, is_plain: bool) -> Kind {
    match (is_queued, is_plain) {
        (true, _) => Kind::Queued,
        (false, true) => Kind::Plain,
        (false, false) => Kind::Claimed,
    }
}

/// What to search for.
pub struct Search<'a> {
    /// The identifiers of tasks.
    pub tasks: &'a [DbText],
    pub forbidden_flags: &'a [DbText],
    pub pauses: &'a Pauses,
    pub from: Position,
    /// Nothing at this position or behind it is looked for.
    pub until: Position,
    pub most: usize,
}

/// What a search found.
pub struct SearchResult {
    /// The jobs, in the order in which they run.
    pub hints: Vec<Hint>,
    /// The search has covered every position before this one.
    pub to: Position,
    /// True if a job bears the lock of a kongtask worker that does not live. Such a job was added in a way that fires
    /// no trigger.
    pub has_dead_locks: bool,
}

/// A search under way.
struct Found {
    result: SearchResult,
    /// True for those of the queues that are locked, by the hashes of their names. Each is looked up once: a look-up passes all
    /// dead versions of its row, and thousands of jobs may be in one queue.
    queues: HashMap<u64, bool>,
    /// Locks of external workers before this time are dead.
    expired: Timestamp,
}

impl Found {
    fn new(now: Timestamp) -> Found {
        let result = SearchResult { hints: Vec::new(), to: Position::END, has_dead_locks: false };
        Found { result, queues: HashMap::new(), expired: expired(now) }
    }

    /// Adds those of the rows of a statement that can run. It returns id, run_at, task, queue, is plain, the kongtask worker that
    /// has locked the job, and the address of its row. `priority` returns that of a row. Returns the position of the last row.
    fn add_all(
        &mut self,
        session: &Session,
        rows: &Rows,
        priority: impl Fn(usize) -> i32,
    ) -> Result<Option<Position>, Error> {
        self.look_up_queues(session, rows)?;
        Ok((0..rows.count()).map(|row| self.add(rows, row, priority(row))).last())
    }

    fn add(&mut self, rows: &Rows, row: usize, priority: i32) -> Position {
        let position = Position {
            priority,
            run_at: timestamp(rows.value(row, 1)).unwrap_or(0),
            id: rows.get(row, 0).unwrap_or(0),
        };
        let queue = rows.value(row, 3).map(hash);
        match rows.get::<DbText>(row, 5) {
            // The board is read after the row: a worker is on the board before it locks anything.
            Some(worker_id) => self.result.has_dead_locks |= !shared::living_workers().contains(&worker_id),
            None if queue.is_some_and(|queue| self.queues.get(&queue) == Some(&true)) => {}
            None => self.result.hints.push(Hint {
                position,
                key: NO_KEY,
                row: rows.value(row, 6).map_or(NO_ROW, |address| RowAddress::new(address).to_number()),
                task: registry::tag(&rows.get::<DbText>(row, 2).unwrap_or_default()),
                kind: kind(queue.is_some(), rows.get(row, 4).unwrap_or(false)),
            }),
        }
        position
    }

    /// Returns what was found by statements that return jobs in no order, some of them twice.
    fn sorted(mut self) -> SearchResult {
        self.result.hints.sort_unstable_by_key(|hint| hint.position);
        self.result.hints.dedup_by_key(|hint| hint.position.id);
        self.result
    }

    /// Looks up the queues of rows that were not met yet.
    fn look_up_queues(&mut self, session: &Session, rows: &Rows) -> Result<(), Error> {
        static LOCKED: Plan = plan!("locked_among", TEXTARRAYOID, TIMESTAMPTZOID).by_index();
        let mut names: Vec<DbText> = Vec::new();
        for row in 0..rows.count() {
            if let Some(Entry::Vacant(queue)) = rows.value(row, 3).map(|name| self.queues.entry(hash(name))) {
                queue.insert(false);
                names.extend(rows.get::<DbText>(row, 3));
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let locked = session.read(&LOCKED, &[texts(&names), self.expired.into_datum()])?;
        let queues = (0..locked.count()).filter_map(|row| locked.value(row, 0));
        self.queues.extend(queues.map(|name| (hash(name), true)));
        Ok(())
    }
}

/// Returns the first jobs that can run. To be called within a transaction; takes a new snapshot.
///
/// Each statement is for one priority, so that it begins where the due jobs of that do and ends at the first that is not due.
pub fn search(search: &Search) -> Result<SearchResult, Error> {
    /// Where jobs cannot run, a statement returns no more rows than this to pass them.
    const MOST_PASSED: usize = 1000;
    static SEARCH: Plan = plan!(
        "search",
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        INT8OID,
        INT4OID,
        TIMESTAMPTZOID,
        INT8OID
    )
    .by_index();
    static BEFORE: Plan = plan!(
        "search_before",
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        INT8OID,
        INT4OID,
        TIMESTAMPTZOID,
        INT8OID,
        TIMESTAMPTZOID,
        INT8OID
    )
    .by_index();
    let now = clock::now();
    let mut found = Found::new(now);
    let Some((_snapshot, session, values)) = begin(search, now)? else { return Ok(found.result) };
    let mut from = search.from;
    let mut at_once = search.most;
    while from < search.until {
        let most = i64::try_from(at_once).ok().into_datum();
        let (priority, run_at, id) = (from.priority.into_datum(), from.run_at.into_datum(), from.id.into_datum());
        let values = [&values[..], &[most, priority, run_at, id]].concat();
        let rows = if from.priority == search.until.priority && search.until != Position::END {
            let (run_at, id) = (search.until.run_at.into_datum(), search.until.id.into_datum());
            session.read(&BEFORE, &[&values[..], &[run_at, id]].concat())?
        } else {
            session.read(&SEARCH, &values)?
        };
        let before = found.result.hints.len();
        let last = found.add_all(&session, &rows, |_| from.priority)?;
        let passed = rows.count() + before - found.result.hints.len();
        let is_full = rows.count() == at_once;
        rows.free();
        let hints = &mut found.result.hints;
        hints.truncate(search.most);
        if hints.len() == search.most {
            found.result.to = hints.last().map_or(from, |last| last.position.next());
            return Ok(found.result);
        }
        // The more of them are running, or in locked queues, the more are passed at once.
        at_once = (search.most - hints.len()).max((passed * 2).min(MOST_PASSED));
        if let Some(last) = last.filter(|_| is_full) {
            from = last.next();
            continue;
        }
        let next = session.read(&NEXT_PRIORITY, &[i64::from(from.priority).into_datum(), now.into_datum()])?;
        let Some(priority) = next_priority(&next) else { return Ok(found.result) };
        from = Position { priority, ..Position::START };
    }
    Ok(found.result)
}

/// Returns the next priority that has a due job.
pub(super) static NEXT_PRIORITY: Plan = plan!("next_priority", INT8OID, TIMESTAMPTZOID).by_index();

/// Returns what [`NEXT_PRIORITY`] has found.
pub(super) fn next_priority(rows: &Rows) -> Option<i32> {
    if rows.count() == 0 { None } else { rows.get(0, 0) }
}

/// Returns the jobs whose scheduled time has come since `since`; `from` is ignored. If there are more than `most`, the
/// whole table must be searched. To be called within a transaction; takes a new snapshot.
pub fn search_due(search: &Search, since: Timestamp) -> Result<SearchResult, Error> {
    static DUE: Plan = plan!(
        "search_due",
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        INT8OID,
        TIMESTAMPTZOID
    )
    .by_index();
    let now = clock::now();
    let mut found = Found::new(now);
    let Some((_snapshot, session, values)) = begin(search, now)? else { return Ok(found.result) };
    let (mut since, mut at_once) = (since, search.most);
    loop {
        let most = i64::try_from(at_once).ok().into_datum();
        let rows = session.read(&DUE, &[&values[..], &[most, since.into_datum()]].concat())?;
        let last = found.add_all(&session, &rows, of_row(&rows))?;
        let is_full = rows.count() == at_once;
        rows.free();
        if found.result.hints.len() >= search.most {
            found.result.to = Position::START;
            break;
        }
        let Some(last) = last.filter(|_| is_full) else { break };
        // Most are running, or in locked queues. Those of the last one's time are found again, and all may be of that time.
        (since, at_once) = (last.run_at, at_once * 2);
    }
    Ok(found.sorted())
}

/// Returns those of some jobs, by their ids, that can run; `from`, `until` and `most` are ignored. To be called within a
/// transaction; takes a new snapshot.
pub fn search_those(search: &Search, ids: &[i64]) -> Result<SearchResult, Error> {
    static THOSE: Plan = plan!(
        "search_those",
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        INT8ARRAYOID
    )
    .by_index();
    let now = clock::now();
    let mut found = Found::new(now);
    let Some((_snapshot, session, values)) = begin(search, now)? else { return Ok(found.result) };
    let rows = session.read(&THOSE, &[&values[..], &[ids.to_vec().into_datum()]].concat())?;
    found.add_all(&session, &rows, of_row(&rows))?;
    Ok(found.sorted())
}

/// Returns what tells the priority of a row of a statement that returns it as its last column.
fn of_row(rows: &Rows) -> impl Fn(usize) -> i32 {
    |row| rows.get(row, 7).unwrap_or(0)
}

/// Takes the snapshot of a search. Returns also the session, and the parameters that all searches begin with; `None` if no job
/// can run.
fn begin(search: &Search, now: Timestamp) -> Result<Option<(LatestSnapshot, OwnerSession, [Value; 7])>, Error> {
    if search.tasks.is_empty() {
        return Ok(None);
    }
    let snapshot = LatestSnapshot::take();
    if subscription::feeds_jobs()?.is_some() {
        return Ok(None);
    }
    Ok(Some((snapshot, schema::session()?, values(search, now))))
}

/// Returns the time before which locks of external workers are dead.
fn expired(now: Timestamp) -> Timestamp {
    before(now, settings::job_expiry())
}

/// Returns the parameters that all searches begin with.
fn values(search: &Search, now: Timestamp) -> [Value; 7] {
    let [whole, parts, tasks] = paused_queues(search.pauses, now);
    [
        now.into_datum(),
        expired(now).into_datum(),
        texts(search.tasks),
        texts_or_null(search.forbidden_flags),
        whole,
        parts,
        tasks,
    ]
}

/// Returns the parameters that say which queues are paused: all are NULL if none is.
pub(super) fn paused_queues(pauses: &Pauses, now: Timestamp) -> [Value; 3] {
    let PausedQueues { whole, parts, tasks } = pauses.paused_queues(now);
    if whole.is_empty() && parts.is_empty() {
        return [None; 3];
    }
    [texts(&whole), texts(&parts), texts(&tasks)]
}

/// Returns the earliest run_at after `now`. Takes a new snapshot: the transaction's own may be older than what commits
/// have reported, and the scheduler forgets reports when it looks.
pub fn next_due(now: Timestamp) -> Result<Option<Timestamp>, Error> {
    static NEXT_DUE: Plan = plan!("next_due", TIMESTAMPTZOID).by_index();
    let _snapshot = LatestSnapshot::take();
    let session = schema::session()?;
    let rows = session.read(&NEXT_DUE, &[Some(now.into())])?;
    Ok(if rows.count() == 0 { None } else { timestamp(rows.value(0, 0)) })
}
