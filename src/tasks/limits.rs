//! Limits: how many jobs run at once, and how many begin in a time. `kongtask.limit_settings` has them, and the column
//! `concurrency` of `kongtask.tasks`. The copy of the tasks that each process keeps (see [`super::registry`]) has them too.
//! The room that they leave is in shared memory: `src/shared/limits.rs`.

use crate::pg::args::Text;
use crate::pg::procedure::Callable;
use crate::pg::spi::Value;
use crate::pg::text::{DbText, text};
use crate::shared::limits::{Claim, NO_KEY, Rate, Terms};
use pgrx::pg_sys;
use std::rc::Rc;

/// What the name of the limit begins with that stands for the concurrency of a task.
pub const OF_TASK: &str = "task:";

/// What jobs are limited by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum By {
    Queue,
    /// A member of the payload.
    Member(DbText),
}

impl By {
    pub fn of(name: DbText) -> By {
        if name == *"queue_name" { By::Queue } else { By::Member(name) }
    }

    /// Returns the value by which a job is limited; `None` if it has none.
    pub fn value(&self, payload: Value, queue_name: Value) -> Option<DbText> {
        match self {
            By::Queue => queue_name.map(|name| Text::new(name).read()),
            By::Member(member) => payload.and_then(|payload| self::member(payload, member)),
        }
    }

    /// Returns the hash of that value.
    pub fn key(&self, payload: Value, queue_name: Value) -> u64 {
        key(self.value(payload, queue_name).as_ref())
    }
}

/// Returns a member of an object as a text. A payload that has none, and a text that cannot be one of this database, are
/// as if there were no member.
fn member(payload: pg_sys::Datum, member: &DbText) -> Option<DbText> {
    let function = pg_sys::Oid::from(pg_sys::F_JSON_OBJECT_FIELD_TEXT);
    let value = Callable::new(function).and_then(|function| function.call(&[Some(payload), text(member)]));
    value.ok().flatten().map(|value| Text::new(value).read())
}

/// Returns the hash of a key, which is not [`NO_KEY`].
pub fn key(value: Option<&DbText>) -> u64 {
    value.map_or(1, |value| hash(b"=", value.as_bytes()).max(2))
}

/// FNV-1a, which is the same in all processes.
fn hash(kind: &[u8], bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    kind.iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, step)
}

/// A limit.
#[derive(PartialEq, Eq, Debug)]
pub struct Limit {
    pub name: DbText,
    /// `None` for all.
    pub tasks: Option<Vec<DbText>>,
    /// `None` if all of its jobs are limited together.
    pub by: Option<By>,
    pub terms: Terms,
}

/// A row of `kongtask.limit_settings`.
pub struct Settings {
    pub name: DbText,
    pub tasks: Option<Vec<DbText>>,
    pub by: Option<DbText>,
    pub concurrency: Option<i32>,
    pub rate: Option<i32>,
    /// In seconds.
    pub per: Option<f64>,
    pub burst: i32,
}

impl Limit {
    pub fn new(settings: Settings, tag: impl Fn(&DbText) -> u32) -> Limit {
        let Settings { name, tasks, by, concurrency, rate, per, burst } = settings;
        let by = by.map(By::of);
        let interval = |rate: i32, per: f64| (per * 1e6 / f64::from(rate.max(1))).ceil().max(1.0) as i64;
        let terms = Terms {
            id: hash(b"limit", name.as_bytes()),
            tags: tasks.as_ref().map(|tasks| tasks.iter().map(tag).collect()),
            has_keys: by.is_some(),
            concurrency: concurrency.and_then(|most| u32::try_from(most).ok()),
            rate: rate.zip(per).map(|(rate, per)| Rate { interval: interval(rate, per), burst: i64::from(burst) }),
        };
        Limit { name, tasks, by, terms }
    }

    /// Returns the limit that the concurrency of a task stands for.
    pub fn of_task(task: &DbText, concurrency: i32, tag: impl Fn(&DbText) -> u32) -> Limit {
        let mut name = DbText::from(OF_TASK);
        name.push(task);
        let settings = Settings {
            name,
            tasks: Some(vec![task.clone()]),
            by: None,
            concurrency: Some(concurrency),
            rate: None,
            per: None,
            burst: 1,
        };
        Limit::new(settings, tag)
    }

    pub fn covers(&self, task: &DbText) -> bool {
        self.tasks.as_ref().is_none_or(|tasks| tasks.contains(task))
    }

    /// Returns what stands for a job under this limit.
    pub fn claim(&self, payload: Value, queue_name: Value) -> Claim<'_> {
        let key = self.by.as_ref().map_or(NO_KEY, |by| by.key(payload, queue_name));
        Claim { terms: &self.terms, key }
    }
}

/// All limits at one moment.
#[derive(Default)]
pub struct Limits(Vec<Rc<Limit>>);

impl Limits {
    pub fn of(limits: impl Iterator<Item = Limit>) -> Limits {
        Limits(limits.map(Rc::new).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Limit>> {
        self.0.iter()
    }

    /// Returns those that a task falls under.
    pub fn of_task(&self, task: &DbText) -> Vec<Rc<Limit>> {
        self.iter().filter(|limit| limit.covers(task)).cloned().collect()
    }

    /// Returns the limit that has this hash.
    pub fn get(&self, id: u64) -> Option<&Rc<Limit>> {
        self.iter().find(|limit| limit.terms.id == id)
    }

    pub fn named(&self, name: &DbText) -> Option<&Rc<Limit>> {
        self.iter().find(|limit| limit.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::{By, Limit, Settings, key};
    use crate::pg::text::DbText;

    #[test]
    fn no_key_is_like_a_value() {
        let keys = [None, Some(""), Some("a"), Some("b")].map(|value| key(value.map(DbText::from).as_ref()));
        assert!((0..keys.len()).all(|at| keys[at] != super::NO_KEY && !keys[at + 1..].contains(&keys[at])));
        assert_eq!(By::of("queue_name".into()), By::Queue);
    }

    #[test]
    fn no_start_comes_earlier_than_the_rate_says() {
        let settings = |rate, per| Settings {
            name: "a".into(),
            tasks: None,
            by: None,
            concurrency: None,
            rate: Some(rate),
            per: Some(per),
            burst: 1,
        };
        let interval = |rate, per| Limit::new(settings(rate, per), |_| 0).terms.rate.map(|rate| rate.interval);
        assert_eq!(interval(3, 1.0), Some(333_334));
        assert_eq!(interval(10, 1.0), Some(100_000));
        assert_eq!(interval(i32::MAX, 0.001), Some(1));
    }
}
