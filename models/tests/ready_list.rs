//! The ready list and its watermark, beside commits: a job that has committed is on the list, or a search will find it.
//!
//! Two sessions commit jobs while a worker searches and takes. A job can be seen by a search from its commit on; its session puts
//! it on the list later. Nothing is woken here: once all three are done, another worker must find every job that is left.

use kongtask_models::explore;
use kongtask_models::ready_list::{CAPACITY, Hint, Kind, Position, ReadyList};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The steps that the models can take wrongly.
#[derive(Clone, Copy)]
struct Steps {
    offer: fn(&mut ReadyList, Hint),
    end_search: fn(&mut ReadyList, &[Hint], Position),
    /// Whether a session puts its job on the list before the job is visible.
    offers_early: bool,
}

const RIGHT: Steps = Steps { offer: ReadyList::offer, end_search: ReadyList::end_search, offers_early: false };

const SESSION: i32 = 1;

fn hint(run_at: i64) -> Hint {
    Hint { position: Position { priority: 0, run_at, id: run_at }, key: 0, row: 0, task: 1, kind: Kind::Plain }
}

/// The committed rows of `jobs`, and the list of the role that runs them.
struct Queue {
    rows: Mutex<Vec<i64>>,
    list: Mutex<Box<ReadyList>>,
    steps: Steps,
}

impl Queue {
    fn new(steps: Steps, rows: &[i64]) -> Queue {
        // SAFETY: only numbers, and an enum that has a variant 0.
        let mut list: Box<ReadyList> = unsafe { Box::new_zeroed().assume_init() };
        list.reset();
        Queue { rows: Mutex::new(rows.to_vec()), list: Mutex::new(list), steps }
    }

    fn add(&self, jobs: &[i64]) {
        let offer = || {
            let mut list = self.list.lock().unwrap();
            jobs.iter().for_each(|&job| (self.steps.offer)(&mut list, hint(job)));
        };
        if self.steps.offers_early {
            offer();
        }
        self.rows.lock().unwrap().extend(jobs);
        if !self.steps.offers_early {
            offer();
        }
    }

    /// Runs one job of the list, or searches for some; false if there was nothing to do. A job's row decides whether it can run.
    fn work(&self, pid: i32) -> bool {
        let taken = self.list.lock().unwrap().take(|_| 1);
        if let Some(taken) = taken.first() {
            self.rows.lock().unwrap().retain(|&row| row != taken.position.id);
            return true;
        }
        let Some(from) = self.list.lock().unwrap().begin_search(pid) else { return false };
        let mut snapshot = self.rows.lock().unwrap().clone();
        snapshot.sort_unstable();
        let all: Vec<Hint> = snapshot.into_iter().map(hint).filter(|hint| hint.position >= from).collect();
        let found = &all[..all.len().min(CAPACITY)];
        let to = if found.len() == CAPACITY { found[CAPACITY - 1].position.next() } else { Position::END };
        (self.steps.end_search)(&mut self.list.lock().unwrap(), found, to);
        true
    }
}

/// Two sessions, one of which adds two jobs, and a worker that does `rounds` things beside them.
fn sessions_beside_a_search(steps: Steps, rows: &'static [i64], adds: [&'static [i64]; 2], rounds: usize) {
    explore(3, move || {
        let queue = Arc::new(Queue::new(steps, rows));
        let sessions = adds.map(|jobs| {
            let queue = queue.clone();
            thread::spawn(move || queue.add(jobs))
        });
        for _ in 0..rounds {
            queue.work(SESSION);
        }
        for session in sessions {
            session.join().unwrap();
        }
        while queue.work(SESSION) {}
        assert!(queue.rows.lock().unwrap().is_empty(), "a job is on no list, and before the watermark");
    });
}

#[test]
fn a_job_that_commits_beside_a_search_is_found() {
    sessions_beside_a_search(RIGHT, &[], [&[5], &[3]], 1);
    sessions_beside_a_search(RIGHT, &[4], [&[5], &[3]], 3);
}

#[test]
fn a_job_that_commits_beside_a_full_list_is_found() {
    sessions_beside_a_search(RIGHT, &[2, 6], [&[7, 1], &[4]], 2);
    sessions_beside_a_search(RIGHT, &[2, 4, 6], [&[5], &[3]], 4);
}

#[test]
fn a_search_that_is_given_up_is_begun_again() {
    explore(3, || {
        let queue = Arc::new(Queue::new(RIGHT, &[4]));
        let worker = {
            let queue = queue.clone();
            thread::spawn(move || {
                // Its process ends in the midst of the search.
                let begun = queue.list.lock().unwrap().begin_search(SESSION + 1);
                queue.list.lock().unwrap().abandon_search(SESSION + 1);
                begun
            })
        };
        queue.add(&[3]);
        queue.work(SESSION);
        worker.join().unwrap();
        while queue.work(SESSION) {}
        assert!(queue.rows.lock().unwrap().is_empty());
    });
}

#[test]
#[should_panic(expected = "before the watermark")]
fn broken_if_the_end_of_a_search_ignores_what_was_added_meanwhile() {
    fn end_search(list: &mut ReadyList, found: &[Hint], to: Position) {
        list.abandon_search(SESSION);
        // Forgets what was added since the search began.
        list.begin_search(SESSION);
        list.end_search(found, to);
    }
    sessions_beside_a_search(Steps { end_search, ..RIGHT }, &[], [&[5], &[3]], 1);
}

#[test]
#[should_panic(expected = "before the watermark")]
fn broken_if_a_full_list_drops_what_is_offered() {
    fn offer(list: &mut ReadyList, hint: Hint) {
        if list.len() < CAPACITY {
            list.offer(hint);
        }
    }
    sessions_beside_a_search(Steps { offer, ..RIGHT }, &[], [&[7, 1], &[4]], 1);
}

#[test]
#[should_panic(expected = "before the watermark")]
fn broken_if_a_job_is_offered_before_its_commit() {
    sessions_beside_a_search(Steps { offers_early: true, ..RIGHT }, &[], [&[5], &[3]], 2);
}
