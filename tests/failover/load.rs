//! Sessions that add jobs while servers come and go, and watchers of what the servers run.

use kongtask_tests::{describe, every_kind};
use postgres::{Client, NoTls};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

/// How many jobs each transaction adds.
pub const EACH: usize = 20;

/// What sessions have added so far.
#[derive(Default)]
pub struct Load {
    /// How many jobs were begun with.
    begun: AtomicUsize,
    /// The first number of each transaction whose commit was acknowledged.
    acknowledged: Mutex<Vec<i64>>,
    stopped: AtomicBool,
}

impl Load {
    /// Adds jobs of every kind until told to stop, to whichever server takes writes.
    pub fn add(&self, url: &str) {
        let mut session = None;
        while !self.is_stopped() {
            let Some(db) = session.as_mut() else {
                session = Client::connect(url, NoTls).ok();
                sleep(Duration::from_millis(20));
                continue;
            };
            let first = self.begun.fetch_add(EACH, SeqCst) + 1;
            match every_kind::add(db, first) {
                Ok(_) => self.acknowledged.lock().expect("a list").push(first.try_into().expect("a number")),
                // Nobody knows whether it was committed.
                Err(_) => session = None,
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Looks at one server for as long as the load goes on; how often it was a standby. Fails if that had a process of ours.
    pub fn watch(&self, url: &str) -> usize {
        let (mut session, mut looks) = (None, 0);
        while !self.is_stopped() {
            sleep(Duration::from_millis(20));
            let Some(db) = session.as_mut() else {
                session = Client::connect(url, NoTls).ok();
                continue;
            };
            match look(db) {
                // It was a standby before, as it still is one.
                Ok((ours, true)) => {
                    assert_eq!(ours, 0, "a standby has processes of kongtask: {url}");
                    looks += 1;
                }
                Ok((_, false)) => {}
                Err(_) => session = None,
            }
        }
        looks
    }

    pub fn acknowledged(&self) -> Vec<i64> {
        self.acknowledged.lock().expect("a list").clone()
    }

    pub fn stop(&self) {
        self.stopped.store(true, SeqCst);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(SeqCst)
    }

    /// Ends the load when dropped, also where the test has failed.
    pub fn stops(&self) -> Stops<'_> {
        Stops(self)
    }
}

pub struct Stops<'a>(&'a Load);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn look(db: &mut Client) -> Result<(i64, bool), postgres::Error> {
    let ours = "select count(*) from pg_stat_activity where backend_type like 'kongtask%'";
    let ours = db.query_one(ours, &[])?.get(0);
    Ok((ours, db.query_one("select pg_is_in_recovery()", &[])?.get(0)))
}

/// Makes the extension, the tasks of [`every_kind`], and a schedule of each second whose missed instants are all made up for.
/// Each effect says in which timeline, on which server and when it happened.
pub fn prepare(db: &mut Client) {
    db.batch_execute("create extension kongtask").unwrap_or_else(|e| panic!("{}", describe(&e)));
    every_kind::prepare_in(db);
    db.batch_execute(
        // What alice may not ask for.
        "create function data_directory() returns text security definer language sql as
           $$ select current_setting('data_directory') $$;
         alter table done
           add column timeline text default left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
           add column server text default data_directory(),
           add column ran_at timestamptz default clock_timestamp();
         create table ticks (ts timestamptz);
         create function tick(p json) returns void language sql as
           $$ insert into ticks values ((p #>> '{_cron,ts}')::timestamptz) $$;
         select kongtask.register_task('tick', 'tick(json)');
         select kongtask.schedule('tick', '1 second', 'tick', missed := 'all')",
    )
    .unwrap_or_else(|e| panic!("{}", describe(&e)));
}

/// How many jobs have had their effects so far, as the primary says if there is one.
pub fn done(url: &str) -> Option<usize> {
    let row = Client::connect(url, NoTls).and_then(|mut db| db.query_one("select count(*) from done", &[])).ok()?;
    row.get::<_, i64>(0).try_into().ok()
}
