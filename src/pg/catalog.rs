//! Looking up relations and extensions. To be called within a transaction. pgrx has no wrappers for these.

use super::catch::PgError;
use super::index_scan::{Condition, IndexScan};
use super::spi::Value;
use super::text::{AsText, DbText, Read};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

unsafe extern "C-unwind" {
    fn pg_get_expr(call: pg_sys::FunctionCallInfo) -> Datum;
}

/// Returns a relation, by schema and name.
pub fn relation(schema: &(impl AsText + ?Sized), name: &str) -> Option<Oid> {
    let (schema, name) = (DbText::from(schema).c_string(), DbText::from(name).c_string());
    // SAFETY: catalog look-ups through the system caches.
    let oid = unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), namespace)
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Returns an extension, by name.
pub fn extension(name: &str) -> Option<Oid> {
    let name = DbText::from(name).c_string();
    // SAFETY: a catalog scan.
    let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Returns the owner of an extension and its schema, by the active snapshot.
pub fn owner_and_schema_of(extension: Oid) -> Result<Option<(Oid, Oid)>, PgError> {
    let index = pg_sys::ExtensionOidIndexId.into();
    let mut scan =
        IndexScan::begin(pg_sys::ExtensionRelationId, index, &[is(pg_sys::Anum_pg_extension_oid, extension)])?;
    let found = scan.next()?;
    let oid = |attribute: u32| of::<Oid>(scan.value(attribute as i16)).unwrap_or_default();
    let row = found.then(|| (oid(pg_sys::Anum_pg_extension_extowner), oid(pg_sys::Anum_pg_extension_extnamespace)));
    scan.end()?;
    Ok(row)
}

/// A condition that a column, by its number, is an OID.
fn is(attribute: u32, oid: Oid) -> Condition {
    let (strategy, function) = (pg_sys::BTEqualStrategyNumber, pg_sys::F_OIDEQ);
    Condition { attribute: attribute as i16, strategy, function, value: oid.into() }
}

/// Reads a value of a catalog's column, of the type that Postgres gives it.
pub(super) fn of<T: Read>(value: Value) -> Option<T> {
    // SAFETY: by the caller's word.
    value.and_then(|value| unsafe { T::read(value) })
}

/// Returns true if a relation is a member of an extension.
pub fn is_member(relation: Oid, extension: Oid) -> bool {
    // SAFETY: a catalog scan.
    unsafe { pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation) == extension }
}

/// Returns the name of a schema, as the catalog has it, and its owner.
pub fn name_and_owner_of_schema(schema: Oid) -> Option<(DbText, Oid)> {
    // SAFETY: a look-up through a system cache; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::NAMESPACEOID as i32, schema.into());
        if tuple.is_null() {
            return None;
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_namespace>();
        let found = (DbText::of_c(CStr::from_ptr(row.nspname.data.as_ptr())), row.nspowner);
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// Returns a name as SQL has it: quoted where that is needed.
pub fn quoted(name: &DbText) -> DbText {
    let name = name.c_string();
    // SAFETY: returns the name, or another palloc'd one.
    DbText::of_c(unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) })
}

/// Returns the schema of a relation.
pub fn schema_of(relation: Oid) -> Option<Oid> {
    // SAFETY: a look-up through a system cache.
    let schema = unsafe { pg_sys::get_rel_namespace(relation) };
    (schema != pg_sys::InvalidOid).then_some(schema)
}

/// Returns the type of a table's rows.
pub fn row_type(relation: Oid) -> Oid {
    // SAFETY: a look-up through a system cache.
    unsafe { pg_sys::get_rel_type_id(relation) }
}

/// An index of a table.
pub struct Index {
    pub oid: Oid,
    pub is_valid: bool,
    /// The numbers of its columns; 0 for an expression.
    pub columns: Vec<i16>,
    /// As SQL, by the current search_path; `None` if it is of all rows.
    pub predicate: Option<DbText>,
}

