//! Pauses in the midst of it: tasks, queues, tasks in queues and everything, for moments, until told to stop. What is paused must not
//! begin, and what is resumed, or whose time has come, must.

use crate::load::connect;
use crate::random::Random;
use kongtask_tests::Cluster;
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

/// The longest time between two pauses, and the longest pause.
const BETWEEN: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(400);

const TASKS: [&str; 8] = ["quick", "batched", "set", "rows", "failing", "keyed", "limited", "tenant"];
/// Some of the enqueuers' queues.
const QUEUES: [&str; 3] = ["queue 2", "queue 5", "queue 8"];
/// The one in which one task is paused, whose jobs those of another pass: it need not be in order.
const QUEUE_OF_TASKS: &str = "queue 9";

/// Pauses and resumes until told to stop; how often. Each pause that is known to have been in force is noted in `paused`.
pub fn pause_until(stop: &AtomicBool, cluster: &Cluster, seed: u64) -> usize {
    let mut random = Random::new(seed, u64::MAX - 1);
    let mut db = connect(cluster, "postgres");
    let mut count = 0;
    while !stop.load(SeqCst) {
        sleep(random.time(BETWEEN));
        match pause(&mut db, &mut random) {
            Ok(()) => count += 1,
            Err(_) => db = connect(cluster, "postgres"),
        }
    }
    // The server may be on its way down once more.
    while db.batch_execute("delete from kongtask.pauses").is_err() {
        db = connect(cluster, "postgres");
    }
    count
}

fn pause(db: &mut Client, random: &mut Random) -> Result<(), postgres::Error> {
    let task = TASKS[random.below(TASKS.len() as u64) as usize];
    let queue = QUEUES[random.below(QUEUES.len() as u64) as usize];
    let (task, queue) = random.weighted(&[
        (6, (Some(task), None)),
        (4, (None, Some(queue))),
        (2, (Some("queued_alpha"), Some(QUEUE_OF_TASKS))),
        (1, (None, None)),
    ]);
    let length = random.time(PAUSE);
    let until = random.once_in(2).then(|| SystemTime::now() + length);
    db.execute("select kongtask.pause($1, $2, $3)", &[&task, &queue, &until])?;
    // In force from here on, as far as this session knows, and up to the next statement.
    let begun: SystemTime = db.query_one("select clock_timestamp()", &[])?.get(0);
    sleep(length);
    let ended: SystemTime = db.query_one("select clock_timestamp()", &[])?.get(0);
    let is_by_itself = until.is_some() && random.once_in(2);
    if !is_by_itself {
        db.execute("select kongtask.resume($1, $2)", &[&task, &queue])?;
    }
    let ended = until.map_or(ended, |until| until.min(ended));
    db.execute("insert into paused values ($1, $2, $3, $4)", &[&task, &queue, &begun, &ended])?;
    Ok(())
}
