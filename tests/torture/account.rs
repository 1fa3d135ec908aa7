//! What was promised, and what was done: nothing is lost, nothing done twice, nothing left over.

use crate::load::{Account, connect};
use kongtask_tests::{Cluster, rows, text};
use postgres::Client;
use std::time::{Duration, Instant};

/// How long everything may take once nothing is in its way.
const DRAINED: Duration = Duration::from_secs(90);

/// What is said of a job that was running whenever the server crashed.
const CRASHED: &str = "worker process crashed while it ran this job: crash 3 of 3";

/// What is said of a job that was cancelled.
const CANCELLED: &str = "cancelled by postgres: torture";

/// What failed for good, was found to have done nothing, and was given further attempts.
#[derive(Default, Debug)]
pub struct Revived {
    /// Ran whenever the server was killed.
    pub by_crashes: usize,
    /// Were cancelled.
    pub by_cancels: usize,
    /// Failed after their keys, and their further attempts, had been given to newer ones.
    pub superseded: usize,
}

/// Has all that still waits run at once; how many jobs are left in the end.
pub fn drain(cluster: &Cluster) -> (Revived, String) {
    let mut db = connect(cluster, "postgres");
    let mut revived = Revived::default();
    let begun = Instant::now();
    loop {
        revive(&mut db, &mut revived);
        db.batch_execute(
            "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs
               where locked_at is null and run_at > now()), run_at := now())",
        )
        .expect("reschedule");
        let left = text(&mut db, "select count(*) from graphile_worker.jobs");
        if left == "0" || begun.elapsed() > DRAINED {
            return (revived, left);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Sees that what failed for good says why, and did nothing.
fn revive(db: &mut Client, revived: &mut Revived) {
    let failed = "select id, task_identifier, last_error, key is null,
        (select count(*) from effect where promise = (payload ->> 'promise')::bigint)
      from graphile_worker.jobs where attempts >= max_attempts and locked_at is null";
    for row in db.query(failed, &[]).expect("what failed") {
        let (id, task, lost_key): (i64, String, bool) = (row.get(0), row.get(1), row.get(3));
        let says: String = row.get::<_, Option<String>>(2).unwrap_or_default();
        assert_eq!(row.get::<_, i64>(4), 0, "job {id} ({task}) failed for good, and did something: {says}");
        if task == "keyed" && lost_key {
            revived.superseded += 1;
        } else if says == CANCELLED {
            revived.by_cancels += 1;
        } else {
            assert!(says.starts_with(CRASHED), "job {id} ({task}) failed for good: {says}");
            revived.by_crashes += 1;
        }
        db.execute("select graphile_worker.reschedule_jobs(array[$1::bigint], run_at := now(), attempts := 0)", &[&id])
            .expect("reschedule");
    }
}

/// What each promise is to come to: one effect, or none if its job was given to a later promise.
const DUE: &str = "create temporary table due as
    select id, task, queue, (is_taken and not exists (
      select from promise later where later.job = promise.job and later.is_taken and later.revision > promise.revision
    ))::int as due, (select count(*) from effect where effect.promise = promise.id) as done
    from promise";

/// Everything that must not be, and what is said of it if it is.
const FAULTS: [(&str, &str); 12] = [
    ("lost", "select id from due where done < due"),
    ("twice", "select id from due where done > due and done > 1"),
    ("superseded, and done", "select id from due where done = 1 and due = 0"),
    ("done, and never promised", "select promise from effect except select id from promise"),
    ("promised twice", "select id from promise group by id having count(*) > 1"),
    ("committed, and gone", "select id from committed except select id from promise"),
    ("rolled back, and there", "select id from undone intersect select id from promise"),
    ("left in the queue", "select id from graphile_worker.jobs"),
    (
        // Whether it is paused was seen between the two times of an effect.
        "begun while paused",
        "select promise from effect join promise p on id = promise join paused
           on (paused.task is null or paused.task = p.task) and (paused.queue is null or paused.queue = p.queue)
             and effect.begun > paused.begun and effect.ended < paused.ended",
    ),
    ("queues left", "select queue_name from graphile_worker.job_queues where locked_at is not null"),
    (
        // What failed meanwhile had another time to run than that of its promise.
        "out of order",
        "select promise from (
           select effect.promise, lag(effect.promise) over (partition by queue order by at) > effect.promise as is_early
           from effect join promise p on id = effect.promise where queue is not null and run_at = '2020-01-01'
             -- In that one, jobs of a paused task are passed.
             and queue <> 'queue 9'
         ) e where is_early",
    ),
    (
        "begun before the one before it had ended",
        "select promise from (
           select effect.promise, lag(ended) over (partition by queue order by begun) > begun as is_early
           from effect join promise p on id = effect.promise where queue is not null
         ) e where is_early",
    ),
];

/// How much was promised and done, and what of it is wrong.
pub fn tally(cluster: &Cluster, accounts: &[Account]) -> (String, Vec<String>) {
    let mut db = connect(cluster, "postgres");
    db.batch_execute("create index on promise (job); analyze").expect("an index");
    db.batch_execute(DUE).expect("what is due");
    for (table, ids) in [
        ("committed", accounts.iter().flat_map(|account| &account.committed).copied().collect::<Vec<_>>()),
        ("undone", accounts.iter().flat_map(|account| &account.undone).copied().collect()),
    ] {
        db.execute(&format!("create temporary table {table} as select unnest($1::bigint[]) as id"), &[&ids])
            .expect(table);
    }
    let jobs = text(&mut db, "select count(*) from promise");
    let due = text(&mut db, "select sum(due) from due");
    let mut says = format!("{jobs} jobs promised, {due} effects due");
    let mut wrong = Vec::new();
    for (what, query) in FAULTS {
        let found = rows(&mut db, query);
        says.push_str(&format!(", {} {what}", found.len()));
        if !found.is_empty() {
            wrong.push(format!("{what}: {:?}", &found[..found.len().min(20)]));
        }
    }
    (says, wrong)
}
