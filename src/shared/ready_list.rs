//! The jobs of one role that are ready to run: a list of them in the order in which they run, and a watermark.
//!
//! ```text
//!              the list                    the table
//!    ┌────┬────┬────┬────┬────┐ w.m. ┌────┬────┬────┬────┬─ ─ ─
//!    │    │    │    │    │    │  │   │    │    │    │    │
//!    └────┴────┴────┴────┴────┘  │   └────┴────┴────┴────┴─ ─ ─
//!      ▲ workers take from here       ▲ a search goes on from here when the list is empty, or soon will be
//! ```
//!
//! Every job that can run is on the list, or lies at the watermark or behind it. So a commit that adds a job before the
//! watermark puts it on the list, and need do nothing else: a queue that its workers keep up with is never searched,
//! and jobs that failed for good or are scheduled for later are passed once, by the search that moved the watermark
//! past them.
//!
//! A search takes a while, and its snapshot does not show what commits meanwhile. So a commit that adds a job at the
//! watermark or behind it notes the position in `lowered`, and the end of the search leaves the watermark there. A
//! session offers its job after its commit: either the search has begun by then, and the offer is noted; or it has not,
//! and its snapshot shows the job. `models/` tries all orders of those steps.
//!
//! Where the search has come to jobs that have no room under limits, it passes them, and may have to pass a million. What
//! is added behind it meanwhile, of the same priority or a higher one, need not wait for that: it is put on the list at
//! once, though the search will find it too.
//!
//! Jobs that are limited by a key take turns: those of each key are a lane, and workers take from one lane after the
//! other, among jobs of the same priority. So that the few jobs of a key need not wait until the search has come to
//! them, either, the first of each lane are put on the list wherever they stand. While only such jobs are on
//! the list, or the search passes jobs, workers take a job and search in turns.
//!
//! A list is a hint. The row's lock decides who runs a job, and a worker that takes one off the list checks everything
//! again.
//!
//! Plain data without pointers, as it lies in shared memory; a process that uses it holds its lock.

pub use super::sync::CAPACITY;
use super::sync::LANES;

/// The key of a job that is limited by none, or by one that is not known.
pub const NO_KEY: u64 = 0;

/// The address of a row that is not known.
pub const NO_ROW: u64 = 0;

/// How many jobs of a lane are put on the list behind the watermark.
const MOST_AHEAD: u16 = 32;

/// How many jobs that were skipped are noted.
const MOST_SKIPPED: usize = 64;

/// Where a job stands in the order in which jobs run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct Position {
    pub priority: i32,
    /// In microseconds since 2000-01-01 00:00 UTC.
    pub run_at: i64,
    pub id: i64,
}

impl Position {
    /// Before every job.
    pub const START: Position = Position { priority: i32::MIN, run_at: i64::MIN, id: i64::MIN };
    /// Behind every job that can run.
    pub const END: Position = Position { priority: i32::MAX, run_at: i64::MAX, id: i64::MAX };

    /// Returns the position just behind this one.
    pub fn next(self) -> Position {
        Position { id: self.id.saturating_add(1), ..self }
    }
}

/// How a job is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// It has no key and no queue and was never tried: it can run in the transaction that takes it.
    Plain,
    /// It is to be claimed first.
    Claimed,
    /// It is in a queue: any of the queue's jobs may be the one to run.
    Queued,
}

/// A job that looked as if it could run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Hint {
    pub position: Position,
    /// The hash of the key that it is limited by, under the first of its limits that has keys: see `src/tasks/limits.rs`.
    pub key: u64,
    /// Where a search has found its row, as a number; [`NO_ROW`] for those that a commit has reported. It may have moved.
    pub row: u64,
    /// Tells its task from others: see [`crate::tasks::registry::tag`].
    pub task: u32,
    pub kind: Kind,
}

impl Hint {
    /// Returns true if both can be taken together. Jobs of queues are taken one by one.
    fn goes_with(&self, other: &Hint) -> bool {
        self.task == other.task
            && self.position.priority == other.position.priority
            && ![self.kind, other.kind].contains(&Kind::Queued)
    }

    /// Returns the lane of its key. Keys may share one. Jobs without a key have a lane of their own.
    fn lane(&self) -> usize {
        if self.key == NO_KEY { 0 } else { 1 + ((self.key ^ self.key >> 32) % (LANES as u64 - 1)) as usize }
    }
}

