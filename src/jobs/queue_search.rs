//! Looking for a queue's next job: the first that is due in the order of priority, run_at and id.
//!
//! The index of queues is read from where the hints on queues say that jobs may be, priority by priority (see
//! `src/shared/queue_hints.rs`). Within a priority, the scan ends at the first job that is due or, if none is, at the
//! first that is scheduled for later, and goes on with the next priority that has any. So a look costs the same however
//! many jobs of the queue have run, or are scheduled for later.

use super::{hash, plan};
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::clock::{self, Timestamp};
use crate::pg::heap::RowAddress;
use crate::pg::index_scan::{Condition, IndexScan};
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, texts_or_null};
use crate::pg::xact::{self, LatestSnapshot};
use crate::pg::{background, heap, scan};
use crate::schema;
use crate::schema::job_row::{attribute, timestamp};
use crate::settings;
use crate::shared;
use crate::shared::queue_hints::{Floors, Look, Terms};
use crate::shared::ready_list::{Hint, Kind, NO_KEY, NO_ROW, Position};
use crate::signals::commit_notes;
use crate::tasks::registry::{Task, Tasks};
use pgrx::IntoDatum;
use pgrx::pg_sys::{self, Datum, Oid};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Instant;

/// The next job of a queue.
pub struct NextJob {
    pub hint: Hint,
    pub task: Rc<Task>,
    /// True if it is the first of the queue's due jobs: no external worker's stands before it.
    pub is_first: bool,
    /// True if it has no key, was never tried, and is not claimed. False if that is not known.
    pub is_plain: bool,
    /// Where its row was, if that is known.
    pub address: Option<RowAddress>,
}

/// Returns the next job of a queue, or `None` if none can run now. Skips jobs of tasks that are not registered here, jobs
/// that are paused, and jobs that have a forbidden flag.
///
/// This asks the copy of the tasks whether a task is registered, as a statement would have to be given all tasks each
/// time.
pub fn next_of_queue(queue_name: Value, tasks: &Tasks, forbidden_flags: &[DbText]) -> Result<Option<NextJob>, Error> {
    let Some(name) = queue_name else { return Ok(None) };
    let now = clock::now();
    let mut paused = Vec::new();
    if !tasks.pauses.is_empty() {
        let name = Text::new(name).read();
        if tasks.pauses.is_everything_paused(now) || tasks.pauses.is_queue_paused(&name, now) {
            return Ok(None);
        }
        paused = tasks.pauses.paused_tasks(Some(&name), now);
    }
    let queue = schema::queue()?;
    let Some(index) = queue.queue_order else { return by_statement(queue_name, tasks, forbidden_flags, &paused, now) };
    let queue_hash = hash(name);
    let mut terms = DefaultHasher::new();
    forbidden_flags.hash(&mut terms);
    let terms = Terms { tasks: tasks.changes, flags: terms.finish() };
    // Before the snapshot.
    let look = shared::board().map(|board| board.begin_look(background::database(), queue_hash, terms, now));
    let mut floors = look.as_ref().map_or(Floors::ANYWHERE, |look| look.floors);
    let looks_everywhere = floors.rest() == Position::START;
    floors.add_all(&commit_notes::noted_in(queue_hash));
    heap::end_command()?;
    let _snapshot = LatestSnapshot::take();
    let begun = Instant::now();
    let mut search = QueueSearch {
        table: queue.table,
        index,
        name,
        tasks,
        forbidden: texts_or_null(forbidden_flags),
        paused: &paused,
        now,
        next: None,
    };
    let floors = search.search(&floors)?;
    let next = search.next;
    // Of what a subtransaction has done, a part may be rolled back.
    if let Some(look) = look.filter(|_| xact::is_at_top()) {
        // Takes a fiftieth of the time at most, however many entries a look has to pass.
        let length = settings::poll_interval().max(begun.elapsed() * 50);
        let until = clock::after(clock::now(), length).min(tasks.pauses.next_end(now));
        commit_notes::note_look(Look { floors, valid_until: looks_everywhere.then_some(until), ..look });
    }
    Ok(next)
}

