//! Checks that the table `jobs` is exactly as the extension installs it: its columns, defaults, constraints, triggers
//! and indexes. Only then may a row be added, claimed or deleted without the executor, by code that knows what to check, to fire
//! and to index. The check is made again whenever any of it may have changed. Where anything differs (a user's trigger,
//! say), or the session is not an ordinary one, the operation is an INSERT, an UPDATE or a DELETE.

use crate::error::Error;
use crate::pg::definition::{self, Definition, Expression, Index};
use crate::pg::heap;
use crate::pg::invalidation::Watch;
use crate::schema;
use crate::schema::job_row::attribute;
use pgrx::pg_sys::{self, INT4OID, INT8OID, JSONBOID, JSONOID, Oid, REGCLASSOID, TEXTOID, TIMESTAMPTZOID};
use std::cell::Cell;
use std::thread::LocalKey;

/// The table and its indexes, as installed.
#[derive(Clone, Copy)]
pub struct Installed {
    pub table: Oid,
    pub sequence: Oid,
    /// The indexes.
    pub key: Oid,
    pub primary_key: Oid,
    pub order: Oid,
    pub queue: Oid,
    pub run_at: Oid,
    /// True if a row may also be updated without the executor.
    pub may_update: bool,
}

/// Returns the table, locked, if it is as installed.
pub fn table() -> Result<Option<Installed>, Error> {
    static SHAPE: Shape = Shape::new();
    thread_local! {
        static INSTALLED: Cell<Option<Installed>> = const { Cell::new(None) };
    }
    SHAPE.of(schema::queue()?.table, &INSTALLED, installed)
}

/// Whether a table is as installed, until its definition may have changed.
pub(super) struct Shape(Watch);

impl Shape {
    pub(super) const fn new() -> Shape {
        Shape(Watch::new())
    }

    /// Locks a table as an INSERT does. Returns what is `known` of it, which is what `read` makes of its definition.
    pub(super) fn of<T: Copy>(
        &'static self,
        table: Oid,
        known: &'static LocalKey<Cell<Option<T>>>,
        read: impl FnOnce(Oid, &Definition) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        heap::lock(table)?;
        if !self.0.is_stale() && self.0.is_of(table) {
            return Ok(known.get());
        }
        self.0.renew();
        self.0.relation(table);
        let definition = Definition::of(table).inspect_err(|_| self.0.spoil())?;
        known.set(read(table, &definition));
        Ok(known.get())
    }
}

const COLUMNS: [(&str, Oid); 16] = [
    ("id", INT8OID),
    ("queue_name", TEXTOID),
    ("task_identifier", TEXTOID),
    ("payload", JSONOID),
    ("priority", INT4OID),
    ("run_at", TIMESTAMPTZOID),
    ("attempts", INT4OID),
    ("max_attempts", INT4OID),
    ("last_error", TEXTOID),
    ("created_at", TIMESTAMPTZOID),
    ("updated_at", TIMESTAMPTZOID),
    ("key", TEXTOID),
    ("locked_at", TIMESTAMPTZOID),
    ("locked_by", TEXTOID),
    ("revision", INT4OID),
    ("flags", JSONBOID),
];

/// The columns whose defaults do not matter: whoever adds a row without the executor gives them.
const GIVEN: [i16; 4] = [attribute::PAYLOAD, attribute::PRIORITY, attribute::RUN_AT, attribute::MAX_ATTEMPTS];

/// The triggers that fire for a kind of event, in their order, each with its function.
type Fired = [(&'static str, &'static str); 3];

const ADDED_OR_DELETED: Fired = [
    ("_100_unlock_arriving", "tg_jobs__unlock_arriving"),
    ("_500_release_queue", "tg_jobs__release_queue"),
    ("_900_notify_worker", "tg_jobs__notify_new_jobs"),
];

const UPDATED: Fired = [
    ("_100_timestamps", "tg__update_timestamp"),
    ("_500_release_queue_update", "tg_jobs__release_queue"),
    ("_900_notify_worker_update", "tg_jobs__notify_new_jobs"),
];

/// What a row must meet to be in an index.
#[derive(Clone, Copy)]
enum Predicate {
    None,
    HasAttemptsLeft,
    IsQueued,
    IsLater,
}

const ORDER: [i16; 4] = [attribute::PRIORITY, attribute::RUN_AT, attribute::ID, attribute::LOCKED_AT];
const QUEUE_ORDER: [i16; 4] = [attribute::QUEUE_NAME, attribute::PRIORITY, attribute::RUN_AT, attribute::ID];

