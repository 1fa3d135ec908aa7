//! Counters of what became of jobs, one row for each task of each database: what `kongtask.stat_tasks` shows.
//!
//! A session counts the jobs that it has added once they are committed. A worker counts what it has run after the
//! commit that settled it: once for a job, or once for a batch or a set. All counts are atomic numbers, and no lock is
//! taken for them. The board's lock guards the taking and freeing of rows.
//!
//! There are kongtask.max_tracked_tasks rows. A task that finds none free is counted in one row more, [`OTHERS`], which
//! all databases share.
//!
//! As the server's own statistics, they outlive a shutdown and not a crash: the postmaster writes them to a file as it
//! ends in order, and reads and deletes that file as it starts.

use super::BOARD_LOCK;
use crate::pg::background;
use crate::pg::catch::{Level, log_with};
use crate::pg::clock::{self, Timestamp};
use crate::pg::lock::Lock;
use crate::pg::text::DbText;
use crate::settings;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, fence};
use std::time::Duration;
use std::{fs, io, slice};

/// What the row of all tasks that have none of their own is called.
pub const OTHERS: &str = "<others>";

/// The number of buckets of a histogram. Bucket `n` has the times up to 2ⁿ eighths of a millisecond; the last, the rest.
pub const BUCKETS: usize = 24;

/// The upper bound of the first bucket, in microseconds.
const FIRST_BUCKET: u64 = 125;

const IDENTIFIER_WORDS: usize = 64;
const ERROR_WORDS: usize = 32;

/// What became of an attempt, or of a job.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// The job is completed.
    Succeeded,
    /// An attempt failed, for whatever reason.
    Failed,
    /// That was its last attempt: the job has failed for good.
    Discarded,
    /// The job was cancelled.
    Cancelled,
    /// Its handler put it off.
    Snoozed,
    /// The attempt failed because it took longer than its task allows.
    TimedOut,
    /// The process crashed or was killed while it ran the job.
    Crashed,
}

const OUTCOMES: usize = 7;

/// Times that have not been counted yet, in microseconds.
#[derive(Default, Clone, Copy)]
pub struct Tally {
    total: u64,
    range: Option<(u64, u64)>,
    squares: f64,
    buckets: [u32; BUCKETS],
    /// A bit for each bucket that has any.
    touched: u32,
}

impl Tally {
    pub fn add(&mut self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(time);
        self.range = Some(self.range.map_or((time, time), |(least, most)| (least.min(time), most.max(time))));
        self.squares += (time as f64) * (time as f64);
        let bucket = bucket(time);
        self.buckets[bucket] += 1;
        self.touched |= 1 << bucket;
    }
}

/// Returns the bucket of a time in microseconds.
fn bucket(time: u64) -> usize {
    let eighths = time.div_ceil(FIRST_BUCKET).max(1);
    // The first power of two that is not below.
    ((eighths - 1).checked_ilog2().map_or(0, |log| log + 1) as usize).min(BUCKETS - 1)
}

/// Returns the upper bound of a bucket in milliseconds.
pub fn bound(bucket: usize) -> f64 {
    if bucket + 1 == BUCKETS { f64::INFINITY } else { (FIRST_BUCKET << bucket) as f64 / 1e3 }
}

/// The jobs that a worker has run and not counted yet: how long they ran, and how long they had waited.
#[derive(Default, Clone, Copy)]
pub struct Account {
    pub run: Tally,
    pub wait: Tally,
    pub jobs: u64,
}

/// A sum of times, with what describes how they are distributed. The number of times is the sum of the buckets.
#[repr(C)]
struct Distribution {
    total: AtomicU64,
    /// `u64::MAX` before there is any.
    least: AtomicU64,
    most: AtomicU64,
    /// The sum of the squares: the bits of an f64.
    squares: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What a distribution says, in milliseconds.
pub struct Times {
    pub total: f64,
    pub least: f64,
    pub most: f64,
    pub mean: f64,
    pub stddev: f64,
    pub buckets: [u64; BUCKETS],
}

impl Distribution {
    fn add(&self, tally: &Tally) {
        let Some((least, most)) = tally.range else { return };
        self.total.fetch_add(tally.total, Relaxed);
        // Mostly neither changes.
        if least < self.least.load(Relaxed) {
            self.least.fetch_min(least, Relaxed);
        }
        if most > self.most.load(Relaxed) {
            self.most.fetch_max(most, Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + tally.squares).to_bits());
        self.squares.fetch_update(Relaxed, Relaxed, add).ok();
        let mut touched = tally.touched;
        while touched != 0 {
            let bucket = touched.trailing_zeros() as usize;
            self.buckets[bucket].fetch_add(u64::from(tally.buckets[bucket]), Relaxed);
            touched &= touched - 1;
        }
    }