struct QueueSearch<'a> {
    table: Oid,
    index: Oid,
    name: Datum,
    tasks: &'a Tasks,
    /// Forbidden flags, a `text[]`.
    forbidden: Value,
    paused: &'a [DbText],
    now: Timestamp,
    next: Option<NextJob>,
}

/// What a scan of one priority has found.
enum Found {
    /// The first job that is due is at this position.
    Due(Position),
    /// None is due, and the first that is scheduled for later is at this position.
    Later(Position),
    Nothing,
}

impl QueueSearch<'_> {
    /// Looks for the next job where `floors` say that jobs may be. Returns where they may be after this look.
    fn search(&mut self, floors: &Floors) -> Result<Floors, Error> {
        let mut left = Floors::NOWHERE;
        let mut is_first = true;
        for &floor in floors.positions() {
            // Once the next job is found, what comes behind it is as it was.
            let found = if self.next.is_some() { Found::Due(floor) } else { self.scan(floor, &mut is_first)? };
            if let Found::Due(position) | Found::Later(position) = found {
                left.add(position);
            }
        }
        let mut rest = floors.rest();
        while self.next.is_none() && rest != Position::END {
            let first = match rest {
                // Somewhere within a priority.
                Position { run_at, .. } if run_at > Position::START.run_at => Some(rest),
                _ => self.first_from(rest.priority)?,
            };
            let Some(first) = first else {
                rest = Position::END;
                break;
            };
            if let Found::Due(position) | Found::Later(position) = self.scan(first, &mut is_first)? {
                left.add(position);
            }
            rest = first
                .priority
                .checked_add(1)
                .map_or(Position::END, |priority| Position { priority, ..Position::START });
        }
        left.add_rest(rest);
        Ok(left)
    }

    /// Scans one priority from a position on, for the next job.
    fn scan(&mut self, from: Position, is_first: &mut bool) -> Result<Found, Error> {
        let at = [self.is_queue(), is(attribute::PRIORITY, pg_sys::F_INT4EQ, from.priority.into_datum())];
        // Jobs that were added together have the same run_at.
        let same = is(attribute::RUN_AT, pg_sys::F_TIMESTAMPTZ_EQ, from.run_at.into_datum());
        let from_id = at_least(attribute::ID, pg_sys::F_INT8GE, from.id.into_datum());
        let after = Condition {
            attribute: attribute::RUN_AT,
            strategy: pg_sys::BTGreaterStrategyNumber,
            function: pg_sys::F_TIMESTAMPTZ_GT,
            value: Datum::from(from.run_at),
        };
        let mut due = None;
        for conditions in [&[at[0], at[1], same, from_id][..], &[at[0], at[1], after][..]] {
            match self.scan_for(conditions, &mut due, is_first)? {
                Found::Nothing => (),
                // An external worker's job that is due comes before.
                Found::Later(position) => return Ok(due.map_or(Found::Later(position), Found::Due)),
                Found::Due(position) => return Ok(Found::Due(position)),
            }
        }
        Ok(due.map_or(Found::Nothing, Found::Due))
    }

    /// Scans for the next job among those that meet some conditions. `due` is the first that is due, be it another
    /// worker's.
    fn scan_for(
        &mut self,
        conditions: &[Condition],
        due: &mut Option<Position>,
        is_first: &mut bool,
    ) -> Result<Found, Error> {
        let mut rows = IndexScan::begin(self.table, self.index, conditions)?;
        let mut found = Found::Nothing;
        while rows.next()? {
            let position = position(&rows);
            if position.run_at > self.now {
                found = Found::Later(position);
                break;
            }
            let identifier =
                rows.value(attribute::TASK_IDENTIFIER).map(|text| Text::new(text).read()).unwrap_or_default();
            if self.has_forbidden_flag(rows.value(attribute::FLAGS))? || self.paused.contains(&identifier) {
                continue;
            }
            let first = *due.get_or_insert(position);
            if let Some(task) = self.tasks.get(&identifier) {
                let hint = Hint { position, key: NO_KEY, row: NO_ROW, task: task.tag, kind: Kind::Queued };
                let is_plain = rows.value(attribute::KEY).is_none()
                    && rows.value(attribute::LOCKED_AT).is_none()
                    && rows.value(attribute::ATTEMPTS).is_some_and(|attempts| attempts.value() as i32 == 0);
                let (task, is_first, address) = (task.clone(), *is_first, Some(rows.address()));
                self.next = Some(NextJob { hint, task, is_first, is_plain, address });
                found = Found::Due(first);
                break;
            }
            *is_first = false;
        }
        rows.end()?;
        Ok(found)
    }

    /// Returns the position of the queue's first job of a priority, or of the next priority that has any.
    fn first_from(&self, priority: i32) -> Result<Option<Position>, Error> {
        let priority = at_least(attribute::PRIORITY, pg_sys::F_INT4GE, priority.into_datum());
        let mut rows = IndexScan::begin(self.table, self.index, &[self.is_queue(), priority])?;
        let first = rows.next()?.then(|| position(&rows));
        rows.end()?;
        Ok(first)
    }

    fn is_queue(&self) -> Condition {
        is(attribute::QUEUE_NAME, pg_sys::F_TEXTEQ, Some(self.name))
    }

    fn has_forbidden_flag(&self, flags: Value) -> Result<bool, Error> {
        match (flags, self.forbidden) {
            (Some(flags), Some(forbidden)) => Ok(scan::has_any_key(flags, forbidden)?),
            _ => Ok(false),
        }
    }
}

