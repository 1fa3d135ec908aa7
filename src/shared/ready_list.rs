//! What is ready to run, of one role: a list of jobs in the order in which they run, and a mark.
//!
//! ```text
//!              the list                    the table
//!    ┌────┬────┬────┬────┬────┐ mark ┌────┬────┬────┬────┬─ ─ ─
//!    │    │    │    │    │    │  │   │    │    │    │    │
//!    └────┴────┴────┴────┴────┘  │   └────┴────┴────┴────┴─ ─ ─
//!      ▲ workers take from here       ▲ a scan goes on from here when the list is empty
//! ```
//!
//! Every job that can run is on the list or lies at the mark or behind it. So a commit that adds a job puts it on the list
//! where it lies before the mark, and need do nothing else: a queue that its workers keep up with is never searched, and
//! what is dead, failed, or scheduled for later is passed once, by the scan that moved the mark past it.
//!
//! A list is a hint. The row's lock decides who runs a job, and whoever takes one off the list checks everything again.
//!
//! Plain data without pointers, as it lies in shared memory; who uses it holds its lock.

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

    /// The place just behind this one.
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
    /// Tells its task from others: see [`crate::tasks::registry::tag`].
    pub task: u32,
    pub kind: Kind,
}

impl Hint {
    /// Whether both can be taken together.
    fn goes_with(&self, other: &Hint) -> bool {
        self.task == other.task
            && self.position.priority == other.position.priority
            && (self.kind == Kind::Queued) == (other.kind == Kind::Queued)
    }
}

/// How many jobs a list holds: as many as one call of a handler may get.
pub const CAPACITY: usize = 10_000;

/// The list and the mark.
#[repr(C)]
pub struct ReadyList {
    watermark: Position,
    /// The lowest place where something was added at the mark or behind it since the scan that is under way began.
    lowered: Position,
    /// Whose scan is under way; 0: none is.
    searcher: i32,
    first: usize,
    count: usize,
    hints: [Hint; CAPACITY],
}

impl ReadyList {
    /// Forgets everything: all of the table is to be scanned.
    pub fn reset(&mut self) {
        (self.first, self.count, self.searcher) = (0, 0, 0);
        (self.watermark, self.lowered) = (Position::START, Position::END);
    }

    fn list(&self) -> &[Hint] {
        &self.hints[self.first..self.first + self.count]
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there may be something to run.
    pub fn has_more(&self) -> bool {
        self.count > 0 || (self.watermark != Position::END && self.searcher == 0)
    }

    /// Where what is known begins.
    pub fn begins(&self) -> Position {
        self.list().first().map_or(self.watermark, |hint| hint.position)
    }

    /// Puts a job on the list, unless it is there, or lies where a scan will find it.
    pub fn offer(&mut self, hint: Hint) {
        if hint.position >= self.watermark {
            self.lowered = self.lowered.min(hint.position);
            return;
        }
        // Mostly the new one is the last.
        let at = match self.list().last() {
            Some(last) if last.position >= hint.position => {
                self.list().partition_point(|other| other.position < hint.position)
            }
            _ => self.count,
        };
        if self.list().get(at).is_some_and(|other| other.position == hint.position) {
            return;
        }
        if self.count == CAPACITY {
            let last = if at == CAPACITY { hint.position } else { self.hints[self.first + CAPACITY - 1].position };
            self.lower(last);
            if at == CAPACITY {
                return;
            }
        }
        if self.first + self.count == CAPACITY {
            self.hints.copy_within(self.first..CAPACITY, 0);
            self.first = 0;
        }
        let (at, end) = (self.first + at, self.first + self.count);
        self.hints.copy_within(at..end, at + 1);
        self.hints[at] = hint;
        self.count += 1;
    }

    /// There may be anything at this place and behind it.
    pub fn lower(&mut self, position: Position) {
        self.lowered = self.lowered.min(position);
        if position < self.watermark {
            self.watermark = position;
            self.count = self.list().partition_point(|hint| hint.position < position);
        }
    }

    /// Takes the first job, and with it the next that can be taken together with it: `most` tells how many at most.
    pub fn take(&mut self, most: impl FnOnce(&Hint) -> usize) -> Vec<Hint> {
        let Some(&head) = self.list().first() else { return Vec::new() };
        let most = most(&head);
        if most <= 1 {
            self.first += 1;
            self.count -= 1;
            return vec![head];
        }
        let mut taken = Vec::with_capacity(most.min(self.count));
        let (first, end) = (self.first, self.first + self.count);
        let (mut at, mut kept) = (first, 0);
        while at < end && taken.len() < most {
            let hint = self.hints[at];
            if hint.goes_with(&head) {
                taken.push(hint);
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
        taken
    }

    /// Begins a scan, and says from where; `None` if there is nothing to scan, or somebody is at it.
    pub fn begin_search(&mut self, searcher: i32) -> Option<Position> {
        if self.searcher != 0 || self.watermark == Position::END {
            return None;
        }
        self.searcher = searcher;
        self.lowered = Position::END;
        Some(self.watermark)
    }

    /// Ends the scan: everything from where it began up to `to` is `found`.
    pub fn end_search(&mut self, found: &[Hint], to: Position) {
        self.searcher = 0;
        // What was added there meanwhile, the scan may have missed.
        self.watermark = to.min(self.lowered);
        for &hint in found {
            self.offer(hint);
        }
    }

    /// The process is gone: if it was scanning, the next one is to begin where it did.
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
        Hint { position: Position { priority: 0, run_at, id: run_at }, task: 1, kind: Kind::Plain }
    }

    fn taken(ready: &mut ReadyList) -> Vec<i64> {
        std::iter::from_fn(|| ready.take(|_| 1).first().map(|hint| hint.position.id)).collect()
    }

    fn scanned(ready: &mut ReadyList, found: &[Hint], to: Position) {
        ready.begin_search(1).expect("something to scan");
        ready.end_search(found, to);
    }

    #[test]
    fn what_lies_before_the_mark_is_put_in_order() {
        let mut ready = ready();
        scanned(&mut ready, &[], Position::END);
        for run_at in [5, 1, 3, 3, 9, 2] {
            ready.offer(hint(run_at));
        }
        assert_eq!(taken(&mut ready), [1, 2, 3, 5, 9]);
        assert!(!ready.has_more());
    }

    #[test]
    fn what_lies_behind_the_mark_is_left_to_the_scan() {
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
    fn a_lower_mark_cuts_the_list() {
        let mut ready = ready();
        scanned(&mut ready, &[hint(1), hint(5), hint(7)], Position::END);
        ready.lower(hint(5).position);
        assert_eq!(taken(&mut ready), [1]);
        assert_eq!(ready.begin_search(1), Some(hint(5).position));
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
