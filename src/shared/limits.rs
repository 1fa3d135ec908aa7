//! The room under limits: how many jobs run, when the next one may begin, and who waits.
//!
//! A worker asks for room before it takes a job: under every limit that the job falls under, all under one lock. What it
//! got is written in its slot on the board, [`LimitHolds`], and nowhere else: how many jobs run under a limit is counted
//! there, worker by worker, each time. So room is given back by whatever frees or changes the slot, and no count can be
//! wrong. Without the lock, only the number of holds of a slot that is freed is set to 0.
//!
//! A worker that began its job before a limit was set holds nothing of that limit. It is counted by the jobs that its
//! slot names: for a limit with keys, under every key.
//!
//! The table has an entry for each limit and key for which something must be remembered: the times of a rate, until
//! when it is throttled, and where the jobs wait that found no room. An entry is freed once there is nothing to
//! remember. There are kongtask.max_limit_keys entries. Where all are in use, a job that needs one does not begin.
//!
//! Jobs that wait are on no ready list. The entry has the positions of the first and the last. Whoever gives
//! back room takes that from the entry ([`open`]), and searches the table for them. For room that comes with time, the
//! scheduler does: the worker that noted a waiting job lowers the time of its next pass.
//!
//! ```text
//!              grant: no room                       open: room
//!  ready list ────────────────► waits in the entry ────────────► searched for ──► ready list
//! ```

pub use super::ready_list::NO_KEY;
use super::ready_list::{Hint, Position};
use super::{Board, Worker};
use crate::pg::clock::{self, NEVER, Tick};
use crate::pg::lock::Lock;
use crate::settings;
use crate::shared::State;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// What a limit says, and which tasks it concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// A hash of its name.
    pub id: u64,
    /// The tags of its tasks; `None` for all.
    pub tags: Option<Vec<u32>>,
    pub has_keys: bool,
    /// How many jobs may run at once.
    pub concurrency: Option<u32>,
    pub rate: Option<Rate>,
}

/// A rate, by the generic cell rate algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// The time for each start, in microseconds.
    pub interval: i64,
    /// How many may begin together.
    pub burst: i64,
}

impl Rate {
    /// Returns how much earlier than evenly spread starts one may be.
    fn tolerance(&self) -> i64 {
        self.interval.saturating_mul(self.burst - 1)
    }
}

impl Terms {
    pub fn covers(&self, tag: u32) -> bool {
        self.tags.as_ref().is_none_or(|tags| tags.contains(&tag))
    }
}

/// A limit that a job falls under, with the hash of the job's key.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    pub terms: &'a Terms,
    pub key: u64,
}

impl Claim<'_> {
    /// Returns the hash of the limit, and that of the key.
    pub fn id(&self) -> (u64, u64) {
        (self.terms.id, self.key)
    }
}

/// How many different limits and keys a worker can hold.
const MOST_HELD: usize = 64;

/// Room where nothing limits it.
const ANY: u64 = u64::MAX;

/// The room that a worker holds: a part of its slot. Written by the worker, under the lock of limits; `count` also by
/// the process that frees the slot. Read under the lock.
pub struct LimitHolds {
    count: AtomicU32,
    /// True while the worker is to ask for room, and has begun no job. Then the jobs that its slot names do not count.
    asks: AtomicBool,
    /// True while the worker has waiting jobs in its memory only.
    opens: AtomicBool,
    held: [Held; MOST_HELD],
}

struct Held {
    limit: AtomicU64,
    key: AtomicU64,
    jobs: AtomicU32,
}

impl LimitHolds {
    /// Forgets everything, in a slot that is freed.
    pub fn reset(&self) {
        self.count.store(0, SeqCst);
        self.asks.store(false, SeqCst);
        self.opens.store(false, SeqCst);
    }

    /// Says that the worker is about to ask for room, though its slot says already that it runs.
    pub fn ask_later(&self) {
        self.asks.store(true, SeqCst);
    }