/// How many jobs of each lane are on the list, and whose turn it is. Those without a key are not counted.
#[repr(C)]
struct Lanes {
    /// The lane that a job was taken from last.
    latest: usize,
    /// How many jobs with keys there are.
    jobs: usize,
    /// True if a job was taken while the search had to wait for its turn.
    search_waited: bool,
    counts: [u16; LANES],
    /// A bit for each lane that has jobs.
    used: [u64; LANES.div_ceil(64)],
}

impl Lanes {
    fn reset(&mut self) {
        (self.latest, self.jobs, self.search_waited) = (0, 0, false);
        self.counts.fill(0);
        self.used.fill(0);
    }

    fn add(&mut self, hint: &Hint) {
        if hint.key != NO_KEY {
            let lane = hint.lane();
            self.jobs += 1;
            self.counts[lane] += 1;
            self.used[lane / 64] |= 1 << (lane % 64);
        }
    }

    fn remove(&mut self, hint: &Hint) {
        if hint.key != NO_KEY {
            let lane = hint.lane();
            self.jobs -= 1;
            self.counts[lane] -= 1;
            if self.counts[lane] == 0 {
                self.used[lane / 64] &= !(1 << (lane % 64));
            }
        }
    }

    /// Returns the first lane behind another that has jobs; `None` if there is none up to the last lane.
    fn next(&self, behind: usize) -> Option<usize> {
        let (word, bit) = ((behind + 1) / 64, (behind + 1) % 64);
        let first = self.used.get(word)? & (u64::MAX << bit);
        let rest = (word + 1..self.used.len()).map(|word| (word, self.used[word]));
        let (word, bits) = std::iter::once((word, first)).chain(rest).find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// The list and the watermark.
#[repr(C)]
pub struct ReadyList {
    watermark: Position,
    /// The lowest position at the watermark or behind it where a job was added since the search that is under way
    /// began.
    lowered: Position,
    /// The pid of the worker whose search is under way; 0 if none is. That worker alone moves the watermark up, and it
    /// looks at the list again after its search; the others run what is on the list meanwhile, or sleep.
    searcher: i32,
    /// True while the latest search has found hardly any jobs that have room.
    is_passing: bool,
    /// True while the latest search has found as many jobs as it looked for: it is likely that there are more behind the
    /// watermark.
    has_backlog: bool,
    first: usize,
    count: usize,
    lanes: Lanes,
    /// The ids of jobs that workers took off the list and skipped: mostly as other transactions had locked their rows or their
    /// queues, of whose end nothing tells.
    skipped: [i64; MOST_SKIPPED],
    skipped_count: usize,
    hints: [Hint; CAPACITY],
}

impl ReadyList {
    /// Forgets everything, so that the whole table is searched.
    pub fn reset(&mut self) {
        (self.first, self.count, self.searcher) = (0, 0, 0);
        (self.watermark, self.lowered) = (Position::START, Position::END);
        (self.is_passing, self.has_backlog) = (false, false);
        self.skipped_count = 0;
        self.lanes.reset();
    }

    fn list(&self) -> &[Hint] {
        &self.hints[self.first..self.first + self.count]
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns true if there may be something to run: a job on the list, or one that a search would find and none is
    /// under way.
    pub fn has_more(&self) -> bool {
        self.count > 0 || (self.watermark != Position::END && self.searcher == 0)
    }

    /// Notes that a job was skipped. Returns false if too many are noted.
    pub fn skip(&mut self, job: i64) -> bool {
        if self.skipped().contains(&job) {
            return true;
        }
        let Some(place) = self.skipped.get_mut(self.skipped_count) else { return false };
        *place = job;
        self.skipped_count += 1;
        true
    }

    /// Returns the ids of the jobs that were skipped since this was called last.
    pub fn take_skipped(&mut self) -> Vec<i64> {
        let skipped = self.skipped().to_vec();
        self.skipped_count = 0;
        skipped
    }

    fn skipped(&self) -> &[i64] {
        &self.skipped[..self.skipped_count]
    }

    /// Returns true if there is, or soon may be, something to run.
    pub fn leaves_more(&self) -> bool {
        self.has_more() || self.skipped_count > 0
    }

    /// Returns where the part of the table begins that a search will look at which has not begun yet.
    pub fn next_search(&self) -> Position {
        if self.searcher == 0 { self.watermark } else { Position::END }
    }

    /// Returns the position of the first job on the list, or the watermark if there is none before it.
    pub fn begins(&self) -> Position {
        self.list().first().map_or(self.watermark, |hint| hint.position.min(self.watermark))
    }

    /// Puts a job on the list, unless it is there already, or lies where a search will find it soon. A full list drops
    /// its last job, and lowers the watermark to it.
    pub fn offer(&mut self, hint: Hint) {
        if hint.position >= self.watermark {
            self.lowered = self.lowered.min(hint.position);
            if !self.is_passed_by(&hint) && !self.goes_ahead(&hint) {
                return;
            }
            if self.count == CAPACITY {
                self.drop_last_before_watermark();
            }
        }
        // Mostly the new one is the last.
        let at = match self.list().last() {
            Some(last) if last.position >= hint.position => {
                self.list().partition_point(|other| other.position < hint.position)
            }
            _ => self.count,
        };
        if let Some(other) = self.list().get(at).copied().filter(|other| other.position == hint.position) {
            if other.key != hint.key {
                // One of both was read before the job or its limit was changed: the worker is to look at the row.
                self.lanes.remove(&other);
                self.hints[self.first + at].key = NO_KEY;
            }
            if hint.row != NO_ROW {
                self.hints[self.first + at].row = hint.row;
            }
            return;
        }
        if self.count == CAPACITY {
            let last = if at == CAPACITY { hint } else { self.hints[self.first + CAPACITY - 1] };
            if at < CAPACITY {
                self.count = CAPACITY - 1;
                self.lanes.remove(&last);
            }
            self.lower(last.position);
            if at == CAPACITY {
                return;
            }
        }
        if at < self.count / 2 && self.first > 0 {
            // Jobs that are put back, where the list may be long.
            self.hints.copy_within(self.first..self.first + at, self.first - 1);
            self.first -= 1;
        } else {
            if self.first + self.count == CAPACITY {
                self.hints.copy_within(self.first..CAPACITY, 0);
                self.first = 0;
            }
            let (at, end) = (self.first + at, self.first + self.count);
            self.hints.copy_within(at..end, at + 1);
        }
        self.hints[self.first + at] = hint;
        self.count += 1;
        self.lanes.add(&hint);
    }

    /// Takes a job off the list, by its place.
    fn remove_at(&mut self, at: usize) -> Hint {
        let hint = self.hints[self.first + at];
        self.lanes.remove(&hint);
        if at < self.count / 2 {
            self.hints.copy_within(self.first..self.first + at, self.first + 1);
            self.first += 1;
        } else {
            self.hints.copy_within(self.first + at + 1..self.first + self.count, self.first + at);
        }
        self.count -= 1;
        hint
    }

    /// Makes place on a full list for a job behind the watermark.
    fn drop_last_before_watermark(&mut self) {
        let before = self.list().partition_point(|hint| hint.position < self.watermark);
        if before > 0 {
            self.watermark = self.remove_at(before - 1).position;
            self.lowered = self.lowered.min(self.watermark);
        }
    }

    /// Returns true if a job behind the watermark is not to wait until the search has passed those before it.
    fn is_passed_by(&self, hint: &Hint) -> bool {
        /// More than that may be jobs that have no room either.
        const FEW: usize = CAPACITY.div_ceil(20);
        self.is_passing && hint.position.priority <= self.watermark.priority && self.count < FEW
    }

    /// Returns true if a job behind the watermark is one of the first of its lane.
    fn goes_ahead(&self, hint: &Hint) -> bool {
        hint.key != NO_KEY
            && hint.position.priority <= self.watermark.priority
            && self.lanes.counts[hint.lane()] < MOST_AHEAD
    }

    /// Lowers the watermark: there may be anything at this position and behind it.
    pub fn lower(&mut self, position: Position) {
        self.lowered = self.lowered.min(position);
        if position < self.watermark {
            let former = std::mem::replace(&mut self.watermark, position);
            (self.is_passing, self.has_backlog) = (false, false);
            // The first ones of their lanes stay.
            let is_ahead = |hint: &Hint| {
                hint.key != NO_KEY && hint.position >= former && hint.position.priority <= position.priority
            };
            self.retain(|hint| hint.position < position || is_ahead(hint));
        }
    }

    fn retain(&mut self, stays: impl Fn(&Hint) -> bool) {
        let (first, end) = (self.first, self.first + self.count);
        let mut kept = first;
        for at in first..end {
            let hint = self.hints[at];
            if stays(&hint) {
                self.hints[kept] = hint;
                kept += 1;
            } else {
                self.lanes.remove(&hint);
            }
        }
        self.count = kept - first;
    }

    /// Returns true if a worker may go on with the job at a position: nothing that can run stands before it, or, if it
    /// `may_pass` others, only a few on the list, all of them of its priority and in queues, and none of another priority behind
    /// the watermark. The job is then taken off the list, if it is there.
    pub fn goes_on_at(&mut self, position: Position, may_pass: bool) -> bool {
        /// As many move up when the job is taken off.
        const MOST_PASSED: usize = 1000;
        let before = self.list().partition_point(|hint| hint.position < position);
        let is_passed = |hint: &Hint| hint.kind == Kind::Queued && hint.position.priority == position.priority;
        let goes_on = self.begins() >= position
            || may_pass
                && (position < self.watermark || position.priority == self.watermark.priority)
                && before <= MOST_PASSED
                && self.list()[..before].iter().all(is_passed);
        if goes_on && self.list().get(before).is_some_and(|hint| hint.position == position) {
            self.remove_at(before);
        }
        goes_on
    }

    /// Takes the job whose turn it is, and with it the first ones that can be taken together with it, as many as `most`
    /// returns at most.
    pub fn take(&mut self, most: impl FnOnce(&Hint) -> usize) -> Vec<Hint> {
        if self.count == 0 || self.is_the_search_due() {
            return Vec::new();
        }
        let turn = self.turn();
        let head = self.list()[turn];
        let most = most(&head);
        self.remove_at(turn);
        let mut taken = vec![head];
        if most <= 1 || head.kind == Kind::Queued {
            return taken;
        }
        taken.reserve(most.min(self.count));
        let (first, end) = (self.first, self.first + self.count);
        let (mut at, mut kept) = (first, 0);
        while at < end && taken.len() < most {
            let hint = self.hints[at];
            if hint.goes_with(&head) {
                taken.push(hint);
                self.lanes.remove(&hint);
            } else {
                self.hints[first + kept] = hint;
                kept += 1;
            }
            at += 1;
        }
        // Those in between move up to the rest, which is longer.
        self.hints.copy_within(first..first + kept, at - kept);
        self.first = at - kept;
        self.count = end - self.first;
        if turn > 0 {
            taken.sort_unstable_by_key(|hint| hint.position);
        }
        taken
    }

    /// Returns the place of the job whose turn it is: of those of the first one's priority, the first of the lane behind the
    /// latest. There is one on the list.
    fn turn(&mut self) -> usize {
        /// Lanes may have jobs of lower priorities only.
        const MOST_LOOKS: usize = 4;
        if self.lanes.jobs == 0 {
            return 0;
        }
        let priority = self.list()[0].position.priority;
        for _ in 0..MOST_LOOKS {
            self.lanes.latest = self.lanes.next(self.lanes.latest).unwrap_or(0);
            let is_its = |hint: &Hint| hint.lane() == self.lanes.latest;
            let mut same_priority = self.list().iter().take_while(|hint| hint.position.priority == priority);
            if (self.lanes.latest > 0 || self.lanes.jobs < self.count)
                && let Some(turn) = same_priority.position(is_its)
            {
                return turn;
            }
        }
        0
    }

    /// Returns true if it is the search's turn: there are keys on the list, but it has only jobs from behind the watermark, or
    /// the search passes jobs, and may come to other keys.
    fn is_the_search_due(&mut self) -> bool {
        let may_search = self.lanes.jobs > 0 && self.searcher == 0 && self.watermark != Position::END;
        let waits = may_search && (self.is_passing || self.list()[0].position >= self.watermark);
        let is_due = waits && self.lanes.search_waited;
        self.lanes.search_waited = waits && !is_due;
        is_due
    }

    /// Returns true if there are so many jobs on the list that `which` returns true for.
    pub fn has(&self, count: usize, which: impl Fn(&Hint) -> bool) -> bool {
        self.list().iter().filter(|hint| which(hint)).take(count).count() == count
    }

    /// Takes the first job, if `goes_on` returns true for it, and no lane is to have its turn.
    pub fn take_first_if(&mut self, goes_on: impl FnOnce(&Hint) -> bool) -> Option<Hint> {
        self.list().first().filter(|first| self.lanes.jobs == 0 && goes_on(first))?;
        Some(self.remove_at(0))
    }

    /// Takes all jobs of a task that are in no queue off the list. Returns the positions of the first and the last.
    pub fn remove(&mut self, task: u32) -> Option<(Position, Position)> {
        let is_removed = |hint: &Hint| hint.task == task && hint.kind != Kind::Queued;
        let mut removed = self.list().iter().filter(|hint| is_removed(hint)).map(|hint| hint.position);
        let begins = removed.next()?;
        let last = removed.next_back().unwrap_or(begins);
        self.retain(|hint| !is_removed(hint));
        Some((begins, last))
    }

    /// Begins a search, and returns its first position; `None` if there is nothing to search, or another worker is
    /// searching. The search's snapshot must be taken after this: pairs with [`ReadyList::offer`], which sessions call
    /// after their commit.
    pub fn begin_search(&mut self, searcher: i32) -> Option<Position> {
        if self.searcher != 0 || self.watermark == Position::END {
            return None;
        }
        self.searcher = searcher;
        self.lowered = Position::END;
        Some(self.watermark)
    }

    /// Ends a search that has `found` everything from where it began up to `to`.
    pub fn end_search(&mut self, found: &[Hint], to: Position) {
        self.searcher = 0;
        (self.is_passing, self.has_backlog) = (false, false);
        // The search may have missed what was added there meanwhile.
        self.watermark = to.min(self.lowered);
        for &hint in found {
            self.offer(hint);
        }
    }

    /// Says that the search that has ended found hardly any jobs that have room: there may be a million more that have none.
    pub fn passes(&mut self) {
        self.is_passing = self.watermark != Position::END;
    }

    /// Says that the search that has ended found as many jobs as it looked for.
    pub fn ends_full(&mut self) {
        self.has_backlog = self.watermark != Position::END;
    }

    /// Returns true if more jobs are likely to come on the list by a search.
    pub fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// Returns true if a search is to begin now, so that its jobs come before the list is empty: there are fewer than `few`.
    pub fn runs_low(&self, few: usize) -> bool {
        self.has_backlog && self.count < few && self.searcher == 0
    }

    /// Gives up the search of a process that ends, so that the next search begins where this one did.
    pub fn abandon_search(&mut self, searcher: i32) {
        if self.searcher == searcher {
            self.searcher = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Box<ReadyList> {
        // SAFETY: only numbers, and an enum that has a variant 0.
        let mut ready: Box<ReadyList> = unsafe { Box::new_zeroed().assume_init() };
        ready.reset();
        ready
    }

    fn hint(run_at: i64) -> Hint {
        Hint {
            position: Position { priority: 0, run_at, id: run_at },
            key: NO_KEY,
            row: NO_ROW,
            task: 1,
            kind: Kind::Plain,
        }
    }

    fn taken(ready: &mut ReadyList) -> Vec<i64> {
        std::iter::from_fn(|| ready.take(|_| 1).first().map(|hint| hint.position.id)).collect()
    }

    fn scanned(ready: &mut ReadyList, found: &[Hint], to: Position) {
        ready.begin_search(1).expect("something to scan");
        ready.end_search(found, to);
    }

    #[test]
    fn what_lies_before_the_watermark_is_put_in_order() {
        let mut ready = ready();
        scanned(&mut ready, &[], Position::END);
        for run_at in [5, 1, 3, 3, 9, 2] {
            ready.offer(hint(run_at));
        }
        assert_eq!(taken(&mut ready), [1, 2, 3, 5, 9]);
        assert!(!ready.has_more());
    }

    #[test]
    fn what_is_put_back_comes_in_order_wherever_the_list_begins() {
        let mut ready = ready();
        scanned(&mut ready, &[], Position::END);
        (0..20).for_each(|run_at| ready.offer(hint(run_at * 10)));
        let first: Vec<Hint> = (0..6).flat_map(|_| ready.take(|_| 1)).collect();
        // More than there is place for before the first one.
        for run_at in [5, 55, 3, 65, 95, 195] {
            ready.offer(hint(run_at));
        }
        first.iter().rev().for_each(|&hint| ready.offer(hint));
        let mut expected: Vec<i64> = (0..20).map(|n| n * 10).chain([5, 55, 3, 65, 95, 195]).collect();
        expected.sort_unstable();
        assert_eq!(taken(&mut ready), expected);
    }

    #[test]
    fn what_lies_behind_the_watermark_is_left_to_the_scan() {
        let mut ready = ready();
        scanned(&mut ready, &[hint(1), hint(2)], hint(2).position.next());
        ready.offer(hint(3));
        ready.offer(hint(0));
        assert_eq!(taken(&mut ready), [0, 1, 2]);
        assert!(ready.has_more());
        assert_eq!(ready.begin_search(1), Some(hint(2).position.next()));
    }

    #[test]
    fn what_is_added_during_a_scan_is_scanned_again() {
        let mut ready = ready();
        ready.begin_search(1);
        assert_eq!(ready.begin_search(2), None);
        ready.offer(hint(7));
        ready.offer(hint(5));
        ready.end_search(&[hint(1), hint(6)], Position::END);
        assert_eq!(taken(&mut ready), [1]);
        assert_eq!(ready.begin_search(1), Some(hint(5).position));
    }

    #[test]
    fn a_scan_that_died_is_begun_again() {
        let mut ready = ready();
        ready.begin_search(1);
        ready.abandon_search(2);
        assert!(!ready.has_more());
        ready.abandon_search(1);
        assert_eq!(ready.begin_search(2), Some(Position::START));
    }

    #[test]
    fn a_full_list_leaves_the_last_to_the_scan() {
        let mut ready = ready();
        scanned(&mut ready, &[], Position::END);
        for run_at in 0..CAPACITY as i64 {
            ready.offer(hint(run_at * 2));
        }
        ready.offer(hint(1));
        let mut expected: Vec<i64> = (0..CAPACITY as i64 - 1).map(|n| n * 2).collect();
        expected.insert(1, 1);
        ready.offer(hint(i64::from(u32::MAX)));
        assert_eq!(taken(&mut ready), expected);
        assert_eq!(ready.begin_search(1), Some(hint(CAPACITY as i64 * 2 - 2).position));
    }

    #[test]
    fn a_lower_watermark_cuts_the_list() {
        let mut ready = ready();
        scanned(&mut ready, &[hint(1), hint(5), hint(7)], Position::END);
        ready.lower(hint(5).position);
        assert_eq!(taken(&mut ready), [1]);
        assert_eq!(ready.begin_search(1), Some(hint(5).position));
    }

    #[test]
    fn a_search_begins_early_only_while_the_latest_one_found_all_that_it_looked_for() {
        let mut ready = ready();
        assert!(!ready.runs_low(2), "nothing is known of the table yet");
        scanned(&mut ready, &[hint(1), hint(2)], hint(2).position.next());
        ready.ends_full();
        assert!(ready.has_backlog() && !ready.runs_low(2) && ready.runs_low(3));
        ready.begin_search(1);
        assert!(ready.has_backlog() && !ready.runs_low(3), "one is under way");
        ready.end_search(&[hint(3)], Position::END);
        ready.ends_full();
        assert!(!ready.has_backlog() && !ready.runs_low(9), "it has come to the end");
        ready.lower(hint(2).position);
        assert!(!ready.runs_low(9));
    }

    #[test]
    fn each_job_that_was_skipped_is_noted_once() {
        let mut ready = ready();
        scanned(&mut ready, &[], Position::END);
        assert!([7, 5, 7].into_iter().all(|job| ready.skip(job)));
        assert!(ready.leaves_more() && !ready.has_more());
        assert_eq!(ready.take_skipped(), [7, 5]);
        assert!(ready.take_skipped().is_empty() && !ready.leaves_more());
        assert!((0..MOST_SKIPPED as i64).all(|job| ready.skip(job)));
        assert!(ready.skip(3) && !ready.skip(-1));
    }

    #[test]
    fn jobs_of_one_task_are_taken_together() {
        let mut ready = ready();
        let other = |run_at| Hint { task: 2, ..hint(run_at) };
        scanned(&mut ready, &[hint(1), other(2), hint(3), other(4), hint(5), hint(6)], Position::END);
        let ids = |taken: Vec<Hint>| taken.iter().map(|hint| hint.position.id).collect::<Vec<_>>();
        assert_eq!(ids(ready.take(|_| 3)), [1, 3, 5]);
        assert_eq!(ids(ready.take(|_| 3)), [2, 4]);
        assert_eq!(ids(ready.take(|_| 3)), [6]);
        assert!(ready.take(|_| 3).is_empty());
    }

    #[test]
    fn jobs_of_queues_are_taken_one_by_one() {
        let mut ready = ready();
        let queued = |run_at| Hint { kind: Kind::Queued, ..hint(run_at) };
        scanned(&mut ready, &[queued(1), queued(2), hint(3), queued(4), hint(5)], Position::END);
        let ids = |taken: Vec<Hint>| taken.iter().map(|hint| hint.position.id).collect::<Vec<_>>();
        assert_eq!(ids(ready.take(|_| 3)), [1]);
        assert_eq!(ids(ready.take(|_| 3)), [2]);
        assert_eq!(ids(ready.take(|_| 3)), [3, 5]);
        assert_eq!(ids(ready.take(|_| 3)), [4]);
    }

    #[test]
    fn the_jobs_of_a_task_are_removed() {
        let mut ready = ready();
        let other = |run_at| Hint { task: 2, ..hint(run_at) };
        let queued = Hint { kind: Kind::Queued, ..hint(5) };
        scanned(&mut ready, &[other(1), hint(2), other(3), hint(4), queued, other(6)], Position::END);
        assert_eq!(ready.remove(1), Some((hint(2).position, hint(4).position)));
        assert_eq!(ready.remove(1), None);
        assert_eq!(taken(&mut ready), [1, 3, 5, 6]);
    }

    #[test]
    fn a_job_is_gone_on_with_only_if_nothing_stands_before_it() {
        let mut ready = ready();
        assert!(!ready.goes_on_at(hint(3).position, false), "nothing is known of the table yet");
        scanned(&mut ready, &[hint(2), hint(3), hint(5)], hint(7).position);
        assert!(!ready.goes_on_at(hint(3).position, false));
        assert!(ready.goes_on_at(hint(2).position, false));
        assert!(ready.goes_on_at(hint(1).position, false));
        assert_eq!(taken(&mut ready), [3, 5]);
        assert!(ready.goes_on_at(hint(7).position, false));
        assert!(!ready.goes_on_at(hint(8).position, false));
    }

    #[test]
    fn a_job_passes_a_few_that_are_in_queues_too() {
        let mut ready = ready();
        let queued = |run_at| Hint { kind: Kind::Queued, ..hint(run_at) };
        assert!(!ready.goes_on_at(hint(3).position, true), "nothing is known of the table yet");
        scanned(&mut ready, &[2, 3, 5, 6].map(queued), hint(7).position);
        assert!(!ready.goes_on_at(hint(5).position, false));
        assert!(ready.goes_on_at(hint(5).position, true));
        assert!(ready.goes_on_at(hint(4).position, true));
        let later = Position { priority: 1, ..hint(8).position };
        assert!(!ready.goes_on_at(later, true), "others of a higher priority may come before it");
        assert!(ready.goes_on_at(hint(8).position, true));
        ready.offer(hint(4));
        assert!(!ready.goes_on_at(hint(6).position, true), "one that is in no queue comes before it");
        assert!(!ready.goes_on_at(hint(8).position, true));
        assert!(ready.goes_on_at(hint(3).position, true));
        assert_eq!(taken(&mut ready), [2, 4, 6]);
        scanned(&mut ready, &[hint(7)], Position::END);
        assert_eq!(taken(&mut ready), [7]);
        let urgent = Position { priority: -1, ..hint(1).position };
        ready.offer(Hint { position: urgent, ..queued(1) });
        ready.offer(queued(2));
        assert!(!ready.goes_on_at(hint(2).position, true), "one of a higher priority comes before it");
        assert_eq!(taken(&mut ready), [1, 2]);
        (0..1002).for_each(|run_at| ready.offer(queued(run_at)));
        assert!(!ready.goes_on_at(hint(1001).position, true), "too many come before it");
        assert!(ready.goes_on_at(hint(1000).position, true));
        assert_eq!(ready.len(), 1001);
    }

    #[test]
    fn a_job_behind_others_without_room_is_on_the_list_at_once() {
        let mut ready = ready();
        scanned(&mut ready, &[], hint(5).position);
        ready.passes();
        assert_eq!(ready.begin_search(1), Some(hint(5).position));
        ready.offer(hint(9));
        ready.offer(Hint { position: Position { priority: 1, ..hint(10).position }, ..hint(10) });
        assert_eq!(ready.begins(), hint(5).position);
        assert!(!ready.goes_on_at(hint(9).position, false));
        assert_eq!(taken(&mut ready), [9], "one of a lower priority waits for its turn");
        // The search, whose snapshot may not show it, does not pass it.
        ready.end_search(&[], Position::END);
        assert_eq!(ready.begin_search(1), Some(hint(9).position));
        ready.offer(hint(11));
        assert!(taken(&mut ready).is_empty(), "it passes no more");
    }

    #[test]
    fn a_lower_watermark_is_passed_by_nothing() {
        let mut ready = ready();
        scanned(&mut ready, &[], hint(5).position);
        ready.passes();
        ready.lower(hint(3).position);
        ready.offer(hint(9));
        assert!(taken(&mut ready).is_empty());
    }

    #[test]
    fn a_full_list_drops_a_job_behind_the_watermark() {
        let mut ready = ready();
        scanned(&mut ready, &[], hint(i64::from(u32::MAX)).position);
        ready.passes();
        ready.offer(hint(i64::from(u32::MAX) + 1));
        (0..CAPACITY as i64).for_each(|run_at| ready.offer(hint(run_at)));
        assert_eq!(ready.len(), CAPACITY);
        assert_eq!(taken(&mut ready), (0..CAPACITY as i64).collect::<Vec<_>>());
        assert_eq!(ready.begin_search(1), Some(hint(i64::from(u32::MAX)).position));
    }

    #[test]
    fn the_first_job_is_taken_only_if_it_is_wanted() {
        let mut ready = ready();
        assert_eq!(ready.take_first_if(|_| true), None);
        scanned(&mut ready, &[hint(2), hint(3)], Position::END);
        assert_eq!(ready.take_first_if(|first| first.position.id == 3), None);
        assert_eq!(ready.take_first_if(|first| first.position.id == 2), Some(hint(2)));
        ready.offer(keyed(4, 1));
        assert_eq!(ready.take_first_if(|_| true), None, "a key is to have its turn");
        assert_eq!(taken(&mut ready), [4, 3]);
    }

    fn keyed(run_at: i64, key: u64) -> Hint {
        Hint { key, ..hint(run_at) }
    }

    #[test]
    fn keys_take_turns() {
        let mut ready = ready();
        let hints = [keyed(1, 1), keyed(2, 1), keyed(3, 1), keyed(4, 1), hint(5), hint(6), keyed(7, 2), keyed(8, 3)];
        scanned(&mut ready, &hints, Position::END);
        assert_eq!(taken(&mut ready), [1, 7, 8, 5, 2, 6, 3, 4]);
        assert!(ready.lanes.counts.iter().all(|&count| count == 0) && ready.lanes.used.iter().all(|&bits| bits == 0));
    }

    #[test]
    fn a_job_with_two_keys_is_looked_at_again() {
        let mut ready = ready();
        scanned(&mut ready, &[keyed(1, 1), keyed(2, 1)], Position::END);
        ready.offer(keyed(1, 2));
        ready.offer(keyed(2, 1));
        let keys: Vec<(i64, u64)> =
            std::iter::from_fn(|| ready.take(|_| 1).pop()).map(|hint| (hint.position.id, hint.key)).collect();
        assert_eq!(keys, [(2, 1), (1, NO_KEY)]);
    }

    #[test]
    fn a_key_s_turn_waits_for_higher_priorities() {
        let mut ready = ready();
        let low = |run_at, key| {
            let hint = keyed(run_at, key);
            Hint { position: Position { priority: 1, ..hint.position }, ..hint }
        };
        scanned(&mut ready, &[keyed(1, 1), keyed(2, 1), low(3, 2), low(4, 1)], Position::END);
        assert_eq!(taken(&mut ready), [1, 2, 3, 4]);
    }

    #[test]
    fn jobs_of_a_task_are_taken_with_the_one_whose_turn_it_is() {
        let mut ready = ready();
        scanned(&mut ready, &[keyed(1, 1), keyed(2, 1), keyed(3, 1), keyed(4, 2)], Position::END);
        let ids = |taken: Vec<Hint>| taken.iter().map(|hint| hint.position.id).collect::<Vec<_>>();
        assert_eq!(ids(ready.take(|_| 1)), [1]);
        assert_eq!(ids(ready.take(|_| 2)), [2, 4]);
        assert_eq!(ready.lanes.jobs, 1);
        assert_eq!(ids(ready.take(|_| 2)), [3]);
    }

    #[test]
    fn the_first_jobs_of_a_key_are_on_the_list_though_a_backlog_stands_before_them() {
        let mut ready = ready();
        (0..CAPACITY as i64 * 2).for_each(|run_at| ready.offer(keyed(run_at, 1)));
        scanned(&mut ready, &[], Position::END);
        (0..CAPACITY as i64 * 2).for_each(|run_at| ready.offer(keyed(run_at, 1)));
        assert_eq!((ready.len(), ready.watermark), (CAPACITY, hint(CAPACITY as i64).position));
        let behind = CAPACITY as i64 * 3;
        (0..100).for_each(|n| ready.offer(keyed(behind + n, 2)));
        assert_eq!(ready.watermark, hint(CAPACITY as i64 - i64::from(MOST_AHEAD)).position);
        let ids: Vec<i64> = (0..4).map(|_| ready.take(|_| 1)[0].position.id).collect();
        assert_eq!(ids, [0, behind, 1, behind + 1]);
        ready.lower(hint(2).position);
        let ids: Vec<i64> = (0..2).flat_map(|_| ready.take(|_| 1)).map(|hint| hint.position.id).collect();
        assert_eq!(ids, [behind + 2], "the next time, the search is due");
        assert_eq!(ready.begin_search(1), Some(hint(2).position));
    }

    #[test]
    fn room_at_the_front_is_used_again() {
        let mut ready = ready();
        scanned(&mut ready, &[], Position::END);
        for run_at in 0..CAPACITY as i64 * 3 {
            ready.offer(hint(run_at));
            if run_at % 2 == 1 {
                assert_eq!(ready.take(|_| 1)[0].position.id, run_at / 2);
            }
            if ready.len() == CAPACITY {
                break;
            }
        }
    }
}
