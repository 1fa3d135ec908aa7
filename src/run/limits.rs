//! Asking for room under limits before jobs are taken, and giving it back once they have ended.
//!
//! A job that finds no room waits in the entry of the limit (`src/shared/limits.rs`), and not on the ready list. If a
//! limit without keys has no room, the other jobs of its tasks are taken off the list too.

use super::Runner;
use crate::error::Error;
use crate::jobs::limited::{self, Granted};
use crate::jobs::queue_search::NextJob;
use crate::pg::catch::{Level, log_with};
use crate::pg::clock::{self, Tick, after};
use crate::pg::text::DbText;
use crate::pg::xact;
use crate::shared::limits::{self, Answer, Claim, NO_KEY, Opened};
use crate::shared::ready_list::Hint;
use crate::shared::{self, Board};
use crate::signals::wake;
use crate::tasks::registry::{Task, Tasks};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// What a worker has been granted, and what became of it.
#[derive(Default)]
pub struct Room {
    /// The jobs of this run.
    granted: RefCell<Rc<Granted>>,
    /// True once a handler was called.
    pub(super) has_begun: Cell<bool>,
    /// How many jobs have given back room of which no other worker was told.
    freed: Cell<u64>,
    /// When the log last said that the table is full.
    warned: Cell<Tick>,
}

impl Room {
    /// Returns what room was granted for in this run.
    pub(super) fn granted(&self) -> Rc<Granted> {
        self.granted.borrow().clone()
    }

    /// Returns how many jobs have given back room that this worker does not use itself, if it has taken so many jobs of
    /// the same limits since; and forgets them.
    pub fn freed_for_others(&self, taken: u64) -> u64 {
        self.freed.take().saturating_sub(taken)
    }
}

impl Runner {
    /// Asks for room for jobs of one task, `most` of them at most. Returns those that may begin. The others are put back,
    /// or wait.
    pub fn grant(
        &self,
        tasks: &Tasks,
        forbidden_flags: &[DbText],
        task: &Rc<Task>,
        hints: &[Hint],
        most: usize,
    ) -> Result<Vec<Hint>, Error> {
        let Some(board) = shared::board() else { return Ok(Vec::new()) };
        let needs_rows = limited::needs_rows(task, hints);
        if needs_rows {
            xact::begin_for_queue();
        }
        let jobs = limited::claims(task, hints)?;
        if needs_rows {
            xact::commit()?;
        }
        let answers = self.ask(board, task, &jobs, most);
        let mut granted = Vec::new();
        let mut left = Vec::new();
        let mut others = Vec::new();
        for ((hint, claims), answer) in jobs.iter().zip(answers) {
            match answer {
                Answer::Granted => granted.push(*hint),
                Answer::Left => left.push(*hint),
                Answer::Waits(at) => {
                    if claims[at].key == NO_KEY {
                        self.take_off_list(task, &claims[at]);
                    }
                    others.extend(claims.iter().enumerate().filter(|(of, _)| *of != at).map(|(_, claim)| claim.id()));
                }
                Answer::Full => (),
            }
        }
        // Under the other limits, those that wait leave their room to others. Those that are gone may have been what others
        // of their keys wait for.
        let is_one_gone = jobs.len() < hints.len();
        let searches = is_one_gone || !others.is_empty();
        if searches {
            others.sort_unstable();
            others.dedup();
            self.refill(tasks, forbidden_flags, (!is_one_gone).then_some(&others[..]))?;
        }
        if !left.is_empty() {
            wake::offer(board, self.database, self.role, &left, None);
            // While they were off the list, others may have found it empty.
            wake::wake(board, self.database, self.role, left.len());
        }
        Ok(granted)
    }

    /// Asks for room for the next job of a queue. Returns false if it has to wait. To be called within a transaction.
    pub(super) fn grant_next(&self, next: &NextJob) -> Result<bool, Error> {
        let Some(board) = shared::board() else { return Ok(false) };
        if next.task.limits.is_empty() {
            self.me.limits.asks_not();
            return Ok(true);
        }
        let claims = limited::claims_of_one(&next.task, next.hint.position.id)?;
        let answers = self.ask(board, &next.task, &[(next.hint, claims)], 1);
        Ok(answers.first() == Some(&Answer::Granted))
    }

