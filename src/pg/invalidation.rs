//! Being told that what a cache was built from has changed.

use pgrx::pg_sys::{self, Datum, InvalidOid, Oid, SysCacheIdentifier};
use std::cell::Cell;

/// Whether what a cache was built from may have changed since it was built: a relation, and for some also the rows of a catalog.
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

    /// Also where any schema may have changed.
    pub const fn and_schemas(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::NAMESPACEOID];
        self
    }

    /// Also where any role may have changed.
    pub const fn and_roles(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::AUTHOID];
        self
    }

    /// Also where any subscription may have changed, or which tables it feeds.
    pub const fn and_subscriptions(mut self) -> Watch {
        self.catalogs = &[SysCacheIdentifier::SUBSCRIPTIONOID, SysCacheIdentifier::SUBSCRIPTIONRELMAP];
        self
    }

    pub fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// To be called before the cache is built: what changes meanwhile makes it stale again.
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

    /// The relation that the cache is built from.
    pub fn relation(&self, relation: Oid) {
        self.relation.set(relation);
    }

    /// Whether the cache was built from this relation.
    pub fn is_of(&self, relation: Oid) -> bool {
        self.relation.get() == relation
    }

    /// The cache was not built after all.
    pub fn spoil(&self) {
        self.stale.set(true);
    }
}

// Both can be called at any time that a lock is taken, and only set a flag.

unsafe extern "C-unwind" fn relation_changes(watch: Datum, relation: Oid) {
    // SAFETY: what `renew` registered.
    let watch = unsafe { &*watch.cast_mut_ptr::<Watch>() };
    // Invalid: any relation may have changed.
    if relation == watch.relation.get() || relation == InvalidOid {
        watch.spoil();
    }
}

unsafe extern "C-unwind" fn catalog_changes(watch: Datum, _: i32, _: u32) {
    // SAFETY: what `renew` registered.
    unsafe { &*watch.cast_mut_ptr::<Watch>() }.spoil();
}

/// Learns what others have changed and told of so far.
pub fn accept() {
    // SAFETY: within a transaction; the callbacks only set flags.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// Tells every backend, at commit, that a relation has changed.
pub fn relation_changed(relation: Oid) {
    // SAFETY: within a transaction.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}

thread_local! {
    static HANDLERS_CHANGED: Cell<u64> = const { Cell::new(0) };
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
