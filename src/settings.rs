//! The settings `kongtask.*` of postgresql.conf. All but kongtask.max_databases, kongtask.max_tracked_tasks and
//! kongtask.max_limit_keys can be changed by a reload.

use crate::pg::background;
use crate::pg::text::DbText;
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::time::Duration;

static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(16);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static WORKER_IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static WORKER_MAX_JOBS: GucSetting<i32> = GucSetting::<i32>::new(0);
static SCHEDULER_IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static JOB_EXPIRY: GucSetting<i32> = GucSetting::<i32>::new(4 * 3600);
static FORBIDDEN_FLAGS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static FORBIDDEN_FLAGS_FUNCTION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SHUTDOWN_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static MAX_TRACKED_TASKS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static MAX_LIMIT_KEYS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static LOG_MIN_DURATION: GucSetting<i32> = GucSetting::<i32>::new(-1);
static SYNCHRONOUS_COMMIT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Defines the settings. To be called once, when the library is loaded.
pub fn define() {
    string(
        c"kongtask.databases",
        c"Sets the databases in which kongtask runs jobs.",
        c"A list separated by commas. * stands for every database that has the extension.",
        &DATABASES,
    );
    int(
        c"kongtask.workers",
        c"Sets the greatest number of kongtask worker processes of a database.",
        c"They are started as jobs need them. Workers that do not respond are not counted.",
        &WORKERS,
        (0, 1024),
        GucFlags::default(),
    );
    int(
        c"kongtask.max_workers",
        c"Sets the greatest number of kongtask worker processes of the whole server.",
        c"0 sets no limit but max_worker_processes.",
        &MAX_WORKERS,
        (0, 262_143),
        GucFlags::default(),
    );
    int(
        c"kongtask.worker_idle_timeout",
        c"Sets the time after which an idle kongtask worker process ends.",
        c"-1 keeps as many processes as kongtask.workers says, whether there are jobs or not.",
        &WORKER_IDLE_TIMEOUT,
        (-1, i32::MAX),
        GucFlags::UNIT_MS,
    );
    int(
        c"kongtask.worker_max_jobs",
        c"Sets the number of jobs after which a kongtask worker process ends and another takes its place.",
        c"It limits the memory that a process may gather, such as what it remembers of the tables that handlers use. 0 sets no limit.",
        &WORKER_MAX_JOBS,
        (0, i32::MAX),
        GucFlags::default(),
    );
    int(
        c"kongtask.scheduler_idle_timeout",
        c"Sets the time after which the kongtask scheduler process of a database that has nothing to do ends.",
        c"The launcher starts it again for a commit, or when a job or schedule is due. -1 keeps it unless another database needs its slot.",
        &SCHEDULER_IDLE_TIMEOUT,
        (-1, i32::MAX),
        GucFlags::UNIT_MS,
    );
    int(
        c"kongtask.poll_interval",
        c"Sets the time between searches for jobs that no wake-up announced.",
        c"The searches are a safety net: a commit that adds jobs wakes workers at once.",
        &POLL_INTERVAL,
        (100, 3_600_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"kongtask.job_expiry",
        c"Sets the age at which the claim of an external worker is void.",
        c"Jobs that kongtask workers run are never taken from them, however long they run.",
        &JOB_EXPIRY,
        (1, 365 * 24 * 3600),
        GucFlags::UNIT_S,
    );
    string(
        c"kongtask.forbidden_flags",
        c"Sets the flags of jobs that kongtask leaves alone.",
        c"A list separated by commas. A job that has any of these flags is not run by kongtask workers.",
        &FORBIDDEN_FLAGS,
    );
    string(
        c"kongtask.forbidden_flags_function",
        c"Sets a function that returns further flags of jobs that kongtask leaves alone.",
        c"Write it as schema.function(). It returns text[]. Each worker calls it as its role, at most once a second. While it fails, no job runs.",
        &FORBIDDEN_FLAGS_FUNCTION,
    );
    int(
        c"kongtask.shutdown_timeout",
        c"Sets the time that running jobs have to finish when workers are to stop.",
        c"After that they are interrupted and rolled back. They run again later, and the attempt is not counted.",
        &SHUTDOWN_TIMEOUT,
        (0, 3_600_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"kongtask.log_min_duration",
        c"Sets the duration from which a run of a job is logged.",
        c"The line has the time that the job ran and the time that it waited. -1 logs none, 0 logs all.",
        &LOG_MIN_DURATION,
        (-1, i32::MAX),
        GucFlags::UNIT_MS,
    );
    at_start(
        c"kongtask.max_databases",
        c"Sets the number of databases that kongtask can serve.",
        c"Databases without the extension do not count. Each takes half a kilobyte of shared memory.",
        &MAX_DATABASES,
        (1, 100_000),
    );
    at_start(
        c"kongtask.max_tracked_tasks",
        c"Sets the number of tasks, of all databases, that have counters of their own.",
        c"Further tasks are counted together. Each takes one and a half kilobytes of shared memory.",
        &MAX_TRACKED_TASKS,
        (1, 100_000),
    );
    at_start(
        c"kongtask.max_limit_keys",
        c"Sets the number of limits and keys of limits, of all databases, that can be remembered at once.",
        c"A limit that has no room, or a rate, takes one for each key. Each takes 80 bytes of shared memory.",
        &MAX_LIMIT_KEYS,
        (1, 10_000_000),
    );
    // SAFETY: the hook is guarded, and only reads the new value.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"kongtask.synchronous_commit",
            c"Sets synchronous_commit for the transactions of kongtask workers.",
            c"An empty string stands for the server's setting.",
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

/// Defines a setting that sizes shared memory.
fn at_start(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<i32>,
    range: (i32, i32),
) {
    // Postgres refuses such a setting in a library that is loaded later, where it has no effect.
    let context = if background::is_preloading() { GucContext::Postmaster } else { GucContext::Sighup };
    GucRegistry::define_int_guc(name, short, long, setting, range.0, range.1, context, GucFlags::default());
}

fn int(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<i32>,
    range: (i32, i32),
    unit: GucFlags,
) {
    GucRegistry::define_int_guc(name, short, long, setting, range.0, range.1, GucContext::Sighup, unit);
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
    let is_known = SYNCHRONOUS_COMMIT_VALUES.contains(&value);
    if !is_known {
        const HINT: &CStr =
            c"Use on, off, local, remote_write, remote_apply, or an empty string for the server's setting.";
        // SAFETY: Postgres resets the hint before the check, and only reads it, before this library is gone.
        unsafe { pg_sys::GUC_check_errhint_string = HINT.as_ptr().cast_mut() };
    }
    is_known
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

/// The names in kongtask.databases.
pub struct ServedNames {
    all: bool,
    names: HashSet<Vec<u8>>,
}

impl ServedNames {
    pub fn read() -> ServedNames {
        let names: HashSet<Vec<u8>> = list(&DATABASES).iter().map(|name| name.as_bytes().to_vec()).collect();
        ServedNames { all: names.contains(&b"*"[..]), names }
    }

    /// Returns true if a database of this name is served.
    pub fn include(&self, database: &DbText) -> bool {
        self.all || self.names.contains(database.as_bytes())
    }
}

/// Returns true if a database of this name is served.
pub fn serves(database: &DbText) -> bool {
    ServedNames::read().include(database)
}

pub fn workers() -> usize {
    usize::try_from(WORKERS.get()).unwrap_or(0)
}

/// Returns how many workers the server may have; `None` if only its slots limit them.
pub fn max_workers() -> Option<usize> {
    usize::try_from(MAX_WORKERS.get()).ok().filter(|&most| most > 0)
}

/// Returns how long an idle worker stays; `None` if it stays for ever.
pub fn worker_idle_timeout() -> Option<Duration> {
    u64::try_from(WORKER_IDLE_TIMEOUT.get()).ok().map(Duration::from_millis)
}

/// Returns after how many jobs a worker ends; `None` if that does not matter.
pub fn worker_max_jobs() -> Option<u64> {
    u64::try_from(WORKER_MAX_JOBS.get()).ok().filter(|&most| most > 0)
}

/// Returns how long a scheduler without anything to do stays; `None` if it stays for ever.
pub fn scheduler_idle_timeout() -> Option<Duration> {
    u64::try_from(SCHEDULER_IDLE_TIMEOUT.get()).ok().map(Duration::from_millis)
}

/// Returns how many databases can be served.
pub fn max_databases() -> usize {
    usize::try_from(MAX_DATABASES.get()).unwrap_or(1)
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

/// Returns how many tasks have counters of their own.
pub fn max_tracked_tasks() -> usize {
    usize::try_from(MAX_TRACKED_TASKS.get()).unwrap_or(1)
}

/// Returns how many limits and keys of limits can be remembered at once.
pub fn max_limit_keys() -> usize {
    usize::try_from(MAX_LIMIT_KEYS.get()).unwrap_or(1)
}

/// Returns the duration from which a run of a job is logged.
pub fn log_min_duration() -> Option<Duration> {
    u64::try_from(LOG_MIN_DURATION.get()).ok().map(Duration::from_millis)
}

/// Returns the value of synchronous_commit for workers' transactions, if one is set.
pub fn synchronous_commit() -> Option<CString> {
    SYNCHRONOUS_COMMIT.get().filter(|value| !value.is_empty())
}
