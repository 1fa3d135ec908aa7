//! Differences between the versions of Postgres.

use pgrx::pg_sys;

/// True if a background worker cannot log in as a role that has no LOGIN.
pub const WORKER_NEEDS_LOGIN: bool = cfg!(any(feature = "pg15", feature = "pg16"));

/// The flags with which a background worker connects: none before 17, and since then the one that lets NOLOGIN roles
/// in.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub const CONNECT_FLAGS: u32 = 0;
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const CONNECT_FLAGS: u32 = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;

/// The settings that would end a background worker's session for the time that it takes.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub const TIMEOUTS: &[&std::ffi::CStr] = &[];
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const TIMEOUTS: &[&std::ffi::CStr] = &[c"transaction_timeout"];

/// Returns true if `role` owns the database.
pub fn owns_database(database: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role);
    }
}

/// Returns true if `role` owns the extension.
pub fn owns_extension(extension: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_extension_ownercheck(extension, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::ExtensionRelationId, extension, role);
    }
}

/// Returns true if `role` may connect to the database.
pub fn may_connect(database: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let right = pg_sys::ACL_CONNECT as pg_sys::AclMode;
    // SAFETY: a catalog look-up, within a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        let answer = pg_sys::pg_database_aclcheck(database, role, right);
        #[cfg(not(feature = "pg15"))]
        let answer = pg_sys::object_aclcheck(pg_sys::DatabaseRelationId, database, role, right);
        answer == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Returns true if `role` may execute the function.
pub fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        let answer = pg_sys::pg_proc_aclcheck(function, role, pg_sys::ACL_EXECUTE as pg_sys::AclMode);
        #[cfg(not(feature = "pg15"))]
        let answer = pg_sys::object_aclcheck(
            pg_sys::ProcedureRelationId,
            function,
            role,
            pg_sys::ACL_EXECUTE as pg_sys::AclMode,
        );
        answer == pg_sys::AclResult::ACLCHECK_OK
    }
}

// Not pgrx's bindings: see `catch`. Since 17 it has an argument that limits it to synced slots.
unsafe extern "C-unwind" {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    fn ReplicationSlotCleanup();
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    fn ReplicationSlotCleanup(synced_only: bool);
}

/// Drops the temporary replication slots of this process.
pub(super) fn drop_temporary_replication_slots() {
    // SAFETY: as Postgres calls it after an error; it takes no more than locks for a moment.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        ReplicationSlotCleanup();
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        ReplicationSlotCleanup(false);
    }
}

// Not pgrx's bindings: see `catch`. 18 has no argument that says whether it is run once.
unsafe extern "C-unwind" {
    #[cfg(not(feature = "pg18"))]
    fn PortalRun(
        portal: pg_sys::Portal,
        count: std::ffi::c_long,
        is_top_level: bool,
        once: bool,
        to: *mut pg_sys::DestReceiver,
        other_to: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    ) -> bool;
    #[cfg(feature = "pg18")]
    fn PortalRun(
        portal: pg_sys::Portal,
        count: std::ffi::c_long,
        is_top_level: bool,
        to: *mut pg_sys::DestReceiver,
        other_to: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    ) -> bool;
}

/// Runs a portal to its end, at the top level, once.
///
/// # Safety
/// It raises by a jump, and needs a portal that has started.
pub(super) unsafe fn portal_run(portal: pg_sys::Portal, to: *mut pg_sys::DestReceiver) {
    const ALL: std::ffi::c_long = std::ffi::c_long::MAX;
    // SAFETY: the caller vouches for both.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        PortalRun(portal, ALL, true, true, to, to, std::ptr::null_mut());
        #[cfg(feature = "pg18")]
        PortalRun(portal, ALL, true, to, to, std::ptr::null_mut());
    }
}

/// Returns true if `role` may become `of` by SET ROLE.
pub fn may_become(role: pg_sys::Oid, of: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::is_member_of_role(role, of);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::member_can_set_role(role, of);
    }
}