    /// Says that the worker begins a job for which it need not ask.
    pub fn asks_not(&self) {
        self.asks.store(false, SeqCst);
    }

    /// Returns true if there is something to give back.
    pub fn is_used(&self) -> bool {
        self.count.load(SeqCst) > 0 || self.asks.load(SeqCst)
    }

    /// Returns true if the worker ended while it had waiting jobs in its memory.
    pub fn has_lost_some(&self) -> bool {
        self.opens.load(SeqCst)
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.held[..self.count.load(SeqCst) as usize].iter()
    }

    /// Returns how many jobs hold room under a limit and key; `None` if none holds any under the limit.
    fn jobs(&self, limit: u64, key: u64) -> Option<u64> {
        let mut jobs = None;
        for held in self.held().filter(|held| held.limit.load(SeqCst) == limit) {
            let its = if held.key.load(SeqCst) == key { u64::from(held.jobs.load(SeqCst)) } else { 0 };
            jobs = Some(jobs.unwrap_or(0) + its);
        }
        jobs
    }

    /// Returns true if it holds so many jobs more under these; adds nothing otherwise.
    fn add(&self, claims: &[Claim]) -> bool {
        let of = |claim: &Claim| {
            self.held().find(|held| held.limit.load(SeqCst) == claim.terms.id && held.key.load(SeqCst) == claim.key)
        };
        let new = claims.iter().filter(|claim| of(claim).is_none()).count();
        if self.count.load(SeqCst) as usize + new > MOST_HELD {
            return false;
        }
        for claim in claims {
            if let Some(held) = of(claim) {
                held.jobs.fetch_add(1, SeqCst);
                continue;
            }
            let held = &self.held[self.count.load(SeqCst) as usize];
            held.limit.store(claim.terms.id, SeqCst);
            held.key.store(claim.key, SeqCst);
            held.jobs.store(1, SeqCst);
            self.count.fetch_add(1, SeqCst);
        }
        true
    }
}

/// What became of a job for which room was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Granted,
    /// It waits, under the limit of this place among its claims.
    Waits(usize),
    /// It was not looked at: enough others were granted.
    Left,
    /// It cannot be remembered, as the table is full.
    Full,
}

/// The jobs that wait under a limit and key, taken from its entry.
pub struct Opened {
    pub limit: u64,
    pub key: u64,
    /// The first and the last position at which one waits.
    pub from: Position,
    pub last: Position,
    /// How many may begin now.
    pub room: u64,
}

/// What is known of a limit and key.
pub struct Known {
    pub running: u64,
    /// The tick before which no job begins; 0 if there is none.
    pub next_start: Tick,
    pub is_full: bool,
}

#[repr(C)]
struct Entry {
    limit: u64,
    key: u64,
    database: u32,
    /// The next entry of the same bucket, or of the free ones.
    next: u32,
    /// The theoretical arrival time of the next job, by a rate.
    arrival: Tick,
    /// No job begins before.
    throttled: Tick,
    /// The first job that waits; `Position::END` if none does.
    from: Position,
    /// The last one.
    last: Position,
}

impl Entry {
    fn is_of(&self, database: Oid) -> bool {
        self.database == database.to_u32()
    }

    /// Returns true if nothing must be remembered.
    fn is_idle(&self, now: Tick) -> bool {
        self.from == Position::END && self.arrival <= now && self.throttled <= now
    }

    fn next_start(&self, terms: &Terms) -> Tick {
        let by_rate = terms.rate.map_or(0, |rate| self.arrival.saturating_sub(rate.tolerance()));
        by_rate.max(self.throttled)
    }

    fn forget_waiting(&mut self) {
        (self.from, self.last) = (Position::END, Position::START);
    }
}

const NONE: u32 = u32::MAX;

