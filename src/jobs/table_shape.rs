//! Checks that the table `jobs` is exactly as the extension installs it: its columns, defaults, constraints, triggers
//! and indexes. Only then may a row be added, claimed or deleted without the executor, by code that knows what to check, to fire
//! and to index. The check is made again whenever any of it may have changed. Where anything differs (a user's trigger,
//! say), or the session is not an ordinary one, the operation is an INSERT, an UPDATE or a DELETE.

use crate::error::Error;
use crate::pg::catalog::Index;
use crate::pg::definition::{self, Column, Definition, Trigger};
use crate::pg::invalidation::Watch;
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::pg::{heap, role};
use crate::schema;
use crate::schema::job_row::attribute;
use pgrx::pg_sys::{self, INT4OID, INT8OID, JSONBOID, JSONOID, Oid, TEXTOID, TIMESTAMPTZOID};
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
    SHAPE.of(schema::queue()?.table, &INSTALLED, read)
}

/// What is known of the shape of a table, until it may have changed.
pub(super) struct Shape(Watch);

impl Shape {
    pub(super) const fn new() -> Shape {
        Shape(Watch::new())
    }

    /// Locks a table as an INSERT does, and returns what `read` makes of its definition.
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
        let _snapshot = LatestSnapshot::take();
        // For its search_path.
        let _session = schema::session().inspect_err(|_| self.0.spoil())?;
        let definition = Definition::read(table).inspect_err(|_| self.0.spoil())?;
        known.set(read(table, &definition));
        Ok(known.get())
    }
}

/// The columns of `jobs`, by their types.
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

/// The columns with a default whose value add_job always gives.
const GIVEN: [i16; 4] = [attribute::PAYLOAD, attribute::PRIORITY, attribute::RUN_AT, attribute::MAX_ATTEMPTS];

fn read(table: Oid, definition: &Definition) -> Option<Installed> {
    let sequence = definition::sequences(table).into_iter().find(|(_, default)| {
        let presets = definition.defaults.iter().filter(|(column, _)| !GIVEN.contains(column));
        let installed: [(i16, &[u8]); 5] = [
            (attribute::ID, default.as_bytes()),
            (attribute::ATTEMPTS, b"0"),
            (attribute::CREATED_AT, b"now()"),
            (attribute::UPDATED_AT, b"now()"),
            (attribute::REVISION, b"0"),
        ];
        presets.map(|(column, preset)| (*column, preset.as_bytes())).eq(installed)
    });
    let owner_may = |privilege| role::has_privilege(table, definition.owner, privilege);
    let is_as_installed = definition.is_plain
        && has_columns(definition, &COLUMNS)
        && definition.checks.iter().map(DbText::as_bytes).eq([b"jobs_key_check"])
        && owner_may(pg_sys::ACL_INSERT)
        && owner_may(pg_sys::ACL_DELETE)
        && fires(
            definition,
            pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_DELETE,
            &[
                ("_100_unlock_arriving", "tg_jobs__unlock_arriving"),
                ("_500_release_queue", "tg_jobs__release_queue"),
                ("_900_notify_worker", "tg_jobs__notify_new_jobs"),
            ],
        );
    let may_update = owner_may(pg_sys::ACL_UPDATE)
        && fires(
            definition,
            pg_sys::TRIGGER_TYPE_UPDATE,
            &[
                ("_100_timestamps", "tg__update_timestamp"),
                ("_500_release_queue_update", "tg_jobs__release_queue"),
                ("_900_notify_worker_update", "tg_jobs__notify_new_jobs"),
            ],
        );
    let [key, primary_key, order, queue, run_at] = &definition.indexes[..] else { return None };
    let are_indexes_installed = is(key, "jobs_key_key", true, &[attribute::KEY], None)
        && is(primary_key, "jobs_pkey", true, &[attribute::ID], None)
        && is(
            order,
            "jobs_priority_run_at_id_locked_at_without_failures_idx",
            false,
            &[attribute::PRIORITY, attribute::RUN_AT, attribute::ID, attribute::LOCKED_AT],
            Some("(attempts < max_attempts)"),
        )
        && is(
            queue,
            "jobs_queue_name_priority_run_at_id_idx",
            false,
            &[attribute::QUEUE_NAME, attribute::PRIORITY, attribute::RUN_AT, attribute::ID],
            Some("((queue_name IS NOT NULL) AND (attempts < max_attempts))"),
        )
        && is(
            run_at,
            "jobs_run_at_idx",
            false,
            &[attribute::RUN_AT],
            Some("((run_at > created_at) AND (attempts < max_attempts))"),
        );
    (is_as_installed && are_indexes_installed).then_some(Installed {
        table,
        sequence: sequence?.0,
        key: key.oid,
        primary_key: primary_key.oid,
        order: order.oid,
        queue: queue.oid,
        run_at: run_at.oid,
        may_update,
    })
}

/// Returns true if a table has exactly these columns.
pub(super) fn has_columns(definition: &Definition, columns: &[(&str, Oid)]) -> bool {
    let is = |(column, (name, of)): (&Column, &(&str, Oid))| {
        column.name == **name && column.of == *of && column.modifier == -1
    };
    definition.columns.len() == columns.len() && definition.columns.iter().zip(columns).all(is)
}

/// Returns true if exactly these triggers, each with its function, fire at some of these events.
pub(super) fn fires(definition: &Definition, events: u32, installed: &[(&str, &str)]) -> bool {
    let is = |(trigger, (name, function)): (&Trigger, &(&str, &str))| {
        trigger.name == **name && trigger.function == **function && trigger.is_of_schema && trigger.is_enabled
    };
    let fire: Vec<&Trigger> = definition.triggers.iter().filter(|trigger| trigger.events & events != 0).collect();
    fire.len() == installed.len() && fire.into_iter().zip(installed).all(is)
}

/// Returns true if an index is as installed.
fn is(index: &Index, name: &str, is_unique: bool, columns: &[i16], predicate: Option<&str>) -> bool {
    index.name == *name
        && index.is_btree
        && index.is_kept
        && index.is_unique == is_unique
        && index.columns == columns
        && index.predicate.as_ref().map(DbText::as_bytes) == predicate.map(str::as_bytes)
}