/// The indexes, in the order of their names.
const INDEXES: [(&str, &[i16], bool, Predicate); 5] = [
    ("jobs_key_key", &[attribute::KEY], true, Predicate::None),
    ("jobs_pkey", &[attribute::ID], true, Predicate::None),
    ("jobs_priority_run_at_id_locked_at_without_failures_idx", &ORDER, false, Predicate::HasAttemptsLeft),
    ("jobs_queue_name_priority_run_at_id_idx", &QUEUE_ORDER, false, Predicate::IsQueued),
    ("jobs_run_at_idx", &[attribute::RUN_AT], false, Predicate::IsLater),
];

/// Returns the table if it is as installed.
fn installed(table: Oid, found: &Definition) -> Option<Installed> {
    let may = |what| definition::may(found.owner, table, what);
    let is_installed = found.is_plain()
        && found.has_columns(&COLUMNS)
        && matches!(&found.checks[..], [check] if check.as_bytes() == b"jobs_key_check")
        && found.fires(pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_DELETE, &ADDED_OR_DELETED)
        && may(pg_sys::ACL_INSERT | pg_sys::ACL_DELETE);
    let sequence = sequence(found).filter(|_| is_installed)?;
    let [key, primary_key, order, queue, run_at] = indexes(found)?;
    let may_update = found.fires(pg_sys::TRIGGER_TYPE_UPDATE, &UPDATED) && may(pg_sys::ACL_UPDATE);
    Some(Installed { table, sequence, key, primary_key, order, queue, run_at, may_update })
}

/// Returns the sequence of ids, if all defaults are as installed.
fn sequence(found: &Definition) -> Option<Oid> {
    let is_now = |value: &Expression| *value == Expression::Call(pg_sys::F_NOW.into(), Vec::new());
    let is_zero = |value: &Expression| *value == Expression::Constant(INT4OID, 0);
    let defaults: Vec<&(i16, Expression)> =
        found.defaults.iter().filter(|(column, _)| !GIVEN.contains(column)).collect();
    let [
        (attribute::ID, id),
        (attribute::ATTEMPTS, attempts),
        (attribute::CREATED_AT, created_at),
        (attribute::UPDATED_AT, updated_at),
        (attribute::REVISION, revision),
    ] = &defaults[..]
    else {
        return None;
    };
    let Expression::Call(function, arguments) = id else { return None };
    let [Expression::Constant(REGCLASSOID, sequence)] = arguments[..] else { return None };
    let sequence = Oid::from(sequence as u32);
    let are_installed = *function == Oid::from(pg_sys::F_NEXTVAL)
        && [attempts, revision].into_iter().all(is_zero)
        && [created_at, updated_at].into_iter().all(is_now)
        && definition::is_sequence_of(sequence, found.owner);
    are_installed.then_some(sequence)
}

/// Returns the indexes in the order of [`INDEXES`], if they are those.
fn indexes(found: &Definition) -> Option<[Oid; 5]> {
    let indexes: &[Index; 5] = found.indexes.first_chunk().filter(|_| found.indexes.len() == INDEXES.len())?;
    let are_installed = indexes.iter().zip(INDEXES).all(|(index, (name, columns, is_unique, predicate))| {
        index.name == *name
            && index.is_btree
            && index.is_in_use
            && index.is_unique == is_unique
            && index.columns == columns
            && index.predicate == predicate.expression()
    });
    are_installed.then(|| indexes.each_ref().map(|index| index.oid))
}

impl Predicate {
    fn expression(self) -> Option<Expression> {
        /// `timestamptz > timestamptz`, for which Postgres has no name.
        const TIMESTAMPTZ_GREATER: u32 = 1324;
        let compare = |operator: u32, one, other| {
            Expression::Operator(operator.into(), vec![Expression::Column(one), Expression::Column(other)])
        };
        let has_attempts_left = || compare(pg_sys::Int4LessOperator, attribute::ATTEMPTS, attribute::MAX_ATTEMPTS);
        let and = |condition| Some(Expression::And(vec![condition, has_attempts_left()]));
        match self {
            Predicate::None => None,
            Predicate::HasAttemptsLeft => Some(has_attempts_left()),
            Predicate::IsQueued => and(Expression::IsNotNull(Box::new(Expression::Column(attribute::QUEUE_NAME)))),
            Predicate::IsLater => and(compare(TIMESTAMPTZ_GREATER, attribute::RUN_AT, attribute::CREATED_AT)),
        }
    }
}
