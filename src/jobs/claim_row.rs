//! Claims jobs without the executor. It repeats what the UPDATE of `claim_many` and its triggers would do: see
//! [`super::table_shape`].

use super::table_shape::Installed;
use super::triggers::updated_at;
use crate::error::Error;
use crate::pg::args::{Row, Text};
use crate::pg::clock;
use crate::pg::heap::{self, Index, RowAddress, Version};
use crate::pg::spi::Value;
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::schema::job_row::{Job, attribute, timestamp};
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;

/// How many columns `jobs` has.
const COLUMNS: usize = 16;

pub(super) struct Claims {
    /// The jobs that are claimed, in the order of the ids that were given.
    pub jobs: Vec<Job>,
    /// The ids of those for which the caller must use an UPDATE.
    pub left: Vec<i64>,
}

/// Claims jobs of a task for a worker, in a READ COMMITTED transaction. Leaves out those that cannot run any more, or that
/// another transaction has locked. `addresses` say where their rows were, as far as that is known; `queue_name` is the queue
/// that the worker has locked, if any.
pub(super) fn claim_without_executor(
    installed: &Installed,
    ids: &[i64],
    addresses: &[Option<RowAddress>],
    task: &DbText,
    worker_id: Value,
    queue_name: Value,
) -> Result<Claims, Error> {
    let mut claims = Claims { jobs: Vec::with_capacity(ids.len()), left: Vec::new() };
    let now = clock::now();
    for (&id, &address) in ids.iter().zip(addresses) {
        let _snapshot = LatestSnapshot::take();
        let Some(version) = find(installed, id, address)? else { continue };
        let columns = Columns::of(version.row);
        if columns.is_locked {
            // Of an external worker that may be dead.
            claims.left.push(id);
        } else if columns.can_run(task, now, queue_name) {
            let attempts = columns.attempts + 1;
            let changes = [
                (attribute::ATTEMPTS, attempts.into_datum()),
                (attribute::LOCKED_AT, Some(now.into())),
                (attribute::LOCKED_BY, worker_id),
                (attribute::UPDATED_AT, updated_at(columns.updated_at)),
            ];
            let (narrow, queue) = unchanged(installed);
            let has_attempts_left = attempts < columns.max_attempts;
            let changed: &[Index<4>] = match () {
                () if !has_attempts_left => &[],
                () if columns.queue_name.is_some() => &[order(installed), queue],
                () => &[order(installed)],
            };
            let narrow = &narrow[..if has_attempts_left && columns.is_later { 3 } else { 2 }];
            if let Some(found) = heap::update::<COLUMNS>(installed.table, &version, &changes, narrow, changed)? {
                claims.jobs.push(Job::at(found.row, found.address()));
            }
        }
    }
    Ok(claims)
}

/// Finds a job's row, first where it was.
fn find(installed: &Installed, id: i64, address: Option<RowAddress>) -> Result<Option<Version>, Error> {
    let at_address = address.map(|address| heap::version_at(installed.table, address)).transpose()?.flatten();
    match at_address.filter(|version| Row::new(version.row).get(attribute::ID) == Some(id)) {
        Some(version) => Ok(Some(version)),
        None => Ok(heap::find_version(installed.table, installed.primary_key, id)?),
    }
}

fn order(installed: &Installed) -> Index<4> {
    let attributes = [attribute::PRIORITY, attribute::RUN_AT, attribute::ID, attribute::LOCKED_AT];
    Index { oid: installed.order, is_unique: false, attributes }
}

/// What matters of a row that is claimed.
struct Columns {
    task: Option<Datum>,
    queue_name: Value,
    run_at: i64,
    attempts: i32,
    max_attempts: i32,
    updated_at: Value,
    is_locked: bool,
    /// True if it is in the index of jobs that were added to run later, or are to be tried again.
    is_later: bool,
}

impl Columns {
    fn of(row: Datum) -> Columns {
        use attribute::{
            ATTEMPTS, CREATED_AT, LOCKED_AT, LOCKED_BY, MAX_ATTEMPTS, QUEUE_NAME, RUN_AT, TASK_IDENTIFIER, UPDATED_AT,
        };
        let columns =
            [TASK_IDENTIFIER, QUEUE_NAME, RUN_AT, CREATED_AT, ATTEMPTS, MAX_ATTEMPTS, UPDATED_AT, LOCKED_AT, LOCKED_BY];
        let [task, queue_name, run_at, created_at, attempts, max_attempts, updated_at, locked_at, locked_by] =
            Row::new(row).values(columns);
        let number = |value: Value| value.map_or(0, |datum| datum.value() as i32);
        let run_at = timestamp(run_at).unwrap_or(i64::MAX);
        Columns {
            task,
            queue_name,
            run_at,
            attempts: number(attempts),
            max_attempts: number(max_attempts),
            updated_at,
            is_locked: locked_at.is_some() || locked_by.is_some(),
            is_later: timestamp(created_at).is_some_and(|created_at| run_at > created_at),
        }
    }

    fn can_run(&self, task: &DbText, now: i64, queue_name: Value) -> bool {
        let is_of_queue = match (self.queue_name, queue_name) {
            (None, _) => true,
            (Some(its), Some(held)) => Text::new(its).bytes() == Text::new(held).bytes(),
            (Some(_), None) => false,
        };
        is_of_queue
            && self.run_at <= now
            && self.attempts < self.max_attempts
            && self.task.is_some_and(|its| Text::new(its).is(task))
    }
}

/// Returns the indexes whose columns a claim leaves as they are: those of one column, the last of which only has jobs for
/// later, and that of queues.
fn unchanged(installed: &Installed) -> ([Index<1>; 3], Index<4>) {
    use attribute::{ID, KEY, PRIORITY, QUEUE_NAME, RUN_AT};
    (
        [
            Index { oid: installed.primary_key, is_unique: true, attributes: [ID] },
            Index { oid: installed.key, is_unique: true, attributes: [KEY] },
            Index { oid: installed.run_at, is_unique: false, attributes: [RUN_AT] },
        ],
        Index { oid: installed.queue, is_unique: false, attributes: [QUEUE_NAME, PRIORITY, RUN_AT, ID] },
    )
}
