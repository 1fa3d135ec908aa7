//! Looking up relations and extensions. To be called within a transaction. pgrx has no wrappers for these.

use super::text::{AsText, DbText};
use pgrx::pg_sys::{self, Oid};

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

/// Returns the type of arrays of a type.
pub fn array_of(element: Oid) -> Oid {
    // SAFETY: a look-up through a system cache.
    unsafe { pg_sys::get_array_type(element) }
}

/// Returns true if a relation has a column of this name.
pub fn has_column(relation: Oid, name: &std::ffi::CStr) -> bool {
    // SAFETY: a look-up through a system cache, by a NUL-terminated name.
    unsafe { pg_sys::get_attnum(relation, name.as_ptr()) != 0 }
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
