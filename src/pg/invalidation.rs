//! Being told that what a cache was built from has changed.

use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;

thread_local! {
    static RELATION_CHANGED: Cell<Option<fn(Oid)>> = const { Cell::new(None) };
    static HANDLERS_CHANGED: Cell<u64> = const { Cell::new(0) };
}

/// Has `changed` called with the OID of each relation that changes (invalid: any may have), once this backend hears of it.
/// It may only set flags: it can be called at any time that a lock is taken.
pub fn on_relation_change(changed: fn(Oid)) {
    unsafe extern "C-unwind" fn call(_: Datum, relation: Oid) {
        if let Some(changed) = RELATION_CHANGED.get() {
            changed(relation);
        }
    }
    if RELATION_CHANGED.replace(Some(changed)).is_none() {
        // SAFETY: registered once for the life of the backend.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(call), Datum::from(0)) }
    }
}

/// Tells every backend, at commit, that a relation has changed.
pub fn relation_changed(relation: Oid) {
    // SAFETY: within a transaction.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}

/// A count that grows whenever a function, its schema or a role's rights may have changed.
pub fn functions_version() -> u64 {
    unsafe extern "C-unwind" fn call(_: Datum, _: i32, _: u32) {
        HANDLERS_CHANGED.set(HANDLERS_CHANGED.get() + 1);
    }
    if HANDLERS_CHANGED.get() == 0 {
        HANDLERS_CHANGED.set(1);
        for cache in [
            pg_sys::SysCacheIdentifier::PROCOID,
            pg_sys::SysCacheIdentifier::NAMESPACEOID,
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM,
        ] {
            // SAFETY: registered once for the life of the backend.
            unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(call), Datum::from(0)) }
        }
    }
    HANDLERS_CHANGED.get()
}