/// What the table begins with. Its buckets and its entries follow.
#[repr(C)]
struct Header {
    capacity: u32,
    buckets: u32,
    /// The first free entry.
    free: u32,
    /// No entry can be freed before this tick, as far as is known.
    full_until: Tick,
    /// How many entries have jobs that wait. Written under the lock, read by anyone.
    waiting: AtomicU32,
}

#[derive(Clone, Copy)]
struct Shared(NonNull<Header>);

thread_local! {
    static TABLE: Cell<Option<Shared>> = const { Cell::new(None) };
}

fn capacities() -> (usize, usize) {
    let entries = settings::max_limit_keys();
    (entries, entries.next_power_of_two())
}

/// Returns the size of the table.
pub fn size() -> usize {
    let (entries, buckets) = capacities();
    (size_of::<Header>() + buckets * size_of::<u32>()).next_multiple_of(8) + entries * size_of::<Entry>()
}

/// Lays the table out, if it `is_new`, in zeroed memory. For the postmaster.
pub(super) fn lay_out(memory: *mut u8, is_new: bool) {
    TABLE.set(NonNull::new(memory.cast()).map(Shared));
    if let Some(shared) = TABLE.get().filter(|_| is_new) {
        let (entries, buckets) = capacities();
        // SAFETY: no other process uses the memory yet.
        let header = unsafe { &mut *shared.0.as_ptr() };
        (header.capacity, header.buckets) = (entries as u32, buckets as u32);
        // SAFETY: as above; the header says how large the table is.
        let mut table = unsafe { shared.table() };
        table.buckets.fill(NONE);
        table.header.free = NONE;
        (0..entries as u32).rev().for_each(|at| table.put_on_free(at));
    }
}

impl Shared {
    /// # Safety
    /// The lock of limits is held, or no other process uses the table.
    unsafe fn table(self) -> Table {
        // SAFETY: laid out by `size`; by the caller's word, nobody else reads or writes it.
        unsafe {
            let header = &mut *self.0.as_ptr();
            let buckets = self.0.add(1).cast::<u32>();
            let offset = (size_of::<Header>() + header.buckets as usize * size_of::<u32>()).next_multiple_of(8);
            let entries = self.0.cast::<u8>().add(offset).cast::<Entry>();
            Table {
                buckets: std::slice::from_raw_parts_mut(buckets.as_ptr(), header.buckets as usize),
                entries: std::slice::from_raw_parts_mut(entries.as_ptr(), header.capacity as usize),
                header,
            }
        }
    }
}

/// The table, while the lock is held.
struct Table {
    header: &'static mut Header,
    buckets: &'static mut [u32],
    entries: &'static mut [Entry],
}

/// Reads and changes the table under its lock. `f` must call nothing that can raise. Returns `None` where the library
/// was not preloaded.
fn with<T>(f: impl FnOnce(&mut Table) -> T) -> Option<T> {
    let shared = TABLE.get()?;
    let _lock = Lock::take(super::limits_lock());
    // SAFETY: the lock is held, and no `f` calls this.
    Some(f(&mut unsafe { shared.table() }))
}

impl Table {
    fn put_on_free(&mut self, at: u32) {
        self.entries[at as usize].next = self.header.free;
        self.entries[at as usize].database = 0;
        self.header.free = at;
        self.header.full_until = 0;
    }

    fn bucket(&self, database: Oid, limit: u64, key: u64) -> usize {
        let hash = (limit ^ key.rotate_left(32) ^ u64::from(database.to_u32())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }

    fn find(&mut self, database: Oid, limit: u64, key: u64) -> Option<&mut Entry> {
        let mut at = self.buckets[self.bucket(database, limit, key)];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.is_of(database) && entry.limit == limit && entry.key == key {
                return Some(&mut self.entries[at as usize]);
            }
            at = entry.next;
        }
        None
    }

