//! What `kongtask.stat_tasks` has counted, beside what was promised and done, and what the log says.

use kongtask_tests::{Cluster, SOON, rows, wait_until};
use std::collections::BTreeMap;

/// Of a task: added, succeeded, failed, discarded, cancelled, and the rest, which never happens here.
type Counts = BTreeMap<String, [i64; 6]>;

const ADDED: usize = 0;
const SUCCEEDED: usize = 1;
const FAILED: usize = 2;
const DISCARDED: usize = 3;
const CANCELLED: usize = 4;

const COUNTED: &str = "select concat_ws('|', task, added, succeeded, failed, discarded, cancelled,
    snoozed + timed_out + crashed + running) from kongtask.stat_tasks";

/// Attempts whose times were measured and are in no outcome, or the other way round: none.
const TIMES: &str = "select task from kongtask.stat_tasks,
    lateral (select sum(count) from kongtask.stat_histogram(task, 'run')) run (count),
    lateral (select sum(count) from kongtask.stat_histogram(task, 'wait')) wait (count)
    where run.count <> wait.count or run.count not between succeeded + failed and succeeded + failed + cancelled";

/// How much was counted, and what of it is wrong.
pub fn compare(cluster: &Cluster) -> (String, Vec<String>) {
    let mut db = cluster.connect();
    let mut due = Counts::new();
    let mut count = |task: &str, what: usize, by: i64| due.entry(task.to_string()).or_default()[what] += by;
    for (what, query) in [
        (ADDED, "select concat_ws('|', task, count(distinct job)) from promise group by task"),
        (SUCCEEDED, "select concat_ws('|', task, count(*)) from effect join promise on id = promise group by task"),
        (CANCELLED, "select concat_ws('|', task, count(*)) from cancelled where answer = 'cancelled' group by task"),
    ] {
        for row in rows(&mut db, query) {
            let (task, number) = row.split_once('|').expect("a task and a number");
            count(task, what, number.parse().expect("a number"));
        }
    }
    for line in cluster.log().lines() {
        let Some((_, said)) = line.split_once("  job ") else { continue };
        let Some((task, said)) = said.split_once(" (").and_then(|(_, rest)| rest.split_once(") ")) else { continue };
        if said.starts_with("failed for good on attempt ") {
            count(task, DISCARDED, 1);
            count(task, FAILED, 1);
        } else if said.starts_with("failed on attempt ") {
            count(task, FAILED, 1);
        } else if said.starts_with("cancelled by ") {
            count(task, CANCELLED, 1);
        }
    }
    let (mut counted, mut without_times) = (Counts::new(), Vec::new());
    // A worker counts a moment after its commit: an outcome, then its times.
    wait_until(SOON, || {
        counted = rows(&mut db, COUNTED).iter().map(|row| parse(row)).collect();
        without_times = rows(&mut db, TIMES);
        counted == due && without_times.is_empty()
    });
    let mut wrong: Vec<_> = due
        .iter()
        .filter(|(task, due)| counted.get(*task) != Some(due))
        .map(|(task, due)| format!("{task}: counted {:?}, but it was {due:?}", counted.get(task)))
        .collect();
    wrong.extend(counted.keys().filter(|task| !due.contains_key(*task)).map(|task| format!("{task}: counted")));
    wrong.extend(without_times.iter().map(|task| format!("{task}: times do not add up")));
    let sum = |what: usize| counted.values().map(|counts| counts[what]).sum::<i64>();
    let says = format!(
        "counted {} added, {} succeeded, {} failed, {} cancelled, of {} tasks",
        sum(ADDED),
        sum(SUCCEEDED),
        sum(FAILED),
        sum(CANCELLED),
        counted.len()
    );
    (says, wrong)
}

fn parse(row: &str) -> (String, [i64; 6]) {
    let mut fields = row.split('|');
    let task = fields.next().expect("a task").to_string();
    (task, std::array::from_fn(|_| fields.next().expect("a number").parse().expect("a number")))
}
