//! Invalidation of caches. pgrx has no wrappers for relcache and syscache callbacks.

use pgrx::pg_sys::{self, Datum, InvalidOid, Oid, SysCacheIdentifier};
use std::cell::Cell;

/// Tells whether a cache may be out of date: after changes of one relation, and optionally of the rows of catalogs.
pub struct Watch {
    relation: Cell<Oid>,
    /// The catalogs, by their system caches.
    catalogs: &'static [SysCacheIdentifier::Type],
    stale: Cell<bool>,
    begun: Cell<bool>,
}

// SAFETY: a backend has one thread.
unsafe impl Sync for Watch {}

impl Watch {
    pub const fn new() -> Watch {
        Watch { relation: Cell::new(InvalidOid), catalogs: &[], stale: Cell::new(true), begun: Cell::new(false) }
    }

    /// Also watches schemas.
    pub const fn and_schemas(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::NAMESPACEOID];
        self
    }

    /// Also watches roles.
    pub const fn and_roles(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::AUTHOID];
        self
    }

    /// Also watches databases.
    pub const fn and_databases(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::DATABASEOID];
        self
    }

    /// Also watches subscriptions and the tables that they feed.
    pub const fn and_subscriptions(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::SUBSCRIPTIONOID, SysCacheIdentifier::SUBSCRIPTIONRELMAP];
        self
    }

    pub fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// To be called before the cache is built: a change during that makes it stale again.
    pub fn renew(&'static self) {
        self.stale.set(false);
        if self.begun.replace(true) {
            return;
        }
        let this = Datum::from(std::ptr::from_ref(self));
        // SAFETY: registered once for the life of the backend, with something that lives as long.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changes), this);
            for &catalog in self.catalogs {
                pg_sys::CacheRegisterSyscacheCallback(catalog as i32, Some(catalog_changes), this);
            }
        }
    }

    /// Sets the relation that the cache is built from.
    pub fn relation(&self, relation: Oid) {
        self.relation.set(relation);
    }

    /// Returns true if the cache was built from this relation.
    pub fn is_of(&self, relation: Oid) -> bool {
        self.relation.get() == relation
    }

    /// Marks the cache as stale, as building it has failed.
    pub fn spoil(&self) {
        self.stale.set(true);
    }
}

// Postgres may call either whenever a lock is taken, and they only set a flag.

unsafe extern "C-unwind" fn relation_changes(watch: Datum, relation: Oid) {
    // SAFETY: what `renew` registered.
    let watch = unsafe { &*watch.cast_mut_ptr::<Watch>() };
    // An invalid OID means that any relation may have changed.
    if relation == watch.relation.get() || relation == InvalidOid {
        watch.spoil();
    }
}

unsafe extern "C-unwind" fn catalog_changes(watch: Datum, _: i32, _: u32) {
    // SAFETY: what `renew` registered.
    unsafe { &*watch.cast_mut_ptr::<Watch>() }.spoil();
}

/// Receives the invalidation messages that other processes have sent.
pub fn accept() {
    // SAFETY: within a transaction; the callbacks only set flags.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// Tells all processes at commit that a relation has changed.
pub fn relation_changed(relation: Oid) {
    // SAFETY: within a transaction.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}

thread_local! {
    static HANDLERS_CHANGED: Cell<u64> = const { Cell::new(0) };
}

/// Returns a number that grows whenever a function, its schema or a role's privileges may have changed.
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

thread_local! {
    static RELATIONS_CHANGED: Cell<u64> = const { Cell::new(0) };
}

/// Returns a number that grows whenever any relation may have changed.
pub fn relations_version() -> u64 {
    unsafe extern "C-unwind" fn call(_: Datum, _: Oid) {
        RELATIONS_CHANGED.set(RELATIONS_CHANGED.get() + 1);
    }
    if RELATIONS_CHANGED.get() == 0 {
        RELATIONS_CHANGED.set(1);
        // SAFETY: registered once for the life of the backend.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(call), Datum::from(0)) }
    }
    RELATIONS_CHANGED.get()
}