    /// Returns the entry, a new one if there is none; `None` if all are in use.
    fn find_or_new(&mut self, database: Oid, limit: u64, key: u64, now: Tick) -> Option<&mut Entry> {
        if self.find(database, limit, key).is_none() {
            if self.header.free == NONE {
                self.free_idle(now);
            }
            let at = self.header.free;
            if at == NONE {
                return None;
            }
            self.header.free = self.entries[at as usize].next;
            let bucket = self.bucket(database, limit, key);
            self.entries[at as usize] = Entry {
                limit,
                key,
                database: database.to_u32(),
                next: self.buckets[bucket],
                arrival: 0,
                throttled: 0,
                from: Position::END,
                last: Position::START,
            };
            self.buckets[bucket] = at;
        }
        self.find(database, limit, key)
    }

    /// Frees the entries for which nothing must be remembered. Looks at all only once the first of them may be.
    fn free_idle(&mut self, now: Tick) {
        if now < self.header.full_until {
            return;
        }
        self.free_where(|entry| entry.is_idle(now));
        if self.header.free == NONE {
            let times = self.entries.iter().filter(|entry| entry.from == Position::END);
            self.header.full_until = times.map(|entry| entry.arrival.max(entry.throttled)).min().unwrap_or(NEVER);
        }
    }

    fn free_where(&mut self, which: impl Fn(&Entry) -> bool) {
        for bucket in 0..self.buckets.len() {
            let mut kept = NONE;
            let mut at = std::mem::replace(&mut self.buckets[bucket], NONE);
            while at != NONE {
                let next = self.entries[at as usize].next;
                if which(&self.entries[at as usize]) {
                    self.put_on_free(at);
                } else {
                    self.entries[at as usize].next = kept;
                    kept = at;
                }
                at = next;
            }
            self.buckets[bucket] = kept;
        }
        self.count_waiting();
    }

    fn count_waiting(&self) {
        let waiting = self.entries.iter().filter(|entry| entry.database != 0 && entry.from != Position::END).count();
        self.header.waiting.store(waiting as u32, SeqCst);
    }

    /// Notes jobs that wait, the first at one position and the last at another. Returns false if the table is full.
    fn park(&mut self, database: Oid, claim: &Claim, from: Position, last: Position, now: Tick) -> bool {
        let Some(entry) = self.find_or_new(database, claim.terms.id, claim.key, now) else { return false };
        let is_first = entry.from == Position::END;
        entry.from = entry.from.min(from);
        entry.last = entry.last.max(last);
        if is_first {
            self.header.waiting.fetch_add(1, SeqCst);
        }
        true
    }

    /// Returns how many jobs may begin under a limit, beside what `me` holds.
    fn room(&mut self, board: Board, database: Oid, claim: &Claim, me: Option<&Worker>, now: Tick) -> u64 {
        let rate = claim.terms.rate;
        let mut room = ANY;
        let arrival = match self.find(database, claim.terms.id, claim.key) {
            Some(entry) if entry.throttled > now => return 0,
            Some(entry) => entry.arrival.max(now),
            None => now,
        };
        if let Some(rate) = rate {
            let early = rate.tolerance() - (arrival - now);
            room = if early < 0 { 0 } else { (early / rate.interval) as u64 + 1 };
        }
        if let Some(most) = claim.terms.concurrency {
            let held = me.and_then(|me| me.limits.jobs(claim.terms.id, claim.key)).unwrap_or(0);
            let running = running(board, database, claim, me) + held;
            room = room.min(u64::from(most).saturating_sub(running));
        }
        room
    }

    /// Returns the tick before which no job begins, of one that found no room for its time.
    fn next_start(&mut self, database: Oid, claim: &Claim, now: Tick) -> Tick {
        let found = self.find(database, claim.terms.id, claim.key).map(|entry| entry.next_start(claim.terms));
        found.filter(|&start| start > now).unwrap_or(0)
    }
}

