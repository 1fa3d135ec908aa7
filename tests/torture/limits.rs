//! What ran under limits, by the account of the handlers: at no instant more jobs than may run at once, and in no time more
//! starts than the rate allows.
//!
//! A handler that commits leaves a row. Each attempt, be it rolled back later, takes one of as many locks as jobs may run at
//! once, and raises an error if none is free.

use crate::load::connect;
use kongtask_tests::{Cluster, rows, text};

/// What all limits with a concurrency allow.
const AT_ONCE: i64 = 2;

/// The rate of the limit `pace` is 10 in 250 ms, its burst 3. A job that was granted its start before the time in question may
/// call its handler in it: of each that may run at once, one.
const IN_A_TIME: i64 = 10 + 3 - 1 + AT_ONCE;

/// How many jobs of each limit and key ran at once at most.
const MOST_AT_ONCE: &str = "select name || '|' || max(n) from (
    select name, sum(change) over (partition by name, key order by at, change) as n
    from (select name, key, began as at, jobs as change from limited_run
          union all select name, key, ended, -jobs from limited_run) changed
  ) counted group by name order by name";

/// How many began at most within the time of the rate. Rates begin anew with each life of the server.
const MOST_IN_A_TIME: &str = "select coalesce(max(n), 0) from (
    select count(*) over (partition by life order by began
      range between current row and '249.999 ms'::interval following) as n
    from limited_run where name = 'pace'
  ) counted";

/// How much ran under limits, and what of it is wrong.
pub fn tally(cluster: &Cluster) -> (String, Vec<String>) {
    let mut db = connect(cluster, "postgres");
    let at_once: Vec<(String, i64)> = rows(&mut db, MOST_AT_ONCE).iter().map(|row| parse(row)).collect();
    let in_a_time: i64 = text(&mut db, MOST_IN_A_TIME).parse().expect("a number");
    let mut wrong: Vec<String> = at_once
        .iter()
        .filter(|(_, most)| *most > AT_ONCE)
        .map(|(name, most)| format!("{most} at once under limit {name}"))
        .collect();
    if in_a_time > IN_A_TIME {
        wrong.push(format!("{in_a_time} began within the time of limit pace"));
    }
    wrong.extend(cluster.log().lines().filter(|line| line.contains(" at once, limit ")).map(str::to_string));
    for name in ["limited", "tenants"] {
        if !at_once.iter().any(|(of, most)| of == name && *most >= AT_ONCE) {
            wrong.push(format!("limit {name} was never reached"));
        }
    }
    let ran = text(&mut db, "select coalesce(sum(jobs), 0) from limited_run");
    (format!("{ran} jobs ran under limits, at once {at_once:?}; {in_a_time} began in a time"), wrong)
}

fn parse(row: &str) -> (String, i64) {
    let (name, number) = row.split_once('|').expect("a name and a number");
    (name.to_string(), number.parse().expect("a number"))
}
