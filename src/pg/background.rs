//! Background workers: registering, connecting, exiting, and their entries in pg_stat_activity. Not pgrx's
//! BackgroundWorkerBuilder, whose guard replaces the SQLSTATE of an error, and which cannot connect as a role by OID.

use super::catch::{Failure, Level, log_with};
use super::function::guarded;
use super::text::{AsText, DbText};
use super::{latch, version};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::time::Duration;

const LIBRARY: &str = "kongtask";

/// Defines `$symbol` as the C function with which a background worker begins. It calls a Rust function with the
/// worker's argument. When that returns, the process ends, and an error that it returned is logged.
macro_rules! main_function {
    ($symbol:ident, $function:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C-unwind" fn $symbol(argument: ::pgrx::pg_sys::Datum) {
                // SAFETY: Postgres calls this with nothing of ours on the stack.
                unsafe { $crate::pg::background::enter(argument, $function) }
            }
        };
    };
}
pub(crate) use main_function;

/// Runs the main function of a background worker.
///
/// # Safety
/// Called by Postgres, in a fresh background worker.
pub unsafe fn enter<E: Into<Failure>>(argument: Datum, main: fn(usize) -> Result<(), E>) {
    if let Err(failure) = guarded(|| main(argument.value()).map_err(Into::into)) {
        // SAFETY: nothing is left to drop but the failure itself. Postgres logs it and ends the process with status 1.
        unsafe { failure.raise() }
    }
}

/// Registers the worker that starts with the server once recovery is over, and is restarted a second after a crash.
pub fn register_static(name: &str, function: &str) {
    BackgroundWorkerBuilder::new(name)
        .set_type(name)
        .set_library(LIBRARY)
        .set_function(function)
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_shmem_access(None)
        .enable_spi_access()
        .load();
}

/// A background worker that was requested.
pub struct Started(*mut pg_sys::BackgroundWorkerHandle);

/// The state of a background worker that was requested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    NotYetStarted,
    Running,
    Gone,
}

impl Started {
    pub fn fate(&self) -> Fate {
        let mut pid = 0;
        // SAFETY: the handle is RegisterDynamicBackgroundWorker's.
        match unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) } {
            pg_sys::BgwHandleStatus::BGWH_STARTED => Fate::Running,
            pg_sys::BgwHandleStatus::BGWH_NOT_YET_STARTED => Fate::NotYetStarted,
            _ => Fate::Gone,
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SAFETY: palloc'd by RegisterDynamicBackgroundWorker, in a context that lives as long as the process.
        unsafe { pg_sys::pfree(self.0.cast()) }
    }
}

/// Starts a worker that is not restarted when it ends. If `is_followed`, the postmaster wakes this process when the worker
/// starts and when it ends. Returns `None` if all slots (max_worker_processes) are in use.
pub fn start(kind: &str, title: &str, function: &str, argument: usize, is_followed: bool) -> Option<Started> {
    // SAFETY: a zeroed BackgroundWorker, filled as the documentation says; the handle goes to TopMemoryContext, as it
    // outlives transactions.
    unsafe {
        let mut worker = Box::new(std::mem::zeroed::<pg_sys::BackgroundWorker>());
        fill(&mut worker.bgw_name, title);
        fill(&mut worker.bgw_type, kind);
        fill(&mut worker.bgw_library_name, LIBRARY);
        fill(&mut worker.bgw_function_name, function);
        worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int;
        worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
        worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
        worker.bgw_notify_pid = if is_followed { pg_sys::MyProcPid } else { 0 };
        worker.bgw_main_arg = Datum::from(argument);
        let former = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let mut handle = std::ptr::null_mut();
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(former);
        registered.then(|| Started(handle))
    }
}

/// Leaves room beside the names of databases.
fn fill(field: &mut [std::ffi::c_char], text: &str) {
    let last = field.len() - 1;
    for (to, from) in field[..last].iter_mut().zip(text.encoded().iter()) {
        *to = *from as std::ffi::c_char;
    }
}

/// Connects to the shared catalogs only.
pub fn connect_to_no_database() {
    // SAFETY: called once, at the start of a background worker.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) }
    connected();
}

/// Connects to a database as the bootstrap superuser.
pub fn connect_as_server(database: Oid) {
    // SAFETY: as above.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) }
    connected();
}

/// Logs in to a database as a role. The session has that role's privileges and cannot get others.
pub fn connect_as_role(database: Oid, role: Oid) {
    assert!(role != pg_sys::InvalidOid, "an invalid role would mean the bootstrap superuser");
    // SAFETY: as above.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role, version::CONNECT_FLAGS) }
    connected();
}

/// A process begins with the settings that the postmaster had when it forked. A reload before it had a SIGHUP handler
/// has passed it by: Postgres starts background workers with that signal ignored.
fn connected() {
    latch::reload_if_asked();
    take_time();
}

/// Removes the time limits of sessions that the server, the database or the role may set.
fn take_time() {
    for timeout in version::TIMEOUTS {
        set(timeout, c"0");
    }
}

