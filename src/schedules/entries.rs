//! The schedules of this database as the scheduler knows them: when each is due next, in a heap, so that a fire costs
//! no look at the others. What its jobs are like is read when it fires. The schedules are read again when
//! `kongtask.crontab`, or a role, has changed; what has stayed the same keeps its place.

use super::cron::Cron;
use super::plan::{Missed, Past, Round, Times, round};
use super::{Zone, zone};
use crate::error::{Error, headline};
use crate::pg::catalog;
use crate::pg::catch::{Level, log};
use crate::pg::clock::{NEVER, Timestamp};
use crate::pg::invalidation::Watch;
use crate::pg::spi::{Plan, plan};
use crate::pg::text::DbText;
use crate::pg::xact::LatestSnapshot;
use crate::schema;
use crate::schema::job_row::timestamp;
use crate::shared::uptime::Span;
use pgrx::pg_sys::Oid;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// A schedule that is active, and whose cron expression and time zone are valid.
pub struct Entry {
    cron: Rc<Cron>,
    zone: Zone,
    /// Tells whether its times, or what it does about missed runs, have changed.
    version: u64,
    missed: Missed,
    missed_within: Option<i64>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    scheduled_at: Timestamp,
    /// What lies before this was missed.
    begun: Timestamp,
    /// Nothing up to here is due any more.
    done: Timestamp,
    /// The first instant that it has not fired for; `NEVER`: there is none.
    due: Timestamp,
    /// When to fire it: at that instant, or later where that has failed.
    wake: Timestamp,
    /// How often it has failed since it fired.
    pub failures: u32,
    /// How often another transaction has had its row locked since it fired.
    pub waits: u32,
}

impl Entry {
    fn times(&self) -> Times<'_, Zone> {
        Times { cron: &self.cron, zone: &self.zone, ends_at: self.ends_at }
    }

    /// Nothing up to `done` is due any more: finds out what is.
    fn go_on(&mut self, done: Timestamp) {
        self.done = self.done.max(done);
        let after = self.done.max(self.starts_at.saturating_sub(1));
        self.due = self.times().next_after(after).unwrap_or(NEVER);
        self.wake = self.due;
    }

    /// What to do about it now, where it was last fired at `last`; `None`: nothing.
    pub fn round(&self, last: Option<Timestamp>, former: Span, now: Timestamp) -> Option<Round> {
        let due = match last {
            // Another process has fired it.
            Some(last) if last >= self.due => self.times().next_after(last)?,
            _ => self.due,
        };
        let known_since = self.scheduled_at.max(former.since);
        let past = Past { begun: self.begun, former: former.until, known_since, now };
        (due <= now).then(|| round(&self.times(), (self.missed, self.missed_within), due, past))
    }
}

/// All of them.
#[derive(Default)]
pub struct Entries {
    entries: HashMap<Rc<DbText>, Entry>,
    /// By when they wake. One whose time has changed since is passed over.
    heap: BinaryHeap<Reverse<(Timestamp, Rc<DbText>)>>,
    /// The table that they were read from.
    table: Option<Oid>,
    /// Those that cannot be read, and why.
    broken: HashMap<DbText, DbText>,
    /// Whether the table calls a role by a name that it no longer has.
    pub has_former_names: bool,
}

static WATCH: Watch = Watch::new().and_roles();

impl Entries {
    /// True while nothing tells that they have changed.
    pub fn are_current(&self) -> bool {
        self.table.is_some() && !WATCH.is_stale()
    }