    fn ask(&self, board: Board, task: &Rc<Task>, jobs: &[(Hint, Vec<Claim>)], most: usize) -> Vec<Answer> {
        self.room.has_begun.set(false);
        let (answers, next_start) = limits::grant(board, self.database, self.me, jobs, most);
        limited::tell_next_start(board.database(self.database), next_start);
        let mut keys = HashMap::new();
        for ((hint, claims), answer) in jobs.iter().zip(&answers) {
            match answer {
                Answer::Granted => {
                    keys.insert(hint.position.id, claims.iter().map(|claim| claim.key).collect());
                }
                Answer::Full => {
                    self.skipped(hint.position.id);
                    self.warn_of_full_table();
                }
                Answer::Waits(_) | Answer::Left => (),
            }
        }
        self.room.granted.replace(Rc::new(Granted { task: Some(task.clone()), keys }));
        answers
    }

    /// Takes the other jobs of a task off the list, as its limit has no room.
    fn take_off_list(&self, task: &Task, claim: &Claim) {
        if let Some((from, last)) = self.list.with(|ready| ready.remove(task.tag))
            && !limits::park(self.database, claim, from, last)
        {
            self.passed_over();
        }
    }

    fn warn_of_full_table(&self) {
        const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);
        let now = clock::tick();
        if self.room.warned.get() == 0 || after(self.room.warned.get(), BETWEEN_WARNINGS) <= now {
            self.room.warned.set(now);
            log_with(
                Level::Warning,
                "jobs wait because too many keys are limited at once",
                Some("A job under a rate, or under a limit that has no room, needs an entry for its key.".into()),
                Some("Raise kongtask.max_limit_keys, and restart the server.".into()),
            );
        }
    }

    /// Gives back all room. `left` are jobs that did not begin.
    pub fn give_back(&self, tasks: &Tasks, forbidden_flags: &[DbText], left: &[Hint]) -> Result<(), Error> {
        let has_begun = self.room.has_begun.take();
        let granted = self.room.granted.take();
        for &job in granted.keys.keys() {
            if !has_begun || left.iter().any(|hint| hint.position.id == job) {
                granted.claims(job).for_each(|claim| limits::take_back(self.database, &claim, 1));
            }
        }
        let (mut waiting, freed) = limits::release(self.database, self.me);
        self.room.freed.set(self.room.freed.get() + freed);
        waiting.retain(|&(limit, key)| !self.has_enough_on_list(tasks, limit, key));
        if waiting.is_empty() { Ok(()) } else { self.refill(tasks, forbidden_flags, Some(&waiting)) }
    }

    /// Returns true if there are so many jobs of a key on the list that those that wait need not be searched for yet: the
    /// worker that runs the last of them does that.
    fn has_enough_on_list(&self, tasks: &Tasks, limit: u64, key: u64) -> bool {
        const ENOUGH: usize = 8;
        let has_its_keys = |hint: &Hint| {
            let of_turns = tasks.tagged(self.role, hint.task).and_then(|task| limited::limit_of_turns(task));
            of_turns.is_some_and(|of_turns| of_turns.terms.id == limit)
        };
        key != NO_KEY && self.list.with(|ready| ready.has(ENOUGH, |hint| hint.key == key && has_its_keys(hint)))
    }

    /// Searches for jobs that wait under limits and keys that have room: those given, or all.
    pub fn refill(&self, tasks: &Tasks, forbidden_flags: &[DbText], which: Option<&[(u64, u64)]>) -> Result<(), Error> {
        let Some(board) = shared::board() else { return Ok(()) };
        let terms = |id| tasks.limits.get(id).map(|limit| &limit.terms);
        let (opened, next_start): (Vec<Opened>, Tick) = limits::open(board, self.database, Some(self.me), terms, which);
        limited::tell_next_start(board.database(self.database), next_start);
        if !opened.is_empty() {
            xact::begin_for_queue();
            limited::refill(board, self.database, tasks, forbidden_flags, &opened, Some(self.role))?;
            xact::commit()?;
            limits::opened(self.me);
        }
        Ok(())
    }

    /// Says that a handler is called.
    pub(super) fn begins(&self) {
        self.room.has_begun.set(true);
    }

    /// Says that the worker will ask for room for the job of a queue that it takes, if there are limits.
    pub fn asks_for_next_of_queue(&self, tasks: &Tasks) {
        if !tasks.limits.is_empty() {
            self.me.limits.ask_later();
        }
    }

    /// Wakes idle workers for jobs on the list for which this one has made room, unless it takes as many itself.
    pub fn tell_of_room(&self, board: Board, taken: u64) {
        let freed = self.room.freed_for_others(taken);
        if freed > 0 {
            let waiting = self.list.with(|ready| ready.len());
            wake::wake(board, self.database, self.role, waiting.min(freed as usize));
        }
    }

    /// Returns true if the worker holds room, or was to ask for some.
    pub fn holds_room(&self) -> bool {
        self.me.limits.is_used()
    }
}
