//! Records of what each worker runs, which outlive a crash of the server. The job that caused the crash left no other
//! trace, as its transaction is gone; without a record it would run again, and take the server down for ever.
//!
//! ```text
//! a worker takes jobs ──► record ──► they are settled ──► no record
//!                           │
//!                           ├─ its process ends in any orderly way: no record
//!                           ├─ another process has crashed, and the postmaster has it quit: no record
//!                           └─ its process crashes, or is killed ──► the record is left
//!                                          │ the postmaster starts over
//!                                          ▼
//!                                        a charge ──► the database's scheduler settles it ──► no charge
//! ```
//!
//! While a job has a charge, workers pass it over: it could crash the server again before the first crash is counted.
//!
//! The records are in a file of the data directory that is mapped, never read or written: a worker changes a few words.
//!
//! Who owns what:
//!
//! - A record belongs to the worker in the slot of the same number, which writes `state` last when it sets the record. It is read
//!   by no other process while the server runs; after a crash the postmaster makes a charge of it, before it starts any process.
//! - A charge belongs to the scheduler of its database once that is started. Workers read it: they pass over a charged job.
//! - A suspect is written and read by whichever scheduler and workers come: if two schedulers overwrite each other's, jobs of one
//!   task share calls again, and the next crash suspects it again.

use crate::pg::catch::{Level, log_with};
use crate::pg::clock::{self, Timestamp, after};
use crate::pg::latch;
use crate::shared::TakenRange;
use memmap2::MmapOptions;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use std::time::Duration;

/// Beside what Postgres keeps there for the time that it runs: base backups leave that folder out.
const FILE: &str = "pg_stat_tmp/kongtask.running";

/// The number of this layout of the file: a file with another number is emptied.
const LAYOUT: u64 = 0x6b6f_6e67_0000_0003;

#[repr(C)]
struct FileHeader {
    layout: AtomicU64,
    capacity: AtomicU64,
    /// How many charges there are, of all databases: written by the postmaster, and by the scheduler that settles one.
    charges: AtomicU64,
    suspects: [Suspect; SUSPECTS],
}

/// What one worker runs.
#[repr(C)]
pub struct CrashRecord {
    state: AtomicU32,
    database: AtomicU32,
    /// The task's tag.
    task: AtomicU32,
    /// The job that runs; 0: any of them.
    job: AtomicI64,
}

const NONE: u32 = 0;
const RUNS: u32 = 1;
const CRASHED: u32 = 2;

/// A task whose jobs crashed the server while many shared a call.
#[repr(C)]
struct Suspect {
    database: AtomicU32,
    task: AtomicU32,
    until: AtomicI64,
}

const SUSPECTS: usize = 16;

/// What a worker was running when its process crashed or was killed.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub task: u32,
    /// `None`: any of many.
    pub job: Option<i64>,
    /// True if the process crashed by itself, as far as its signal tells; false if it was killed.
    pub crashed: bool,
}

/// The records of all workers, and behind them as many charges.
#[derive(Clone, Copy)]
struct CrashRecords(&'static FileHeader);

thread_local! {
    static RECORDS: Cell<Option<CrashRecords>> = const { Cell::new(None) };
}

/// Maps a file, which is made or made as long. The mapping lasts as long as the process, and its children inherit it.
pub(super) fn map(file: &str, size: usize) -> std::io::Result<*mut u8> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file)?;
    file.set_len(size as u64)?;
    // SAFETY: only this server changes the file, and through this mapping.
    let mapping = unsafe { MmapOptions::new().len(size).map_mut(&file)? };
    Ok(Box::leak(Box::new(mapping)).as_mut_ptr())
}

/// Maps the records. To be called once, by the postmaster, in its data directory.
pub fn prepare(capacity: usize) {
    let size = size_of::<FileHeader>() + 2 * capacity * size_of::<CrashRecord>();
    let memory = match map(FILE, size) {
        Ok(memory) => memory,
        Err(error) => {
            let detail = format!("{FILE}: {error}");
            log_with(Level::Warning, "kongtask cannot tell which jobs crash the server", Some(detail), None);
            return;
        }
    };
    // SAFETY: as large as that, for the life of the process; every field is an atomic number.
    let header = unsafe { &*memory.cast::<FileHeader>() };
    let capacity = capacity as u64;
    if header.layout.load(SeqCst) != LAYOUT || header.capacity.load(SeqCst) != capacity {
        // SAFETY: no other process has mapped it yet.
        unsafe { memory.write_bytes(0, size) };
        header.layout.store(LAYOUT, SeqCst);
        header.capacity.store(capacity, SeqCst);
    }
    RECORDS.set(Some(CrashRecords(header)));
}

impl CrashRecords {
    fn capacity(&self) -> usize {
        self.0.capacity.load(SeqCst) as usize
    }

    fn all(&self) -> &'static [CrashRecord] {
        // SAFETY: laid out so in `prepare`.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self.0).add(1).cast(), 2 * self.capacity()) }
    }

    fn records(&self) -> &'static [CrashRecord] {
        &self.all()[..self.capacity()]
    }

    fn charges(&self) -> &'static [CrashRecord] {
        &self.all()[self.capacity()..]
    }
}