    fn reset(&self) {
        self.total.store(0, Relaxed);
        self.least.store(u64::MAX, Relaxed);
        self.most.store(0, Relaxed);
        self.squares.store(0, Relaxed);
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }

    fn read(&self) -> Times {
        let buckets: [u64; BUCKETS] = std::array::from_fn(|at| self.buckets[at].load(Relaxed));
        let count = buckets.iter().sum::<u64>() as f64;
        let ms = |number: &AtomicU64| number.load(Relaxed) as f64 / 1e3;
        if count == 0.0 {
            return Times { total: 0.0, least: 0.0, most: 0.0, mean: 0.0, stddev: 0.0, buckets };
        }
        let mean = ms(&self.total) / count;
        let squares = f64::from_bits(self.squares.load(Relaxed)) / 1e6;
        // What was added between two loads, or rounded, must not make it negative.
        let variance = (squares / count - mean * mean).max(0.0);
        Times {
            total: ms(&self.total),
            least: ms(&self.least),
            most: ms(&self.most),
            mean,
            stddev: variance.sqrt(),
            buckets,
        }
    }
}

/// The counters of one task in one database. Every field is a word, so that a row is written to a file as it is.
#[repr(C)]
pub struct TaskCounters {
    /// 0 for [`OTHERS`]. Written under the board's lock before the row's key, as the identifier is.
    database: AtomicU64,
    /// In the encoding of the database, padded with zeros.
    identifier: [AtomicU64; IDENTIFIER_WORDS],
    /// Since when it counts, by the wall clock.
    since: AtomicI64,
    added: AtomicU64,
    outcomes: [AtomicU64; OUTCOMES],
    run: Distribution,
    wait: Distribution,
    /// By the wall clock; 0: never.
    last_success_at: AtomicI64,
    last_failure_at: AtomicI64,
    /// Odd while a process writes the error. One that finds it odd leaves its own error out: the other is as recent.
    error_version: AtomicU64,
    /// The beginning of the latest error, padded with zeros.
    error: [AtomicU64; ERROR_WORDS],
}

/// What a row says.
pub struct Counts {
    /// `None` for [`OTHERS`].
    pub task: Option<DbText>,
    pub added: u64,
    outcomes: [u64; OUTCOMES],
    pub run: Times,
    pub wait: Times,
    pub last_success_at: Option<Timestamp>,
    pub last_failure_at: Option<Timestamp>,
    pub last_error: Option<DbText>,
    pub since: Timestamp,
}

impl Counts {
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}

impl TaskCounters {
    /// Counts jobs that were added.
    pub fn added(&self, jobs: u64) {
        self.added.fetch_add(jobs, Relaxed);
    }

    /// Counts an outcome of so many jobs.
    pub fn count(&self, outcome: Outcome, jobs: u64) {
        self.outcomes[outcome as usize].fetch_add(jobs, Relaxed);
    }

    /// Counts jobs that were completed just now.
    pub fn succeeded(&self, account: &Account) {
        self.count(Outcome::Succeeded, account.jobs);
        self.ran(account);
        self.last_success_at.store(clock::now(), Relaxed);
    }

    /// Counts an attempt that failed just now.
    pub fn failed(&self, account: &Account, error: &DbText) {
        self.count(Outcome::Failed, account.jobs);
        self.ran(account);
        self.last_failure_at.store(clock::now(), Relaxed);
        self.note_error(error);
    }

    /// Counts the times of jobs, whatever became of them.
    pub fn ran(&self, account: &Account) {
        self.run.add(&account.run);
        self.wait.add(&account.wait);
    }

    fn note_error(&self, error: &DbText) {
        if self.database.load(Relaxed) == 0 {
            // All databases share the row, and their texts have more than one encoding.
            return;
        }
        let version = self.error_version.load(SeqCst);
        let is_mine = version.is_multiple_of(2)
            && self.error_version.compare_exchange(version, version + 1, SeqCst, SeqCst).is_ok();
        if !is_mine {
            return;
        }
        // Pairs with the fence in `last_error`: a reader that sees any of what follows sees the odd version.
        fence(SeqCst);
        let mut error = error.clone();
        error.clip(ERROR_WORDS * 8);
        store(&self.error, error.as_bytes());
        self.error_version.store(version + 2, SeqCst);
    }

