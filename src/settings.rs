//! The settings `kongtask.*` of postgresql.conf. All of them can be changed by a reload.

use crate::pg::text::DbText;
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};
use std::time::Duration;

static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static JOB_EXPIRY: GucSetting<i32> = GucSetting::<i32>::new(4 * 3600);
static FORBIDDEN_FLAGS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static FORBIDDEN_FLAGS_FUNCTION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SHUTDOWN_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static SYNCHRONOUS_COMMIT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Defines the settings. To be called once, when the library is loaded.
pub fn define() {
    const NONE: &CStr = c"";
    string(
        c"kongtask.databases",
        c"Databases whose jobs are run, separated by commas; * is every database that has the extension.",
        NONE,
        &DATABASES,
    );
    int(c"kongtask.workers", c"Worker processes per database.", &WORKERS, (0, 1024), GucFlags::default());
    int(
        c"kongtask.poll_interval",
        c"How often to look for jobs that no wake-up told of: a safety net.",
        &POLL_INTERVAL,
        (100, 3_600_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"kongtask.job_expiry",
        c"When the lock of an external worker is taken to be dead.",
        &JOB_EXPIRY,
        (1, 365 * 24 * 3600),
        GucFlags::UNIT_S,
    );
    string(
        c"kongtask.forbidden_flags",
        c"Flags, separated by commas: jobs that have any of them are not run here.",
        NONE,
        &FORBIDDEN_FLAGS,
    );
    string(
        c"kongtask.forbidden_flags_function",
        c"A function schema.function() that returns text[]: more such flags.",
        c"Each worker calls it as its role, at most once a second. While it fails, no job is run.",
        &FORBIDDEN_FLAGS_FUNCTION,
    );
    int(
        c"kongtask.shutdown_timeout",
        c"How long a running job may go on after a stop is asked.",
        &SHUTDOWN_TIMEOUT,
        (0, 3_600_000),
        GucFlags::UNIT_MS,
    );
    // SAFETY: the hook is guarded, and only reads the new value.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"kongtask.synchronous_commit",
            c"synchronous_commit of the workers' transactions; empty is the server's.",
            NONE,
            &SYNCHRONOUS_COMMIT,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_synchronous_commit),
            None,
            None,
        );
        pg_sys::MarkGUCPrefixReserved(c"kongtask".as_ptr());
    }
}

fn string(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
) {
    GucRegistry::define_string_guc(name, short, long, setting, GucContext::Sighup, GucFlags::default());
}

fn int(
    name: &'static CStr,
    short: &'static CStr,
    setting: &'static GucSetting<i32>,
    range: (i32, i32),
    unit: GucFlags,
) {
    GucRegistry::define_int_guc(name, short, c"", setting, range.0, range.1, GucContext::Sighup, unit);
}

const SYNCHRONOUS_COMMIT_VALUES: [&CStr; 6] = [c"", c"on", c"off", c"local", c"remote_write", c"remote_apply"];

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_synchronous_commit(
    value: *mut *mut std::ffi::c_char,
    _extra: *mut *mut std::ffi::c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres passes a valid string.
    let value = unsafe { CStr::from_ptr(*value) };
    SYNCHRONOUS_COMMIT_VALUES.contains(&value)
}

/// Returns the elements of a list as bytes, as postgresql.conf has no known encoding.
fn list(setting: &GucSetting<Option<CString>>) -> Vec<DbText> {
    let elements = text(setting);
    let elements = elements.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty()).map(DbText::new).collect()
}

fn text(setting: &GucSetting<Option<CString>>) -> Vec<u8> {
    setting.get().map(CString::into_bytes).unwrap_or_default()
}

/// Returns true if a database of this name is served.
pub fn serves(database: &DbText) -> bool {
    list(&DATABASES).iter().any(|name| *name == *"*" || name == database)
}

pub fn workers() -> usize {
    usize::try_from(WORKERS.get()).unwrap_or(0)
}

pub fn poll_interval() -> Duration {
    milliseconds(&POLL_INTERVAL)
}

pub fn job_expiry() -> Duration {
    Duration::from_secs(u64::try_from(JOB_EXPIRY.get()).unwrap_or(0))
}

pub fn shutdown_timeout() -> Duration {
    milliseconds(&SHUTDOWN_TIMEOUT)
}

fn milliseconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(u64::try_from(setting.get()).unwrap_or(0))
}

pub fn forbidden_flags() -> Vec<DbText> {
    list(&FORBIDDEN_FLAGS)
}

pub fn forbidden_flags_function() -> Option<DbText> {
    Some(DbText::new(text(&FORBIDDEN_FLAGS_FUNCTION).trim_ascii())).filter(|name| !name.is_empty())
}

/// Returns the value of synchronous_commit for workers' transactions, if one is set.
pub fn synchronous_commit() -> Option<CString> {
    SYNCHRONOUS_COMMIT.get().filter(|value| !value.is_empty())
}
