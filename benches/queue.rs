//! The queue of this project in a database of its own, and the time that it takes to run what was added to it.

use crate::Outcome;
use crate::server::{Server, run, told};
use postgres::Client;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HANDLERS: &str = "
    create extension kongtask;
    create function empty(job json) returns void language plpgsql as 'begin end';
    create function write(job json) returns void language sql as $$ insert into effect values ((job ->> 'n')::int) $$;
    create function write_set(jobs json[]) returns void language sql as $$
      insert into effect select (x ->> 'n')::int from unnest(jobs) x
    $$;
    create function start(job json) returns void language sql as $$
      insert into started values ((job ->> 'n')::bigint, clock_timestamp())
    $$;
    create function start_plpgsql(job json) returns void language plpgsql as $$ begin
      insert into started values ((job ->> 'n')::bigint, clock_timestamp());
    end $$";

/// Parts of a drain whose ends are noted.
pub const PARTS: usize = 20;

/// How long a drain may take.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A handler, how it is registered, and how its jobs are added.
#[derive(Clone, Copy)]
pub struct Task {
    pub handler: &'static str,
    pub max_batch: usize,
    /// Tells tasks apart that are alike otherwise.
    pub variant: &'static str,
    /// Further arguments of register_task.
    pub options: &'static str,
    /// The payload of job n.
    pub payload: &'static str,
    /// Further arguments of add_job, for job n.
    pub arguments: &'static str,
}

impl Task {
    pub const fn new(handler: &'static str, max_batch: usize) -> Task {
        let payload = "json_build_object('n', n)";
        Task { handler, max_batch, variant: "", options: "", payload, arguments: "" }
    }

    pub fn identifier(&self) -> String {
        format!("{}_{}{}", self.handler, self.max_batch, self.variant)
    }

    fn writes(&self) -> bool {
        self.handler.starts_with("write")
    }
}

pub struct Queue<'a> {
    pub server: &'a Server,
    pub database: String,
}

pub struct Drain {
    pub jobs: usize,
    /// When each of [`PARTS`] equal parts was done, in seconds since the commit that added them all.
    pub parts: Vec<f64>,
    pub wal_bytes: f64,
}

impl Drain {
    pub fn rate(&self) -> f64 {
        self.jobs as f64 / self.parts[PARTS - 1]
    }

    /// Jobs a second in the given fifth, from 0 to 4.
    pub fn rate_of_fifth(&self, fifth: usize) -> f64 {
        let end_of = |part: usize| if part == 0 { 0.0 } else { self.parts[part - 1] };
        let length = PARTS / 5;
        self.jobs as f64 / 5.0 / (end_of((fifth + 1) * length) - end_of(fifth * length))
    }
}

impl<'a> Queue<'a> {
    pub fn create(server: &'a Server, database: &str) -> Queue<'a> {
        server.create(database);
        let queue = Queue { server, database: database.into() };
        queue.connect().batch_execute(HANDLERS).unwrap_or_else(|e| panic!("{}", told(e)));
        queue
    }

    pub fn connect(&self) -> Client {
        self.server.connect(&self.database)
    }

    pub fn register(&self, task: &Task) -> Outcome<()> {
        let argument = if task.handler == "write_set" { "json[]" } else { "json" };
        let mut options = String::new();
        // Unless they are asked for, so that what has no such options can be measured too.
        if task.max_batch != 1 {
            options += &format!(", max_batch => {}", task.max_batch);
        }
        options += task.options;
        let (identifier, handler) = (task.identifier(), task.handler);
        let call = format!("select kongtask.register_task('{identifier}', '{handler}({argument})'{options})");
        run(&mut self.connect(), &call)
    }

    /// Adds jobs in one transaction while the workers idle. The clock runs from its commit, so that waking up counts, until
    /// no job is left.
    pub fn drain(&self, task: &Task, jobs: usize) -> Outcome<Drain> {
        let mut db = self.connect();
        run(&mut db, "truncate effect")?;
        run(&mut db, "vacuum graphile_worker.jobs, graphile_worker.job_queues")?;
        let is_there = db.prepare("select exists (select from graphile_worker.jobs where id = $1)").map_err(told)?;
        let mut transaction = db.transaction().map_err(told)?;
        let add = format!(
            "select min(id), max(id) from (
               select (graphile_worker.add_job($1, {}{})).id from generate_series(1, $2::int) n
             ) added",
            task.payload, task.arguments
        );
        let added = transaction.query_one(&add, &[&task.identifier(), &(jobs as i32)]).map_err(told)?;
        let (first, last): (i64, i64) = (added.get(0), added.get(1));
        let wal_before = wal_position(&mut transaction)?;
        let begun = Instant::now();
        transaction.commit().map_err(told)?;
        let mut parts = Vec::new();
        for part in 1..=PARTS as i64 {
            // Jobs run in the order of their ids, so that the last of a part stands for it.
            let watched = first - 1 + (last - first + 1) * part / PARTS as i64;
            while db.query_one(&is_there, &[&watched]).map_err(told)?.get(0) {
                if begun.elapsed() > PATIENCE {
                    return Err(format!("{jobs} jobs were not done in {PATIENCE:?}"));
                }
                sleep(Duration::from_millis(2));
            }
            parts.push(begun.elapsed().as_secs_f64());
        }
        let count = "select count(*) from graphile_worker.jobs where id between $1 and $2";
        while db.query_one(count, &[&first, &last]).map_err(told)?.get::<_, i64>(0) > 0 {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{jobs} jobs were not done in {PATIENCE:?}"));
            }
            sleep(Duration::from_millis(2));
            parts[PARTS - 1] = begun.elapsed().as_secs_f64();
        }
        let wal_bytes = wal_position(&mut db)? - wal_before;
        if task.writes() {
            check_effects(&mut db, jobs)?;
        }
        Ok(Drain { jobs, parts, wal_bytes })
    }
}

fn wal_position(db: &mut impl postgres::GenericClient) -> Outcome<f64> {
    let position = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    Ok(db.query_one(position, &[]).map_err(told)?.get(0))
}

/// Each job has written its row, and once.
pub fn check_effects(db: &mut Client, jobs: usize) -> Outcome<()> {
    let row = db.query_one("select count(*), count(distinct n) from effect", &[]).map_err(told)?;
    let (rows, distinct): (i64, i64) = (row.get(0), row.get(1));
    if (rows, distinct) == (jobs as i64, jobs as i64) {
        Ok(())
    } else {
        Err(format!("{jobs} jobs wrote {rows} rows, {distinct} different ones"))
    }
}