    fn last_error(&self) -> Option<DbText> {
        for _ in 0..100 {
            let version = self.error_version.load(SeqCst);
            let error = load(&self.error);
            // Pairs with the fence in `note_error`.
            fence(SeqCst);
            if version.is_multiple_of(2) && self.error_version.load(SeqCst) == version {
                return (!error.is_empty()).then(|| DbText::new(&error));
            }
            std::hint::spin_loop();
        }
        None
    }

    fn is_of(&self, identifier: &DbText) -> bool {
        let bytes = identifier.as_bytes();
        let word = |at: usize| {
            let bytes = bytes.get(at * 8..).unwrap_or_default();
            u64::from_ne_bytes(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0)))
        };
        // The word behind the last one is compared too: it is zero where the identifier ends.
        (0..=bytes.len() / 8).take(IDENTIFIER_WORDS).all(|at| self.identifier[at].load(Relaxed) == word(at))
    }

    /// Starts counting anew.
    fn reset(&self) {
        self.added.store(0, Relaxed);
        self.outcomes.iter().for_each(|count| count.store(0, Relaxed));
        self.run.reset();
        self.wait.reset();
        self.last_success_at.store(0, Relaxed);
        self.last_failure_at.store(0, Relaxed);
        store(&self.error, &[]);
        self.since.store(clock::now(), Relaxed);
    }

    fn read(&self) -> Counts {
        let time = |time: &AtomicI64| Some(time.load(Relaxed)).filter(|&time| time != 0);
        Counts {
            task: (self.database.load(Relaxed) != 0).then(|| DbText::new(&load(&self.identifier))),
            added: self.added.load(Relaxed),
            outcomes: std::array::from_fn(|at| self.outcomes[at].load(Relaxed)),
            run: self.run.read(),
            wait: self.wait.read(),
            last_success_at: time(&self.last_success_at),
            last_failure_at: time(&self.last_failure_at),
            last_error: self.last_error(),
            since: self.since.load(Relaxed),
        }
    }
}

fn store(words: &[AtomicU64], bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    for word in words {
        word.store(u64::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0))), Relaxed);
    }
}

fn load(words: &[AtomicU64]) -> Vec<u8> {
    let bytes = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
    bytes.take_while(|&byte| byte != 0).collect()
}

/// The rows, behind which their keys lie.
#[repr(C)]
struct Header {
    capacity: AtomicUsize,
    /// No row from here on has ever been taken.
    used: AtomicUsize,
    /// How many rows before that are free.
    free: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Table(&'static Header);

thread_local! {
    static TABLE: Cell<Option<Table>> = const { Cell::new(None) };
}

/// Returns how much memory the counters take.
pub(super) fn size() -> usize {
    let rows = settings::max_tracked_tasks();
    size_of::<Header>() + (rows + 1) * size_of::<TaskCounters>() + rows * size_of::<AtomicU64>()
}

/// Takes over the memory of the counters. `is_new` if nothing is there yet: then the caller is the postmaster, and no
/// other process runs.
///
/// # Safety
/// It is as large as [`size`] says, zeroed if it is new, and lasts as long as the process.
pub(super) unsafe fn lay_out(memory: *mut u8, is_new: bool) {
    // SAFETY: as the caller says; every field is an atomic number, and any is valid.
    let table = Table(unsafe { &*memory.cast::<Header>() });
    TABLE.set(Some(table));
    if is_new {
        table.0.capacity.store(settings::max_tracked_tasks(), Relaxed);
        table.others().reset();
        table.load();
        background::at_orderly_exit(|| TABLE.get().into_iter().for_each(Table::save));
    }
}

impl Table {
    fn capacity(self) -> usize {
        self.0.capacity.load(Relaxed)
    }

    /// Returns all rows; the last is that of the others.
    fn rows(self) -> &'static [TaskCounters] {
        // SAFETY: laid out so, by `size`.
        unsafe { slice::from_raw_parts(std::ptr::from_ref(self.0).add(1).cast(), self.capacity() + 1) }
    }

    fn others(self) -> &'static TaskCounters {
        &self.rows()[self.capacity()]
    }

