//! Firing schedules, in the scheduler of their database.
//!
//! ```text
//!   due ──► lock its row of known_crontabs ──► move last_execution on ──► add the job ──► note it ──► commit ──► due next
//!             │ another transaction has it                 │ it is there already: graphile-worker's process has fired it
//!             └─► again in a moment                        └─► due next
//! ```
//!
//! All of it is one transaction, so that a crash anywhere leaves both or neither. It waits for no row, and for tables
//! no longer than a scheduler may, which has others to serve. Many that are due at once share a transaction; where that
//! fails, each has its own, and what fails again is tried later, alone.

use super::entries::Entries;
use super::plan::iso;
use crate::error::{Error, headline};
use crate::jobs::add;
use crate::jobs::new_job::{KeyMode, NewJob};
use crate::pg::args::{Row, Text};
use crate::pg::catch::{Level, Raise, log_with};
use crate::pg::clock::{self, NEVER, Timestamp, after};
use crate::pg::spi::{Plan, Rows, Value, plan};
use crate::pg::text::{DbText, text};
use crate::pg::{background, fault, procedure, role, version, xact};
use crate::schema;
use crate::schema::job_row::{attribute, timestamp};
use crate::shared::DatabaseEntry;
use crate::shared::uptime::{self, Span, Uptime};
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How many schedules share a transaction.
const AT_ONCE: usize = 50;

/// For how long schedules are fired before the scheduler does something else.
const SLICE: Duration = Duration::from_millis(50);

/// The schedules of this database, and what is known of the time before now.
pub struct Schedules {
    entries: Entries,
    /// When this scheduler began to serve.
    begun: Timestamp,
    uptime: Option<&'static Uptime>,
    /// When the former scheduler was alive, or the launcher watched in its place.
    former: Span,
    /// If the launcher has watched: since when what is scheduled is new, as no scheduler has heard of it.
    new_since: Option<Timestamp>,
    /// True once what was missed before this scheduler began is seen to.
    has_caught_up: bool,
    /// False until they are read for the first time.
    are_read: bool,
    /// When to try again to read them, where a lock has kept that from being done.
    read_again: Option<Timestamp>,
}

/// What became of a schedule that was due.
enum Fired {
    /// Nothing up to here is due any more.
    Until(Timestamp),
    /// Another transaction has its row locked.
    Locked,
    /// It was removed, or is not active any more.
    Gone,
}

impl Schedules {
    /// Those of a scheduler that begins. `watched` is the database's entry if the launcher has watched it since the former
    /// scheduler left: then what has fallen due meanwhile is late, as if that one had stayed.
    pub fn new(database: Oid, watched: Option<&DatabaseEntry>) -> Schedules {
        let uptime = uptime::of(database);
        let begun = clock::now();
        let mut new_since = None;
        if let (Some(entry), Some(uptime)) = (watched, uptime) {
            // Nothing that the former scheduler knew was due before. What has changed since has been told of.
            let (fires_at, told) = (entry.fires_at.load(SeqCst), entry.schedules_changed.load(SeqCst));
            uptime.store(Span { since: fires_at.min(told).min(begun), until: begun });
            // A change that was begun before the former scheduler left may be new, too. Where nothing was due before the
            // change was told of, all can be taken to be new.
            new_since = Some(if fires_at > told { i64::MIN } else { entry.left_at.load(SeqCst) });
        }
        Schedules {
            entries: Entries::default(),
            begun,
            uptime,
            former: uptime.map_or(Span::NONE, Uptime::span),
            new_since,
            has_caught_up: false,
            are_read: false,
            read_again: None,
        }
    }

    /// Nothing was fired for a while, although the scheduler ran: what fell due meanwhile was missed.
    pub fn start_over(&mut self, database: Oid) {
        *self = Schedules::new(database, None);
    }

    /// When the next one is due.
    pub fn next(&mut self) -> Option<Timestamp> {
        self.entries.next().into_iter().chain(self.read_again).min()
    }

    /// Returns true once what was missed before this scheduler began is seen to.
    pub fn have_caught_up(&self) -> bool {
        self.has_caught_up
    }

    /// Returns a time before which no schedule is due: that of the next one, unless one has been put off.
    pub fn due_since(&mut self) -> Timestamp {
        if self.entries.are_put_off() { 0 } else { self.next().unwrap_or(NEVER) }
    }