/// Returns how many jobs workers other than `me` run under a limit and key.
fn running(board: Board, database: Oid, claim: &Claim, me: Option<&Worker>) -> u64 {
    let of = |worker: &Worker| match worker.limits.jobs(claim.terms.id, claim.key) {
        Some(jobs) => jobs,
        None if worker.state() == State::Running && !worker.limits.asks.load(SeqCst) => {
            let held = worker.held().filter(|held| claim.terms.covers(held.task));
            held.map_or(0, |held| u64::from(held.count))
        }
        None => 0,
    };
    let is_me = |worker: &Worker| me.is_some_and(|me| std::ptr::eq(me, worker));
    board.workers_of(database).map(|(_, worker)| worker).filter(|worker| !is_me(worker)).map(of).sum()
}

/// Asks for room for jobs, for a worker that has begun none: each gets an answer. Grants `most` at most. What the worker
/// held before is given up. Returns also the tick at which a job that waits may begin, `NEVER` if that depends on others.
pub fn grant(
    board: Board,
    database: Oid,
    me: &Worker,
    jobs: &[(Hint, Vec<Claim>)],
    most: usize,
) -> (Vec<Answer>, Tick) {
    let grant = |table: &mut Table| {
        let now = clock::tick();
        let mut next_start = NEVER;
        let mut granted = 0;
        // Thousands may have the same key. Where there is no room now, there is none later in this call.
        let mut without_room: HashSet<(u64, u64)> = HashSet::new();
        me.limits.count.store(0, SeqCst);
        let mut answer = |table: &mut Table, position: Position, claims: &[Claim]| {
            if granted == most {
                return Answer::Left;
            }
            let full = claims.iter().position(|claim| {
                without_room.contains(&claim.id()) || table.room(board, database, claim, Some(me), now) == 0
            });
            if let Some(full) = full {
                let start = table.next_start(database, &claims[full], now);
                next_start = next_start.min(if start == 0 { NEVER } else { start });
                without_room.insert(claims[full].id());
                let is_noted = table.park(database, &claims[full], position, position, now);
                return if is_noted { Answer::Waits(full) } else { Answer::Full };
            }
            let timed = || claims.iter().filter_map(|claim| Some((claim, claim.terms.rate?)));
            let mut has_entry = |claim: &Claim| table.find_or_new(database, claim.terms.id, claim.key, now).is_some();
            if !timed().all(|(claim, _)| has_entry(claim)) {
                return Answer::Full;
            }
            if !me.limits.add(claims) {
                return if granted == 0 { Answer::Full } else { Answer::Left };
            }
            for (claim, rate) in timed() {
                if let Some(entry) = table.find(database, claim.terms.id, claim.key) {
                    entry.arrival = entry.arrival.max(now).saturating_add(rate.interval);
                }
            }
            granted += 1;
            Answer::Granted
        };
        let answers = jobs.iter().map(|(hint, claims)| answer(table, hint.position, claims)).collect();
        me.limits.asks.store(false, SeqCst);
        (answers, next_start)
    };
    with(grant).unwrap_or_default()
}

/// Notes more jobs that wait: the first at one position, and the last at another. Returns false if the table is full.
pub fn park(database: Oid, claim: &Claim, from: Position, last: Position) -> bool {
    with(|table| table.park(database, claim, from, last, clock::tick())).unwrap_or(false)
}

/// Gives a start back that was not made.
pub fn take_back(database: Oid, claim: &Claim, starts: i64) {
    let Some(rate) = claim.terms.rate else { return };
    with(|table| {
        if let Some(entry) = table.find(database, claim.terms.id, claim.key) {
            entry.arrival = entry.arrival.saturating_sub(rate.interval.saturating_mul(starts));
        }
    });
}