    /// Returns the keys of the rows: database and tag of the task; 0 for a free row.
    fn keys(self) -> &'static [AtomicU64] {
        let rows = self.rows();
        // SAFETY: laid out so, by `size`.
        unsafe { slice::from_raw_parts(rows.as_ptr().add(rows.len()).cast(), self.capacity()) }
    }

    fn find(self, key: u64, identifier: &DbText) -> Option<&'static TaskCounters> {
        let keys = &self.keys()[..self.0.used.load(Acquire)];
        let mut found = keys.iter().enumerate().filter(|(_, known)| known.load(Acquire) == key);
        found.find_map(|(at, _)| Some(&self.rows()[at]).filter(|row| row.is_of(identifier)))
    }

    /// Takes a row; `None` if none is free.
    fn take(self, database: Oid, key: u64, identifier: &DbText) -> Option<&'static TaskCounters> {
        let _lock = Lock::take(BOARD_LOCK);
        if let Some(row) = self.find(key, identifier) {
            return Some(row);
        }
        let (keys, used) = (self.keys(), self.0.used.load(Relaxed));
        let at = match keys[..used].iter().position(|key| key.load(Relaxed) == 0) {
            Some(free) => free,
            None if used < keys.len() => used,
            None => return None,
        };
        let row = &self.rows()[at];
        row.database.store(u64::from(database.to_u32()), Relaxed);
        store(&row.identifier, identifier.as_bytes());
        row.reset();
        // Last, as processes look for it without the lock.
        keys[at].store(key, Release);
        if at == used {
            self.0.used.store(used + 1, Release);
        } else {
            self.0.free.fetch_sub(1, SeqCst);
        }
        Some(row)
    }

    fn is_full(self) -> bool {
        self.0.free.load(SeqCst) == 0 && self.0.used.load(SeqCst) == self.capacity()
    }

    /// Returns the rows in use with their keys.
    fn taken(self) -> impl Iterator<Item = (&'static AtomicU64, &'static TaskCounters)> {
        let keys = self.keys()[..self.0.used.load(Acquire)].iter();
        keys.zip(self.rows()).filter(|(key, _)| key.load(Acquire) != 0)
    }

    fn of_database(self, database: Oid) -> impl Iterator<Item = &'static TaskCounters> {
        self.taken().map(|(_, row)| row).filter(move |row| row.database.load(Relaxed) == u64::from(database.to_u32()))
    }

    fn forget(self, is_gone: impl Fn(Oid) -> bool) {
        let database = |row: &TaskCounters| Oid::from(row.database.load(Relaxed) as u32);
        let gone: Vec<Oid> = self.taken().map(|(_, row)| database(row)).collect();
        let gone: Vec<Oid> = gone.into_iter().filter(|&oid| is_gone(oid)).collect();
        if gone.is_empty() {
            return;
        }
        let _lock = Lock::take(BOARD_LOCK);
        for (key, _) in self.taken().filter(|(_, row)| gone.contains(&database(row))) {
            key.store(0, Release);
            self.0.free.fetch_add(1, SeqCst);
        }
    }
}

/// Returns the counters of a task of a database, or those of the others; `None` where the library was not preloaded.
pub fn of(database: Oid, tag: u32, identifier: &DbText) -> Option<&'static TaskCounters> {
    let table = TABLE.get()?;
    let key = u64::from(database.to_u32()) << 32 | u64::from(tag);
    let found = table
        .find(key, identifier)
        .or_else(|| if table.is_full() { None } else { table.take(database, key, identifier) });
    Some(found.unwrap_or_else(|| table.others()))
}

/// Returns what is counted in a database, and what is counted of tasks that have no row of their own, if there are any.
pub fn all_of(database: Oid) -> Vec<Counts> {
    let Some(table) = TABLE.get() else { return Vec::new() };
    let others = Some(table.others()).filter(|_| table.is_full());
    table.of_database(database).chain(others).map(TaskCounters::read).collect()
}

/// Starts counting anew: one task of a database, or all that is counted there, [`OTHERS`] included.
pub fn reset(database: Oid, task: Option<&DbText>) {
    let Some(table) = TABLE.get() else { return };
    match task {
        Some(task) if *task == *OTHERS => table.others().reset(),
        Some(task) => table.of_database(database).filter(|row| row.is_of(task)).for_each(TaskCounters::reset),
        None => table.of_database(database).chain([table.others()]).for_each(TaskCounters::reset),
    }
}

/// Frees the rows of databases that are gone, or have no extension: no process counts anything there.
pub fn forget(is_gone: impl Fn(Oid) -> bool) {
    if let Some(table) = TABLE.get() {
        table.forget(is_gone);
    }
}

/// How many jobs are completed in a second: counts of the latest seconds.
#[derive(Default)]
pub struct Rate([AtomicU64; SECONDS]);

/// More than are averaged, as the current one is incomplete.
const SECONDS: usize = 16;
const AVERAGED: i64 = 10;

impl Rate {
    pub fn add(&self, jobs: u64) {
        let second = clock::tick() / 1_000_000;
        // A word has the second and its count, so that the first count of a second replaces an old one.
        let add =
            |word: u64| Some(if word >> 32 == second as u64 { word + jobs } else { (second as u64) << 32 | jobs });
        self.0[second as usize % SECONDS].fetch_update(Relaxed, Relaxed, add).ok();
    }