/// Makes charges of the records that were left. To be called by the postmaster, before it starts any process.
pub fn collect_after_restart() {
    let Some(records) = RECORDS.get() else { return };
    for record in records.records().iter().filter(|record| record.state.load(SeqCst) != NONE) {
        let free = records.charges().iter().find(|charge| charge.state.load(SeqCst) == NONE);
        if let Some(charge) = free {
            charge.database.store(record.database.load(SeqCst), SeqCst);
            charge.task.store(record.task.load(SeqCst), SeqCst);
            charge.job.store(record.job.load(SeqCst), SeqCst);
            charge.state.store(record.state.load(SeqCst), SeqCst);
        }
        record.state.store(NONE, SeqCst);
    }
    let charges = records.charges().iter().filter(|charge| charge.state.load(SeqCst) != NONE).count();
    records.0.charges.store(charges as u64, SeqCst);
}

/// Returns true if a job has a charge that is not settled yet.
pub fn is_charged(database: Oid, job: i64) -> bool {
    let Some(records) = RECORDS.get().filter(|records| records.0.charges.load(SeqCst) > 0) else { return false };
    let is_its = |charge: &CrashRecord| {
        charge.state.load(SeqCst) != NONE
            && charge.database.load(SeqCst) == database.to_u32()
            && charge.job.load(SeqCst) == job
    };
    records.charges().iter().any(is_its)
}

/// Returns the databases that have charges.
pub fn charged_databases() -> HashSet<Oid> {
    let charges = RECORDS.get().map(|records| records.charges()).unwrap_or_default();
    let charges = charges.iter().filter(|charge| charge.state.load(SeqCst) != NONE);
    charges.map(|charge| Oid::from(charge.database.load(SeqCst))).collect()
}

/// Returns the record of the worker in a slot.
pub fn of(slot: usize) -> Option<&'static CrashRecord> {
    RECORDS.get().map(|records| &records.records()[slot])
}

/// Returns the record of this process, the worker in a slot. From here on its signal handlers note there how it ends.
pub fn mine(slot: usize) -> Option<&'static CrashRecord> {
    let record = of(slot)?;
    latch::tell_how_it_ends(&record.state, CRASHED, NONE);
    Some(record)
}

impl CrashRecord {
    /// Records that jobs of a task are about to be taken.
    pub fn set(&self, database: Oid, task: u32, held: &TakenRange, count: usize) {
        self.database.store(database.to_u32(), SeqCst);
        self.task.store(task, SeqCst);
        self.job.store(if count == 1 { held.ids.0 } else { 0 }, SeqCst);
        self.state.store(RUNS, SeqCst);
    }

    /// Records which of them runs.
    pub fn run(&self, job: i64) {
        self.job.store(job, SeqCst);
    }

    /// Clears the record: all jobs are settled, or will be without this process.
    pub fn clear(&self) {
        self.state.store(NONE, SeqCst);
    }
}

/// Hands each charge of a database to `f`, and forgets those that `f` has settled. Returns true if none is left.
pub fn settle<E>(database: Oid, mut f: impl FnMut(Charge) -> Result<bool, E>) -> Result<bool, E> {
    let Some(records) = RECORDS.get() else { return Ok(true) };
    let mut all = true;
    for charge in records.charges() {
        let state = charge.state.load(SeqCst);
        if state == NONE || charge.database.load(SeqCst) != database.to_u32() {
            continue;
        }
        let job = charge.job.load(SeqCst);
        let settled =
            f(Charge { task: charge.task.load(SeqCst), job: (job != 0).then_some(job), crashed: state == CRASHED })?;
        if settled {
            charge.state.store(NONE, SeqCst);
            records.0.charges.fetch_sub(1, SeqCst);
        }
        all &= settled;
    }
    Ok(all)
}

/// How long the jobs of a suspected task are run one at a time.
pub const SUSPICION: Duration = Duration::from_secs(600);

/// Runs the jobs of a task one at a time for a while, to find the one that crashes the server.
pub fn suspect(database: Oid, task: u32) {
    let Some(records) = RECORDS.get() else { return };
    let suspects = &records.0.suspects;
    let is_it = |suspect: &&Suspect| suspect.is_of(database, task);
    let entry =
        suspects.iter().find(is_it).or_else(|| suspects.iter().min_by_key(|suspect| suspect.until.load(SeqCst)));
    if let Some(suspect) = entry {
        suspect.database.store(database.to_u32(), SeqCst);
        suspect.task.store(task, SeqCst);
        suspect.until.store(after(clock::now(), SUSPICION), SeqCst);
    }
}

/// Returns true if the jobs of a task are to be run one at a time.
pub fn is_suspect(database: Oid, task: u32) -> bool {
    let Some(records) = RECORDS.get() else { return false };
    let until = |suspect: &Suspect| -> Timestamp { suspect.until.load(SeqCst) };
    records.0.suspects.iter().any(|suspect| suspect.is_of(database, task) && until(suspect) > clock::now())
}

impl Suspect {
    fn is_of(&self, database: Oid, task: u32) -> bool {
        self.database.load(SeqCst) == database.to_u32() && self.task.load(SeqCst) == task
    }
}