/// Gives back all room that a worker holds. Returns the limits and keys for which jobs wait, and how many jobs gave room
/// back.
pub fn release(database: Oid, me: &Worker) -> (Vec<(u64, u64)>, u64) {
    let release = |table: &mut Table| {
        let (now, mut waiting, mut jobs) = (clock::tick(), Vec::new(), 0);
        for held in me.limits.held() {
            let (limit, key) = (held.limit.load(SeqCst), held.key.load(SeqCst));
            jobs += u64::from(held.jobs.load(SeqCst));
            if table.find(database, limit, key).is_some_and(|entry| entry.from != Position::END) {
                waiting.push((limit, key));
            }
        }
        let has_idle = me.limits.held().any(|held| {
            let (limit, key) = (held.limit.load(SeqCst), held.key.load(SeqCst));
            table.find(database, limit, key).is_some_and(|entry| entry.is_idle(now))
        });
        if has_idle && table.header.free == NONE {
            table.free_idle(now);
        }
        me.limits.count.store(0, SeqCst);
        me.limits.asks.store(false, SeqCst);
        (waiting, jobs)
    };
    with(release).unwrap_or_default()
}

/// Takes the jobs that wait under limits that have room now from their entries: of those given, or of all. The caller
/// must search for them. `me` is the worker that does; if it ends meanwhile, its slot says so. Returns also the tick at
/// which others may begin, `NEVER` if that depends on jobs that run.
pub fn open<'a>(
    board: Board,
    database: Oid,
    me: Option<&Worker>,
    terms: impl Fn(u64) -> Option<&'a Terms>,
    which: Option<&[(u64, u64)]>,
) -> (Vec<Opened>, Tick) {
    if !has_waiting() {
        return (Vec::new(), NEVER);
    }
    let open = |table: &mut Table| {
        let (now, mut opened, mut next_start) = (clock::tick(), Vec::new(), NEVER);
        let waits = |entry: &&Entry| entry.is_of(database) && entry.from != Position::END;
        let keys: Vec<(u64, u64)> = match which {
            Some(which) => which.to_vec(),
            None => table.entries.iter().filter(waits).map(|entry| (entry.limit, entry.key)).collect(),
        };
        for (limit, key) in keys {
            let Some(terms) = terms(limit) else { continue };
            let claim = Claim { terms, key };
            let room = table.room(board, database, &claim, None, now);
            let start = table.next_start(database, &claim, now);
            let Some(entry) = table.find(database, limit, key).filter(|entry| entry.from != Position::END) else {
                continue;
            };
            if room == 0 {
                next_start = next_start.min(if start == 0 { NEVER } else { start });
                continue;
            }
            opened.push(Opened { limit, key, from: entry.from, last: entry.last, room });
            entry.forget_waiting();
            table.header.full_until = 0;
            table.header.waiting.fetch_sub(1, SeqCst);
        }
        if let Some(me) = me {
            me.limits.opens.store(!opened.is_empty(), SeqCst);
        }
        (opened, next_start)
    };
    with(open).unwrap_or((Vec::new(), NEVER))
}

/// Says that the jobs that a worker took from entries are on ready lists, or wait again.
pub fn opened(me: &Worker) {
    me.limits.opens.store(false, SeqCst);
}

/// Returns true if any job waits.
pub fn has_waiting() -> bool {
    TABLE.get().is_some_and(|shared| {
        // SAFETY: an atomic field of memory that stays mapped; a reference to it alone.
        unsafe { (*std::ptr::addr_of!((*shared.0.as_ptr()).waiting)).load(SeqCst) > 0 }
    })
}

/// Of limits without keys, notes for each that has no room that jobs may wait at a position and behind it. Returns which
/// these are, and the tick at which one of them may have room.
pub fn leave_out(board: Board, database: Oid, terms: &[&Terms], from: Position) -> (Vec<bool>, Tick) {
    let leave_out = |table: &mut Table| {
        let (now, mut next_start) = (clock::tick(), NEVER);
        let full = terms.iter().map(|terms| {
            let claim = Claim { terms, key: NO_KEY };
            let is_full = table.room(board, database, &claim, None, now) == 0;
            if is_full {
                let start = table.next_start(database, &claim, now);
                next_start = next_start.min(if start == 0 { NEVER } else { start });
            }
            is_full && table.park(database, &claim, from, Position::END, now)
        });
        (full.collect(), next_start)
    };
    with(leave_out).unwrap_or((vec![false; terms.len()], NEVER))
}

