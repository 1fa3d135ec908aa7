//! Reads how a table is defined: from the cache of relations, which has most of it, and from the catalog's caches. To be
//! called within a transaction, which has the table locked. A statement that asks the same of the catalog takes
//! milliseconds to be planned, and each new process would plan it before its first job.

use super::catalog::{self, Index};
use super::catch::{PgError, catch};
use super::text::{self, DbText};
use pgrx::pg_sys::{self, Oid};
use pgrx::{PgList, PgTupleDesc};
use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn regclassout(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
}

/// The lock that the transaction has.
const KEPT: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// How a table is defined.
pub struct Definition {
    /// True for a table of the access method heap that has neither rules nor security policies that its owner is under,
    /// nor a column that was dropped, is generated or is an identity.
    pub is_plain: bool,
    pub owner: Oid,
    pub columns: Vec<Column>,
    /// The defaults, each by the number of its column, in that order; as SQL, by the current search_path.
    pub defaults: Vec<(i16, DbText)>,
    /// The names of the constraints CHECK.
    pub checks: Vec<DbText>,
    /// In the order of their names, in which they fire. Those of foreign keys are among them.
    pub triggers: Vec<Trigger>,
    /// In the order of their names.
    pub indexes: Vec<Index>,
}

/// A column of a table.
pub struct Column {
    pub name: DbText,
    pub of: Oid,
    /// What the type has in parentheses; -1 for nothing.
    pub modifier: i32,
}

/// A trigger of a table.
pub struct Trigger {
    pub name: DbText,
    pub function: DbText,
    /// True if the function is in the schema of the table.
    pub is_of_schema: bool,
    /// True if it fires in ordinary sessions, and not where triggers of replicas do.
    pub is_enabled: bool,
    /// The events, as `pg_trigger.tgtype` has them.
    pub events: u32,
}

impl Definition {
    /// Reads it. The indexes are those that the active snapshot has.
    pub fn read(table: Oid) -> Result<Definition, PgError> {
        let open = OpenTable::open(table)?;
        let indexes = catalog::indexes(table)?;
        let mut read = open.read(table);
        read.indexes = indexes;
        read.indexes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(read)
    }
}

/// Returns the sequences that columns of a table own, each with the default that takes its next number, as SQL by the
/// current search_path.
pub fn sequences(table: Oid) -> Vec<(Oid, DbText)> {
    // SAFETY: a scan of the catalog, which returns a list of OIDs; a regclass is shown as a C string.
    unsafe {
        let owned = PgList::<Oid>::from_pg(pg_sys::getOwnedSequences(table));
        let default = |sequence: Oid| {
            let function: pg_sys::PGFunction = Some(regclassout);
            let name = pg_sys::DirectFunctionCall1Coll(function, pg_sys::InvalidOid, sequence.into());
            let name = c_text(name.cast_mut_ptr::<c_char>());
            (sequence, DbText::from(format!("nextval('{}'::regclass)", name.to_string().replace('\'', "''"))))
        };
        owned.iter_oid().map(default).collect()
    }
}

/// Copies a name of the cache.
///
/// # Safety
/// It is NUL-terminated.
unsafe fn c_text(text: *const c_char) -> DbText {
    // SAFETY: by the caller's word.
    DbText::of_c(unsafe { CStr::from_ptr(text) })
}

/// An entry of the cache of relations that stays while it is held.
struct OpenTable(pg_sys::Relation);

impl OpenTable {
    fn open(table: Oid) -> Result<OpenTable, PgError> {
        // SAFETY: the closure is one C call.
        unsafe { catch(|| table_open(table, KEPT)) }.map(OpenTable)
    }

    fn read(&self, table: Oid) -> Definition {
        // SAFETY: the entry of an open table; what it points to stays while the table is open. Names are NUL-terminated,
        // and the counts are those of the arrays.
        unsafe {
            let (form, descriptor) = (&*(*self.0).rd_rel, PgTupleDesc::from_pg_unchecked((*self.0).rd_att));
            let attributes = || descriptor.iter();
            let is_usual = |column: &pg_sys::FormData_pg_attribute| {
                !column.attisdropped && column.attgenerated == 0 && column.attidentity == 0
            };
            let columns = attributes().map(|column| Column {
                name: c_text(column.attname.data.as_ptr()),
                of: column.atttypid,
                modifier: column.atttypmod,
            });
            let constraints = NonNull::new((*descriptor.as_ptr()).constr);
            let mut defaults: Vec<_> = constraints
                .map_or(&[][..], |all| array(all.as_ref().defval, all.as_ref().num_defval))
                .iter()
                .map(|default| (default.adnum, expression(default.adbin, table)))
                .collect();
            defaults.sort_by_key(|(number, _)| *number);
            let checks = constraints.map_or(&[][..], |all| array(all.as_ref().check, all.as_ref().num_check));
            let triggers = NonNull::new((*self.0).trigdesc)
                .map_or(&[][..], |all| array(all.as_ref().triggers, all.as_ref().numtriggers as u16));
            Definition {
                is_plain: form.relkind as u8 == pg_sys::RELKIND_RELATION
                    && form.relam == pg_sys::HEAP_TABLE_AM_OID
                    && !form.relforcerowsecurity
                    && (*self.0).rd_rules.is_null()
                    && attributes().all(is_usual),
                owner: form.relowner,
                columns: columns.collect(),
                defaults,
                checks: checks.iter().map(|check| c_text(check.ccname)).collect(),
                triggers: triggers.iter().map(|trigger| read_trigger(trigger, form.relnamespace)).collect(),
                indexes: Vec::new(),
            }
        }
    }
}

impl Drop for OpenTable {
    fn drop(&mut self) {
        // SAFETY: it is open; closing it only counts down.
        unsafe { table_close(self.0, KEPT) }
    }
}

/// Returns a node tree of the cache as SQL.
///
/// # Safety
/// It is NUL-terminated.
unsafe fn expression(tree: *const c_char, table: Oid) -> DbText {
    // SAFETY: by the caller's word.
    let tree = unsafe { text::text(&c_text(tree)) };
    tree.map_or(DbText::default(), |tree| catalog::expression(tree, table))
}

/// # Safety
/// There are so many elements, or the pointer is NULL.
unsafe fn array<'a, T>(first: *const T, count: u16) -> &'a [T] {
    // SAFETY: by the caller's word.
    if first.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(first, count.into()) } }
}

/// # Safety
/// It is of a table that is open.
unsafe fn read_trigger(trigger: &pg_sys::Trigger, schema: Oid) -> Trigger {
    // SAFETY: the name is NUL-terminated; look-ups through system caches.
    unsafe {
        let function = pg_sys::get_func_name(trigger.tgfoid);
        Trigger {
            name: c_text(trigger.tgname),
            function: if function.is_null() { DbText::default() } else { c_text(function) },
            is_of_schema: pg_sys::get_func_namespace(trigger.tgfoid) == schema,
            is_enabled: trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ON_ORIGIN,
            events: trigger.tgtype as u32,
        }
    }
}
