//! Processes that end, or stop, at each step of a fire.

use crate::{PREPARE, schedule};
use kongtask_tests::{Cluster, SOON, wait_until};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn a_kill_at_any_step_of_a_fire_leaves_each_instant_fired_once() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 2", "restart_after_crash = on"]);
    cluster.sql(PREPARE);
    schedule(&cluster, "s", "*/3 * * * * *", ", missed := 'all'");
    schedule(&cluster, "t", "*/3 * * * * *", "");
    let fired = || -> Option<i64> {
        // The server may go down between the two.
        let mut db = cluster.try_connect_as("postgres", "postgres").ok()?;
        Some(db.query_one("select count(*) from done", &[]).ok()?.get(0))
    };
    for point in ["fire_locked", "fire_marked", "fire_added", "firing", "fired"] {
        for action in ["kill", "exit", "error"] {
            if (point, action) == ("fired", "error") {
                continue;
            }
            let before = fired();
            // Between two instants, so that nothing else comes by.
            sleep(Duration::from_millis(10));
            cluster.wait_for("select extract(epoch from now())::numeric % 3 between 1 and 2", "t");
            cluster.arm(point, action);
            assert!(wait_until(SOON, || !cluster.is_armed(point)), "{point} {action}");
            assert!(wait_until(SOON, || fired().is_some_and(|now| before.is_none_or(|before| now > before))));
        }
    }
    let settled = "select max(ts) > now() - interval '5 s' from done where name = 's'";
    assert!(wait_until(SOON, || cluster
        .try_connect_as("postgres", "postgres")
        .is_ok_and(|mut db| db.query_one(settled, &[]).is_ok_and(|row| row.get::<_, Option<bool>>(0) == Some(true)))));
    cluster.wait_for("select count(*) from graphile_worker.jobs where task_identifier = 'note'", "0");
    // What fell due while no scheduler ran is made up for, or counted; nothing else is missing, and nothing is there twice.
    for name in ["s", "t"] {
        let found = cluster.text(&format!(
            "select count(*) || ' ' || count(distinct ts) || ' ' || extract(epoch from max(ts) - min(ts))::int / 3 + 1 - missed_count
             from done join kongtask.schedules using (name) where name = '{name}' group by missed_count"
        ));
        let numbers: Vec<&str> = found.split(' ').collect();
        assert!(
            numbers.len() == 3 && numbers.iter().all(|number| *number == numbers[0]),
            "{name}: {found}\n{}",
            cluster.log()
        );
    }
}