/// Notes for each of the jobs that has no room that it waits: of those of one key, in their order, for all but as many as may
/// begin, and `more` of them; of the `dominant` key, `more` at most. Returns which these are, and the tick at which one of them may have room. Takes no room for
/// the others: as each of them asks for it, and gives it back, it has those that wait searched for.
pub fn sift(
    board: Board,
    database: Oid,
    jobs: &[(Position, Vec<Claim>)],
    more: u64,
    dominant: Option<(u64, u64)>,
) -> (Vec<bool>, Tick) {
    let sift = |table: &mut Table| {
        let (now, mut next_start) = (clock::tick(), NEVER);
        let mut rooms: HashMap<(u64, u64), u64> = HashMap::new();
        let full = jobs.iter().map(|(position, claims)| {
            let full = claims.iter().find(|claim| {
                let room = || match table.room(board, database, claim, None, now) {
                    0 => 0,
                    _ if dominant == Some(claim.id()) => more,
                    room => room.saturating_add(more),
                };
                *rooms.entry(claim.id()).or_insert_with(room) == 0
            });
            let Some(claim) = full else {
                for claim in claims {
                    rooms.entry(claim.id()).and_modify(|room| *room -= 1);
                }
                return false;
            };
            let start = table.next_start(database, claim, now);
            next_start = next_start.min(if start == 0 { NEVER } else { start });
            table.park(database, claim, *position, *position, now)
        });
        (full.collect(), next_start)
    };
    with(sift).unwrap_or((vec![false; jobs.len()], NEVER))
}

/// Forgets which jobs of a database wait: all of them are about to be searched for. Forgets also what is known of limits
/// that are not there any more.
pub fn forget_waiting(database: Oid, is_there: impl Fn(u64) -> bool) {
    with(|table| {
        for entry in table.entries.iter_mut().filter(|entry| entry.is_of(database)) {
            entry.forget_waiting();
        }
        table.free_where(|entry| entry.is_of(database) && !is_there(entry.limit));
    });
}

/// Forgets the databases that `is_gone` returns true for.
pub fn forget(is_gone: impl Fn(Oid) -> bool) {
    let Some(shared) = TABLE.get() else { return };
    // SAFETY: a word that only the postmaster wrote.
    if unsafe { (*shared.0.as_ptr()).capacity } == 0 {
        return;
    }
    with(|table| table.free_where(|entry| entry.database != 0 && is_gone(Oid::from(entry.database))));
}

/// Lets no job begin before a tick. Returns false if the table is full.
pub fn throttle(database: Oid, claim: &Claim, until: Tick) -> bool {
    let throttle = |table: &mut Table| {
        let entry = table.find_or_new(database, claim.terms.id, claim.key, clock::tick());
        entry.map(|entry| entry.throttled = entry.throttled.max(until)).is_some()
    };
    with(throttle).unwrap_or(false)
}

/// Returns how many jobs may begin under a limit and key now.
pub fn room(board: Board, database: Oid, claim: &Claim) -> u64 {
    with(|table| table.room(board, database, claim, None, clock::tick())).unwrap_or(0)
}

/// Returns what is known of a limit and key.
pub fn known(board: Board, database: Oid, claim: &Claim) -> Known {
    let known = |table: &mut Table| {
        let now = clock::tick();
        Known {
            running: running(board, database, claim, None),
            next_start: table.next_start(database, claim, now),
            is_full: table.room(board, database, claim, None, now) == 0,
        }
    };
    with(known).unwrap_or(Known { running: 0, next_start: 0, is_full: false })
}