fn position(row: &IndexScan) -> Position {
    Position {
        priority: row.value(attribute::PRIORITY).map_or(0, |datum| datum.value() as i32),
        run_at: timestamp(row.value(attribute::RUN_AT)).unwrap_or(0),
        id: row.value(attribute::ID).map_or(0, |datum| datum.value() as i64),
    }
}

fn is(attribute: i16, function: u32, value: Value) -> Condition {
    Condition { attribute, strategy: pg_sys::BTEqualStrategyNumber, function, value: value.unwrap_or(Datum::null()) }
}

fn at_least(attribute: i16, function: u32, value: Value) -> Condition {
    Condition { strategy: pg_sys::BTGreaterEqualStrategyNumber, ..is(attribute, function, value) }
}

/// Does what [`next_of_queue`] does where the index of queues is not as installed.
fn by_statement(
    queue_name: Value,
    tasks: &Tasks,
    forbidden_flags: &[DbText],
    paused: &[DbText],
    now: Timestamp,
) -> Result<Option<NextJob>, Error> {
    static HEAD: Plan = plan!(
        "queue_head",
        TEXTOID,
        TIMESTAMPTZOID,
        TEXTARRAYOID,
        INT4OID,
        TIMESTAMPTZOID,
        INT8OID,
        INT8OID,
        TEXTARRAYOID
    )
    .by_index();
    /// The first job is mostly the one. Where it is not, the jobs of external workers are skipped by so many at once.
    const MOST: i64 = 100;
    let session = schema::session()?;
    let (flags, paused) = (texts_or_null(forbidden_flags), texts_or_null(paused));
    let (mut from, mut most, mut is_first) = (Position::START, 1, true);
    loop {
        let values = [
            queue_name,
            now.into_datum(),
            flags,
            from.priority.into_datum(),
            from.run_at.into_datum(),
            from.id.into_datum(),
            most.into_datum(),
            paused,
        ];
        let rows = session.execute(&HEAD, &values)?;
        for row in 0..rows.count() {
            let position = Position {
                priority: rows.get(row, 1).unwrap_or(0),
                run_at: timestamp(rows.value(row, 2)).unwrap_or(0),
                id: rows.get(row, 0).unwrap_or(0),
            };
            let task = rows.get::<DbText>(row, 3).and_then(|identifier| tasks.get(&identifier));
            if let Some(task) = task {
                let hint = Hint { position, key: NO_KEY, row: NO_ROW, task: task.tag, kind: Kind::Queued };
                return Ok(Some(NextJob { hint, task: task.clone(), is_first, is_plain: false, address: None }));
            }
            (from, is_first) = (position.next(), false);
        }
        if (rows.count() as i64) < most {
            return Ok(None);
        }
        rows.free();
        most = MOST;
    }
}
