//! Pauses: tasks and queues of which no job begins for now.
//!
//! `kongtask.pauses` has them, and the copy of `kongtask.tasks` that each process keeps (see [`super::registry`]) has
//! them too. A pause that ends has the ready lists filled anew, as a change of the tasks has, so a job that was left out
//! for a pause needs no place on them:
//!
//! - Searches leave out paused jobs, and the watermark passes them once.
//! - A commit that adds a paused job offers it to no list. A pause that ends meanwhile may have been looked for before
//!   that commit: the commit looks once more whether the pauses are still those that it knew.
//! - A worker that has taken a job off the list, and finds it paused, forgets it. Its copy must be current for that: a
//!   pause that it knows and that has ended may be why the job is there.

use crate::pg::clock::{NEVER, Timestamp};
use crate::pg::text::DbText;
use std::collections::HashMap;

/// A row of `kongtask.pauses`.
pub struct Pause {
    /// `None` for all tasks.
    pub task: Option<DbText>,
    /// `None` for all jobs, in a queue or not.
    pub queue_name: Option<DbText>,
    /// `None` until it is resumed.
    pub until: Option<Timestamp>,
}

/// All pauses at one moment, those that have ended among them. Each time is when the pause ends.
#[derive(Default)]
pub struct Pauses {
    everything: Option<Timestamp>,
    tasks: HashMap<DbText, Timestamp>,
    queues: HashMap<DbText, Timestamp>,
    /// By queue and task.
    tasks_in_queues: HashMap<DbText, HashMap<DbText, Timestamp>>,
    ends: Vec<Timestamp>,
}

/// The pauses of some jobs of queues, as statements take them.
pub struct PausedQueues {
    /// Queues that are paused.
    pub whole: Vec<DbText>,
    /// Queues in which tasks are paused, and for each of them the task at the same place.
    pub parts: Vec<DbText>,
    pub tasks: Vec<DbText>,
}

impl Pauses {
    pub fn of(pauses: impl Iterator<Item = Pause>) -> Pauses {
        let mut all = Pauses::default();
        for Pause { task, queue_name, until } in pauses {
            let until = until.unwrap_or(NEVER);
            all.ends.push(until);
            match (task, queue_name) {
                (None, None) => all.everything = Some(until),
                (Some(task), None) => _ = all.tasks.insert(task, until),
                (None, Some(queue)) => _ = all.queues.insert(queue, until),
                (Some(task), Some(queue)) => _ = all.tasks_in_queues.entry(queue).or_default().insert(task, until),
            }
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns when the pauses end under which a job falls; `None` if it is not paused.
    pub fn until(&self, task: &DbText, queue_name: Option<&DbText>, now: Timestamp) -> Option<Timestamp> {
        if self.is_empty() {
            return None;
        }
        let of_queue = |queue| {
            let part = self.tasks_in_queues.get(queue).and_then(|tasks| tasks.get(task));
            self.queues.get(queue).max(part)
        };
        let ends = [self.everything.as_ref(), self.tasks.get(task), queue_name.and_then(of_queue)];
        ends.into_iter().flatten().copied().max().filter(|&end| end > now)
    }

    /// Returns true if everything is paused.
    pub fn is_everything_paused(&self, now: Timestamp) -> bool {
        self.everything.is_some_and(|end| end > now)
    }

    /// Returns true if no job of this queue may begin.
    pub fn is_queue_paused(&self, queue_name: &DbText, now: Timestamp) -> bool {
        self.queues.get(queue_name).is_some_and(|&end| end > now)
    }

    /// Returns the tasks that are paused by themselves, wherever their jobs are or in this queue.
    pub fn paused_tasks(&self, queue_name: Option<&DbText>, now: Timestamp) -> Vec<DbText> {
        let in_queue = queue_name.and_then(|queue| self.tasks_in_queues.get(queue)).into_iter().flatten();
        self.tasks.iter().chain(in_queue).filter(|&(_, &end)| end > now).map(|(task, _)| task.clone()).collect()
    }

    /// Returns the queues that are paused, wholly or for some tasks.
    pub fn paused_queues(&self, now: Timestamp) -> PausedQueues {
        let lasting = |&(_, &end): &(&DbText, &Timestamp)| end > now;
        let whole = self.queues.iter().filter(lasting).map(|(queue, _)| queue.clone()).collect();
        let parts = self
            .tasks_in_queues
            .iter()
            .flat_map(|(queue, tasks)| tasks.iter().filter(lasting).map(|(task, _)| (queue.clone(), task.clone())));
        let (parts, tasks) = parts.unzip();
        PausedQueues { whole, parts, tasks }
    }

    /// Returns how many pauses last.
    pub fn lasting(&self, now: Timestamp) -> usize {
        self.ends.iter().filter(|&&end| end > now).count()
    }

    /// Returns true if a pause has ended.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends.iter().any(|&end| end <= now)
    }

    /// Returns when the next pause ends; `NEVER` if none does by itself.
    pub fn next_end(&self, now: Timestamp) -> Timestamp {
        self.ends.iter().copied().filter(|&end| end > now).min().unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::{Pause, Pauses};
    use crate::pg::clock::NEVER;
    use crate::pg::text::DbText;

    fn text(text: &str) -> DbText {
        DbText::from(text)
    }

    fn pauses() -> Pauses {
        let pause = |task: Option<&str>, queue_name: Option<&str>, until| Pause {
            task: task.map(text),
            queue_name: queue_name.map(text),
            until,
        };
        Pauses::of(
            [pause(Some("a"), None, Some(10)), pause(None, Some("q"), Some(20)), pause(Some("a"), Some("r"), None)]
                .into_iter(),
        )
    }

    #[test]
    fn a_job_is_paused_until_the_last_pause_ends_that_it_falls_under() {
        let pauses = pauses();
        let until = |task: &str, queue: Option<&str>, now| pauses.until(&text(task), queue.map(text).as_ref(), now);
        assert_eq!(until("a", None, 9), Some(10));
        assert_eq!(until("a", None, 10), None);
        assert_eq!(until("b", None, 0), None);
        assert_eq!(until("a", Some("q"), 0), Some(20));
        assert_eq!(until("b", Some("q"), 19), Some(20));
        assert_eq!(until("b", Some("r"), 0), None);
        assert_eq!(until("a", Some("r"), 1000), Some(NEVER));
        assert_eq!((pauses.lasting(0), pauses.lasting(10), pauses.lasting(20)), (3, 2, 1));
        assert_eq!((pauses.next_end(0), pauses.next_end(10), pauses.next_end(20)), (10, 20, NEVER));
    }

    #[test]
    fn statements_get_what_lasts() {
        let pauses = pauses();
        assert_eq!(pauses.paused_tasks(None, 0), [text("a")]);
        assert!(pauses.paused_tasks(None, 10).is_empty());
        assert_eq!(pauses.paused_tasks(Some(&text("r")), 10), [text("a")]);
        let queues = pauses.paused_queues(10);
        assert_eq!((queues.whole, queues.parts, queues.tasks), (vec![text("q")], vec![text("r")], vec![text("a")]));
        assert!(pauses.paused_queues(20).whole.is_empty());
        assert!(pauses.is_queue_paused(&text("q"), 19) && !pauses.is_queue_paused(&text("q"), 20));
        assert!(!pauses.is_everything_paused(0));
    }
}