/// Calls `f` with `argument` when this process exits, after its transaction was rolled back; not after a crash. To be
/// called before connecting.
pub fn at_exit(f: fn(usize), argument: usize) {
    unsafe extern "C-unwind" fn call(_: c_int, argument: Datum) {
        // SAFETY: what `at_exit` boxed; called once.
        let (f, argument) = *unsafe { Box::from_raw(argument.cast_mut_ptr::<(fn(usize), usize)>()) };
        f(argument);
    }
    let boxed = Box::into_raw(Box::new((f, argument)));
    // SAFETY: called once with what is boxed here.
    unsafe { pg_sys::on_shmem_exit(Some(call), Datum::from(boxed)) }
}

/// Calls `f` when this process ends in order. For the postmaster, as it lays out shared memory: that is not kept after a
/// crash.
pub fn at_orderly_exit(f: fn()) {
    thread_local! {
        static CALLED: Cell<Option<fn()>> = const { Cell::new(None) };
    }
    unsafe extern "C-unwind" fn call(code: c_int, _: Datum) {
        if let Some(f) = CALLED.take().filter(|_| code == 0) {
            f();
        }
    }
    CALLED.set(Some(f));
    // SAFETY: registered once for each time that shared memory is laid out; forked processes do not inherit it.
    unsafe { pg_sys::on_shmem_exit(Some(call), Datum::from(0)) }
}

/// Returns this process's pid.
pub fn pid() -> i32 {
    // SAFETY: reads a variable.
    unsafe { pg_sys::MyProcPid }
}

/// Returns the database that this process is connected to; invalid if to none.
pub fn database() -> Oid {
    // SAFETY: reads a variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// Sets application_name.
pub fn introduce_as(name: &(impl AsText + ?Sized)) {
    set(c"application_name", &DbText::from(name).c_string());
}

fn set(setting: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: as what a client asks for when it connects, which RESET goes back to.
    unsafe {
        pg_sys::SetConfigOption(
            setting.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_CLIENT,
        );
    }
}

/// Shows this process as running `query` in pg_stat_activity.
pub fn report_running(query: &(impl AsText + ?Sized)) {
    let query = DbText::from(query).c_string();
    // SAFETY: the text is copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, query.as_ptr()) }
}

/// Shows this process as idle. The last query stays, as it does for clients.
pub fn report_idle() {
    // SAFETY: no text.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()) }
}

/// Reports this process's table statistics, by which autovacuum acts. Postgres limits the rate unless `now`.
pub fn report_statistics(now: bool) {
    // SAFETY: outside a transaction.
    unsafe {
        pg_sys::pgstat_report_stat(now);
    }
}

/// Returns random bits from the server's cryptographic source.
pub fn random<const N: usize>() -> [u64; N] {
    let mut bits = [0u64; N];
    // SAFETY: fills exactly the array.
    let ok = unsafe { pg_sys::pg_strong_random(bits.as_mut_ptr().cast(), size_of_val(&bits)) };
    assert!(ok, "no randomness to be had");
    bits
}

/// A database that could be served.
pub struct Database {
    pub oid: Oid,
    /// Its name, in whatever encoding it was given.
    pub name: DbText,
}

/// Returns the databases that allow connections and are no templates. To be called within a transaction.
pub fn databases() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog: a worker connected to no database may read it, and SPI it may not use.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if form.datallowconn && !form.datistemplate {
                let name = DbText::of_c(CStr::from_ptr(form.datname.data.as_ptr()));
                found.push(Database { oid: form.oid, name });
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

/// Returns the name of a database; `None` if it was dropped. To be called within a transaction.
pub fn database_name(database: Oid) -> Option<DbText> {
    // SAFETY: a catalog look-up; the name is palloc'd.
    unsafe {
        let name = pg_sys::get_database_name(database);
        (!name.is_null()).then(|| DbText::of_c(CStr::from_ptr(name)))
    }
}

/// Returns the name of a role, or its OID if it was dropped. To be called outside a transaction.
pub fn role_name(role: Oid) -> DbText {
    super::xact::begin();
    let name = super::role::name(role).unwrap_or_else(|| role.to_u32().to_string().into());
    // The transaction only read.
    super::xact::abort();
    name
}

/// Returns true while the server is a standby, or recovers.
pub fn is_standby() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Returns true while the postmaster loads shared_preload_libraries, but not for pg_upgrade.
pub fn is_preloading() -> bool {
    // SAFETY: reads two variables.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

/// Logs that a database cannot be served, as too many are.
pub fn warn_of_no_entry(database: &DbText) {
    log_with(
        Level::Warning,
        format!("kongtask cannot serve database \"{database}\""),
        Some("As many databases are served as kongtask.max_databases allows.".into()),
        Some("Increase kongtask.max_databases, which needs a restart, or list the databases to serve in kongtask.databases.".into()),
    );
}

/// Logs that the server has no slot for another background worker.
pub fn tell_of_no_slot(level: Level, message: &(impl AsText + ?Sized)) {
    log_with(
        level,
        message,
        Some("All slots for background workers are in use.".into()),
        Some("Increase max_worker_processes, which needs a restart, or decrease kongtask.workers.".into()),
    );
}