    /// Returns how many jobs were completed in each of the latest ten seconds, on average.
    pub fn per_second(&self) -> f64 {
        let now = clock::tick() / 1_000_000;
        let words = self.0.iter().map(|word| word.load(Relaxed));
        let latest = words.filter(|word| (now - AVERAGED..now).contains(&((word >> 32) as i64)));
        latest.map(|word| word & 0xffff_ffff).sum::<u64>() as f64 / AVERAGED as f64
    }

    pub(super) fn reset(&self) {
        self.0.iter().for_each(|word| word.store(0, Relaxed));
    }
}

/// With the server's own statistics.
const FILE: &str = "pg_stat/kongtask.stat";

/// The number of the file's layout: a file with another number, or with rows of another size, is not read.
const LAYOUT: u64 = 0x6b6f_6e67_0000_0001;

const ROW_WORDS: usize = size_of::<TaskCounters>() / size_of::<u64>();

impl Table {
    fn save(self) {
        let rows: Vec<&[AtomicU64]> =
            self.taken().map(|(key, row)| (key, words(row))).fold(Vec::new(), |mut all, row| {
                all.extend([slice::from_ref(row.0), row.1]);
                all
            });
        let header = [LAYOUT, ROW_WORDS as u64].map(u64::to_ne_bytes).into_iter().flatten();
        let all = rows.into_iter().chain([words(self.others())]).flatten();
        let bytes: Vec<u8> = header.chain(all.flat_map(|word| word.load(Relaxed).to_ne_bytes())).collect();
        if let Err(error) = fs::write(FILE, bytes) {
            warn("cannot keep", &error);
        }
    }

    /// Reads what was saved, if the server has ended in order. What follows a crash starts from zero.
    fn load(self) {
        let read = fs::read(FILE).and_then(|bytes| fs::remove_file(FILE).map(|()| bytes));
        let bytes = match read {
            Ok(bytes) if has_ended_in_order() => bytes,
            // An immediate stop writes the file too.
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return warn("cannot read", &error),
        };
        let (all, _) = bytes.as_chunks::<8>();
        let all: Vec<u64> = all.iter().map(|&word| u64::from_ne_bytes(word)).collect();
        let [LAYOUT, size, rows @ ..] = &all[..] else { return };
        let others = rows.len() % (ROW_WORDS + 1) == ROW_WORDS;
        if *size != ROW_WORDS as u64 || !others {
            return;
        }
        let (rows, others) = rows.split_at(rows.len() - ROW_WORDS);
        let fill = |row: &TaskCounters, from: &[u64]| {
            words(row).iter().zip(from).for_each(|(to, &from)| to.store(from, Relaxed));
        };
        fill(self.others(), others);
        // Where kongtask.max_tracked_tasks was lowered, the last ones are left out.
        for (at, saved) in rows.chunks(ROW_WORDS + 1).take(self.capacity()).enumerate() {
            fill(&self.rows()[at], &saved[1..]);
            self.keys()[at].store(saved[0], Relaxed);
            self.0.used.store(at + 1, Relaxed);
        }
    }
}

/// Returns true if the server was shut down, and has nothing to recover. For the postmaster, before it starts.
fn has_ended_in_order() -> bool {
    /// Where the state is in the control file, of every version; and the states after a shutdown: DB_SHUTDOWNED and
    /// DB_SHUTDOWNED_IN_RECOVERY.
    const STATE: std::ops::Range<usize> = 16..20;
    const SHUT_DOWN: std::ops::RangeInclusive<u32> = 1..=2;
    let control = fs::read("global/pg_control").unwrap_or_default();
    let state = control.get(STATE).and_then(|state| state.try_into().ok()).map(u32::from_ne_bytes);
    state.is_some_and(|state| SHUT_DOWN.contains(&state))
}

/// Returns a row as words.
fn words(row: &TaskCounters) -> &[AtomicU64] {
    // SAFETY: every field is an atomic number of 64 bits, so the row is an array of them.
    unsafe { slice::from_raw_parts(std::ptr::from_ref(row).cast(), ROW_WORDS) }
}

fn warn(what: &str, error: &io::Error) {
    log_with(Level::Warning, format!("kongtask {what} its counters"), Some(format!("{FILE}: {error}")), None);
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, bound, bucket};

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for time in [0, 1, 124, 125, 126, 249, 250, 251, 1_000, 1_001, 999_999, 1 << 40] {
            let expected = (0..BUCKETS).find(|&at| time as f64 / 1e3 <= bound(at));
            assert_eq!(Some(bucket(time)), expected, "{time}");
        }
    }
}