    /// Returns true if all is done that is due, so that nothing needs this process before the next one is due.
    pub fn are_at_rest(&mut self) -> bool {
        self.has_caught_up
            && self.read_again.is_none()
            && self.entries.are_current()
            && !self.entries.are_put_off()
            && self.next().is_none_or(|next| next > clock::now())
    }

    /// Fires what is due, for a while.
    pub fn fire(&mut self, database: &DatabaseEntry) -> Result<(), Error> {
        if !self.refresh(database)? {
            return Ok(());
        }
        if self.has_caught_up {
            self.extend_uptime();
        }
        let begun = Instant::now();
        loop {
            let now = clock::now();
            let names = self.entries.take(now, AT_ONCE);
            if names.is_empty() {
                break;
            }
            self.fire_these(names, now);
            if begun.elapsed() > SLICE {
                return Ok(());
            }
        }
        self.has_caught_up = true;
        self.extend_uptime();
        Ok(())
    }

    /// From here on, what falls due is late if it is not fired by the time that this process is gone, not missed.
    fn extend_uptime(&self) {
        if let Some(uptime) = self.uptime {
            uptime.store(Span { since: self.begun, until: clock::now() });
        }
    }

    /// Reads the schedules again if they may have changed. False if a lock keeps that from being done for now: then
    /// none is fired, as it may be none any more.
    fn refresh(&mut self, database: &DatabaseEntry) -> Result<bool, Error> {
        const MOMENT: Duration = Duration::from_millis(100);
        // A session tells of a change after its invalidation messages, so the change may have been read by then. It is
        // taken back all the same: the next change would pass for as old.
        let is_told = database.schedules_changed.load(SeqCst) != NEVER;
        if self.entries.are_current() && !is_told {
            return Ok(true);
        }
        // Before the snapshot: what is committed after it is told anew.
        let told = database.schedules_changed.swap(NEVER, SeqCst);
        let heard_of = if told == NEVER { clock::now() } else { told };
        xact::begin_for_queue_within(100);
        let since = if self.are_read { Some(i64::MIN) } else { self.new_since };
        let read = self.entries.read(self.begun, since.map(|since| (heard_of, since)));
        let handled = |name: &Rc<DbText>| note(name, &Noted { until: Some(heard_of), ..Noted::default() });
        let noted = read.and_then(|late| late.iter().try_for_each(handled));
        match noted.and_then(|()| Ok(xact::commit()?)) {
            Ok(()) => {
                (self.are_read, self.read_again) = (true, None);
                Ok(true)
            }
            Err(error) if is_of_a_lock(&error.read()) => {
                xact::abort();
                database.schedules_changed.fetch_min(heard_of, SeqCst);
                self.read_again = Some(after(clock::now(), MOMENT));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the table calls a role by a name that it no longer has.
    pub fn has_former_names(&self) -> bool {
        self.entries.has_former_names
    }

    fn fire_these(&mut self, names: Vec<Rc<DbText>>, now: Timestamp) {
        match self.attempt(&names, now, 100) {
            Ok(fired) => self.settle(names, fired, now),
            Err(error) if names.len() == 1 => self.failed(names, error, now),
            Err(error) => {
                // Who waits in vain for a lock waits no longer for the next.
                let patience = if is_of_a_lock(&error) { 1 } else { 100 };
                for name in names {
                    let name = vec![name];
                    match self.attempt(&name, now, patience) {
                        Ok(fired) => self.settle(name, fired, now),
                        Err(error) => self.failed(name, error, now),
                    }
                }
            }
        }
    }

    fn settle(&mut self, names: Vec<Rc<DbText>>, fired: Vec<Fired>, now: Timestamp) {
        for (name, fired) in names.into_iter().zip(fired) {
            match fired {
                Fired::Until(done) => self.entries.fired(name, done),
                Fired::Locked => self.wait(name, now),
                Fired::Gone => self.entries.forget(&name),
            }
        }
    }

    /// Another transaction keeps it from being fired: it is tried again in a moment.
    fn wait(&mut self, name: Rc<DbText>, now: Timestamp) {
        const SHORTEST: Duration = Duration::from_millis(2);
        const LONGEST: Duration = Duration::from_millis(100);
        let Some(entry) = self.entries.get_mut(&name) else { return };
        let moment = (SHORTEST * 2_u32.pow(entry.waits.min(10))).min(LONGEST);
        entry.waits += 1;
        self.entries.put_off(name, after(now, moment));
    }

    /// It cannot be fired: that is said, and tried again after a pause that grows. It costs no other.
    fn failed(&mut self, mut names: Vec<Rc<DbText>>, error: Raise, now: Timestamp) {
        const LONGEST: Duration = Duration::from_secs(60);
        let Some(name) = names.pop() else { return };
        if is_of_a_lock(&error) {
            return self.wait(name, now);
        }
        let Some(entry) = self.entries.get_mut(&name) else { return };
        let pause = Duration::from_secs(2_u64.pow(entry.failures.min(6))).min(LONGEST);
        entry.failures += 1;
        let is_new = entry.failures == 1;
        self.entries.put_off(name.clone(), after(now, pause));
        let what = headline(&error);
        if is_new {
            let detail = Some(format!("It is tried again after {pause:?}, and then less often."));
            log_with(Level::Warning, format!("schedule \"{name}\" cannot be fired: {what}"), detail, None);
        }
        let note = || {
            xact::begin_for_queue_within(1);
            note(&name, &Noted { error: Some(what), ..Noted::default() })?;
            xact::commit()?;
            Ok::<_, Error>(())
        };
        if note().is_err() {
            xact::abort();
        }
    }

    /// Fires them in one transaction, which is rolled back where it fails.
    fn attempt(&mut self, names: &[Rc<DbText>], now: Timestamp, patience: i32) -> Result<Vec<Fired>, Raise> {
        xact::begin_for_queue_within(patience);
        xact::commit_here();
        let fired = names.iter().map(|name| self.fire_one(name, now)).collect::<Result<Vec<_>, Error>>();
        let result = fired.and_then(|fired| {
            fault::point("firing")?;
            xact::commit()?;
            Ok(fired)
        });
        let result = result.map_err(|error| {
            let error = error.read();
            xact::abort();
            error
        });
        let fired = result?;
        background::report_statistics(false);
        fault::point("fired").map_err(|error| error.read())?;
        Ok(fired)
    }

    fn fire_one(&mut self, name: &DbText, now: Timestamp) -> Result<Fired, Error> {
        static LOCK: Plan = plan!("schedule_lock", TEXTOID).by_index();
        static MARK: Plan = plan!("schedule_mark", TEXTOID, TIMESTAMPTZOID, BOOLOID).by_index();
        let Some(entry) = self.entries.get_mut(name) else { return Ok(Fired::Gone) };
        let session = schema::session()?;
        let rows = session.execute(&LOCK, &[text(name)])?;
        if rows.count() == 0 {
            return Ok(Fired::Gone);
        }
        if !rows.get(0, 0).unwrap_or(false) {
            return Ok(Fired::Locked);
        }
        fault::point("fire_locked")?;
        let last = timestamp(rows.value(0, 1));
        let Some(round) = entry.round(last, self.former, now) else {
            return Ok(Fired::Until(last.unwrap_or(i64::MIN)));
        };
        let kind = Kind::read(&rows)?;
        let mut noted = Noted { missed: round.missed, keeps_unfinished: kind.skips, ..Noted::default() };
        if let Some(why) = kind.is_forbidden(&rows)? {
            noted.missed += round.run.len() as u64;
            noted.error = Some(why);
        } else {
            for &instant in &round.run {
                let values = [text(name), Some(instant.into()), Some(kind.skips.into())];
                if session.execute(&MARK, &values)?.count() == 0 {
                    // An earlier job is unfinished. Or there was no row to lock, and another process has made one since.
                    noted.skipped += u64::from(kind.skips);
                    continue;
                }
                fault::point("fire_marked")?;
                noted.jobs.push(kind.add(&rows, instant, round.backfilled)?);
                fault::point("fire_added")?;
            }
        }
        if noted.missed + noted.skipped > 0 {
            noted.until = Some(round.done);
        }
        note(name, &noted)?;
        Ok(Fired::Until(round.done))
    }
}

/// True for what comes of waiting for a lock in vain, or of a cancel.
fn is_of_a_lock(error: &Raise) -> bool {
    [*b"55P03", *b"57014", *b"40P01"].contains(&error.sqlstate)
}

/// What the jobs of a schedule are like, as [`LOCK`](Schedules::fire_one) or `schedule_look` returns it.
pub struct Kind {
    mode: KeyMode,
    /// Not while an earlier job is unfinished.
    pub skips: bool,
    jitter: f64,
    /// The payload as it is; `None` if it is no object.
    members: Option<Vec<u8>>,
}

impl Kind {
    pub fn read(rows: &Rows) -> Result<Kind, Error> {
        let mode = KeyMode::parse(rows.value(0, 8).map(Text::new))?;
        let payload = rows.get::<DbText>(0, 3).unwrap_or_default();
        let payload = payload.as_bytes().trim_ascii();
        let members = payload.strip_suffix(b"}").filter(|members| members.starts_with(b"{"));
        Ok(Kind {
            mode,
            skips: rows.get::<DbText>(0, 10).is_some_and(|overlap| overlap == *"skip"),
            jitter: rows.get(0, 11).unwrap_or(0.0),
            members: members.map(|members| members.trim_ascii().to_vec()),
        })
    }

    /// Why the role that scheduled it may add no job, if it may not.
    fn is_forbidden(&self, rows: &Rows) -> Result<Option<DbText>, Error> {
        let named = rows.get::<DbText>(0, 13).unwrap_or_default();
        let role = rows.get::<Oid>(0, 12).filter(|&role| role::name(role).is_some());
        Ok(forbids(role, &named)?.map(|(why, _)| why))
    }

    /// Adds a job for an instant; its id.
    pub fn add(&self, rows: &Rows, instant: Timestamp, backfilled: bool) -> Result<i64, Error> {
        let run_at = if self.jitter > 0.0 {
            let [bits] = background::random::<1>();
            instant.saturating_add((self.jitter * 1e6 * (bits as f64 / u64::MAX as f64)) as i64)
        } else {
            instant
        };
        let row = self.add_at(rows, instant, backfilled, run_at)?;
        Ok(row.and_then(|row| Row::new(row).get(attribute::ID)).unwrap_or(0))
    }

    /// Adds a job for an instant, to be run at another; its row.
    pub fn add_at(&self, rows: &Rows, instant: Timestamp, backfilled: bool, run_at: Timestamp) -> Result<Value, Error> {
        let column = |column| rows.value(0, column);
        let job = NewJob {
            identifier: column(2),
            payload: self.payload(instant, backfilled).or(column(3)),
            queue_name: column(4),
            run_at: Some(run_at.into()),
            max_attempts: column(6),
            job_key: column(7),
            priority: column(5),
            flags: column(9),
        };
        add::add(&job, self.mode)
    }

    /// The payload with `_cron`, as graphile-worker adds it, if it is an object.
    fn payload(&self, instant: Timestamp, backfilled: bool) -> Value {
        let members = self.members.as_ref()?;
        let mut payload = DbText::new(members);
        if members.len() > 1 {
            payload.push(",");
        }
        payload.push(&format!("\"_cron\":{{\"ts\":\"{}\",\"backfilled\":{backfilled}}}}}", iso(instant)));
        text(&payload)
    }
}

/// Why a role may add no job: what is wrong, and how to mend it.
pub fn forbids(role: Option<Oid>, named: &DbText) -> Result<Option<(DbText, DbText)>, Error> {
    let Some(role) = role else {
        let why = format!("role {named}, which scheduled it, does not exist");
        let hint = "Schedule it again, as another role.";
        return Ok(Some((why.into(), hint.into())));
    };
    let may = version::may_execute(add_job()?, role);
    let why = format!("role {named}, which scheduled it, may not execute add_job");
    let hint = format!("GRANT EXECUTE ON FUNCTION {}.add_job TO {named}.", schema::queue()?.home.schema);
    Ok((!may).then(|| (why.into(), hint.into())))
}

/// The queue's add_job.
fn add_job() -> Result<Oid, Error> {
    let queue = schema::queue()?;
    let name = format!("{}.add_job(text, json, text, timestamptz, int, text, int, text[], text)", queue.home.schema);
    Ok(procedure::find(&name.into(), &queue.path)?)
}

/// What is noted of a schedule that has fired.
#[derive(Default)]
struct Noted {
    jobs: Vec<i64>,
    missed: u64,
    skipped: u64,
    until: Option<Timestamp>,
    error: Option<DbText>,
    keeps_unfinished: bool,
}

fn note(name: &DbText, noted: &Noted) -> Result<(), Error> {
    static NOTE: Plan =
        plan!("schedule_note", TEXTOID, INT8ARRAYOID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, BOOLOID).by_index();
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).into_datum();
    let values = [
        text(name),
        noted.jobs.clone().into_datum(),
        count(noted.missed),
        count(noted.skipped),
        noted.until.map(Into::into),
        noted.error.as_ref().and_then(text),
        Some(noted.keeps_unfinished.into()),
    ];
    schema::affected(&NOTE, &values)?;
    Ok(())
}