/// Returns the primary key's index of a table, and the btree index of a name, by the active snapshot.
pub fn indexes(table: Oid, name: &str) -> Result<(Option<Oid>, Option<Index>), PgError> {
    let condition = is(pg_sys::Anum_pg_index_indrelid, table);
    let mut scan = IndexScan::begin(pg_sys::IndexRelationId, pg_sys::IndexIndrelidIndexId.into(), &[condition])?;
    let (mut primary_key, mut named) = (None, None);
    while scan.next()? {
        let value = |attribute: u32| scan.value(attribute as i16);
        let is_so = |attribute| of::<bool>(value(attribute)).unwrap_or(false);
        let oid = of::<Oid>(value(pg_sys::Anum_pg_index_indexrelid)).unwrap_or_default();
        if is_so(pg_sys::Anum_pg_index_indisprimary) {
            primary_key = Some(oid);
        }
        if is_btree_named(oid, name) {
            named = Some(Index {
                oid,
                is_valid: is_so(pg_sys::Anum_pg_index_indisvalid),
                columns: numbers(value(pg_sys::Anum_pg_index_indkey)),
                predicate: value(pg_sys::Anum_pg_index_indpred).map(|predicate| expression(predicate, table)),
            });
        }
    }
    scan.end()?;
    Ok((primary_key, named))
}

fn is_btree_named(index: Oid, name: &str) -> bool {
    // SAFETY: a look-up through a system cache; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, index.into());
        if tuple.is_null() {
            return false;
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let is_it = row.relam == pg_sys::BTREE_AM_OID
            && CStr::from_ptr(row.relname.data.as_ptr()).to_bytes() == name.as_bytes();
        pg_sys::ReleaseSysCache(tuple);
        is_it
    }
}

/// Reads an `int2vector`.
pub(super) fn numbers(value: Value) -> Vec<i16> {
    // SAFETY: by the caller's word; such a value of a catalog is never compressed, nor elsewhere.
    value.map_or(Vec::new(), |value| unsafe {
        let vector: *const pg_sys::int2vector = value.cast_mut_ptr();
        let length = usize::try_from((*vector).dim1).unwrap_or(0);
        std::slice::from_raw_parts((&raw const (*vector).values).cast(), length).to_vec()
    })
}

/// Reads the first element of an `oidvector`.
pub(super) fn first(value: Value) -> Oid {
    // SAFETY: by the caller's word; such a value of a catalog is never compressed, nor elsewhere.
    value.map_or(pg_sys::InvalidOid, |value| unsafe {
        let vector: *const pg_sys::oidvector = value.cast_mut_ptr();
        if (*vector).dim1 > 0 { *(&raw const (*vector).values).cast::<Oid>() } else { pg_sys::InvalidOid }
    })
}

/// Returns an expression of the catalog as SQL.
fn expression(value: Datum, table: Oid) -> DbText {
    let function: pg_sys::PGFunction = Some(pg_get_expr);
    // SAFETY: of a node tree and a relation it returns a `text`.
    let text = unsafe { pg_sys::DirectFunctionCall2Coll(function, pg_sys::InvalidOid, value, table.into()) };
    of::<DbText>(Some(text)).unwrap_or_default()
}

/// Returns the type of arrays of a type.
pub fn array_of(element: Oid) -> Oid {
    // SAFETY: a look-up through a system cache.
    unsafe { pg_sys::get_array_type(element) }
}

/// Returns true if a relation has a column of this name.
pub fn has_column(relation: Oid, name: &CStr) -> bool {
    column(relation, name) != 0
}

/// Returns the number of a column; 0 if there is none of this name.
pub fn column(relation: Oid, name: &CStr) -> i16 {
    // SAFETY: a look-up through a system cache, by a NUL-terminated name.
    unsafe { pg_sys::get_attnum(relation, name.as_ptr()) }
}

/// Returns the owner of a relation.
pub fn owner(relation: Oid) -> Option<Oid> {
    // SAFETY: a look-up through a system cache; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, relation.into());
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}