    /// Reads them again: for the first time in a scheduler that has `begun`, or as it has heard of a change, since when a
    /// schedule that is new, or whose times have changed, fires. `told` is when it has heard, and since when what is not
    /// known yet is new. Within a transaction. Returns those that have been due between being scheduled and being heard
    /// of, as they were committed later: the next scheduler would not know that they were not to fire.
    pub fn read(&mut self, begun: Timestamp, told: Option<(Timestamp, Timestamp)>) -> Result<Vec<Rc<DbText>>, Error> {
        static ALL: Plan = plan!("schedules");
        // Before ALTER EXTENSION UPDATE there is none.
        let Some(table) = catalog::relation("kongtask", "crontab") else {
            *self = Entries::default();
            return Ok(Vec::new());
        };
        WATCH.renew();
        WATCH.relation(table);
        let _snapshot = LatestSnapshot::take();
        let session = schema::session().inspect_err(|_| WATCH.spoil())?;
        let rows = session.read(&ALL, &[]).inspect_err(|_| WATCH.spoil())?;
        let mut former = std::mem::take(&mut self.entries);
        let mut known = Known::default();
        let (mut broken, mut late) = (HashMap::new(), Vec::new());
        self.has_former_names = false;
        for row in 0..rows.count() {
            let text = |column| rows.get::<DbText>(row, column).unwrap_or_default();
            let time = |column| timestamp(rows.value(row, column));
            let (name, cron, timezone, missed) = (text(0), text(1), text(2), text(3));
            let within: Option<f64> = rows.get(row, 4);
            let (starts_at, ends_at, since, scheduled_at) = (time(5), time(6), time(7), time(8));
            self.has_former_names |= rows.get(row, 10).unwrap_or(false);
            let mut hasher = DefaultHasher::new();
            (&cron, &timezone, &missed, within.map(f64::to_bits), starts_at, ends_at, since, scheduled_at)
                .hash(&mut hasher);
            let (version, name) = (hasher.finish(), Rc::new(name));
            let done = time(9).unwrap_or(0);
            if let Some((name, mut entry)) = former.remove_entry(&name).filter(|(_, entry)| entry.version == version) {
                if done > entry.done {
                    entry.go_on(done);
                }
                self.entries.insert(name, entry);
                continue;
            }
            let (cron, zone) = match known.read(&cron, &timezone) {
                Ok(read) => read,
                Err(error) => {
                    broken.insert((*name).clone(), headline(&error.read()));
                    continue;
                }
            };
            let since = since.unwrap_or(i64::MIN);
            let scheduled_at = scheduled_at.unwrap_or(since);
            let heard_of = told.filter(|&(_, new_since)| scheduled_at >= new_since).map(|(heard_of, _)| heard_of);
            let mut entry = Entry {
                cron,
                zone,
                version,
                missed: Missed::parse(missed.as_bytes()).unwrap_or(Missed::Skip),
                missed_within: within.map(|seconds| (seconds * 1e6) as i64),
                starts_at: starts_at.unwrap_or(i64::MIN),
                ends_at: ends_at.unwrap_or(i64::MAX),
                scheduled_at,
                begun: scheduled_at.max(heard_of.unwrap_or(begun)),
                done,
                due: NEVER,
                wake: NEVER,
                failures: 0,
                waits: 0,
            };
            entry.go_on(done);
            if since >= scheduled_at
                && let Some(heard_of) = heard_of
            {
                if entry.due <= heard_of {
                    late.push(name.clone());
                }
                entry.go_on(heard_of);
            }
            self.entries.insert(name, entry);
        }
        self.table = Some(table);
        self.complain(broken);
        self.heap = self.entries.iter().map(|(name, entry)| Reverse((entry.wake, name.clone()))).collect();
        Ok(late)
    }

    fn complain(&mut self, broken: HashMap<DbText, DbText>) {
        for (name, why) in &broken {
            if self.broken.get(name) != Some(why) {
                log(Level::Warning, format!("schedule \"{name}\" does not fire: {why}"));
            }
        }
        self.broken = broken;
    }

    /// Returns true if one is to be fired later than it was due.
    pub fn are_put_off(&self) -> bool {
        self.entries.values().any(|entry| entry.wake != entry.due)
    }

    /// When the first of them wakes.
    pub fn next(&mut self) -> Option<Timestamp> {
        loop {
            let Reverse((wake, name)) = self.heap.peek()?;
            if self.entries.get(name).is_some_and(|entry| entry.wake == *wake) {
                return (*wake != NEVER).then_some(*wake);
            }
            self.heap.pop();
        }
    }

    /// Takes up to `most` of those that are to be fired. Each is given back by [`Entries::fired`] or
    /// [`Entries::put_off`].
    pub fn take(&mut self, now: Timestamp, most: usize) -> Vec<Rc<DbText>> {
        let mut taken = Vec::new();
        while taken.len() < most
            && self.next().is_some_and(|wake| wake <= now)
            && let Some(Reverse((_, name))) = self.heap.pop()
        {
            taken.push(name);
        }
        taken
    }

    pub fn get_mut(&mut self, name: &DbText) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    /// Nothing of it is due any more up to `done`.
    pub fn fired(&mut self, name: Rc<DbText>, done: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&name) {
            (entry.failures, entry.waits) = (0, 0);
            entry.go_on(done);
            self.heap.push(Reverse((entry.wake, name)));
        }
    }

    /// It is to be fired later, for the same instant.
    pub fn put_off(&mut self, name: Rc<DbText>, until: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.wake = until;
            self.heap.push(Reverse((until, name)));
        }
    }

    /// It is there no more; that will be read.
    pub fn forget(&mut self, name: &DbText) {
        self.entries.remove(name);
    }
}

/// What has been read of them, which many have in common.
#[derive(Default)]
struct Known {
    crons: HashMap<DbText, Rc<Cron>>,
    zones: HashMap<DbText, Zone>,
}

impl Known {
    fn read(&mut self, cron: &DbText, timezone: &DbText) -> Result<(Rc<Cron>, Zone), Error> {
        let zone = match self.zones.get(timezone) {
            Some(zone) => *zone,
            None => *self.zones.entry(timezone.clone()).or_insert(zone(timezone)?),
        };
        let cron = match self.crons.get(cron) {
            Some(cron) => cron.clone(),
            None => {
                let read = Rc::new(Cron::parse(&cron.to_string())?);
                self.crons.insert(cron.clone(), read.clone());
                read
            }
        };
        Ok((cron, zone))
    }
}
