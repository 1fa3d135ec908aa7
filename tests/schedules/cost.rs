//! What schedules cost.

use crate::cluster;
use kongtask_tests::{SOON, wait_until};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn many_that_are_due_at_once_are_all_fired_and_idle_ones_write_nothing() {
    let cluster = cluster(&[]);
    cluster.sql(
        "select count(kongtask.schedule('idle ' || n, '0 0 1 1 *', 'note')) from generate_series(1, 1000) n;
         select count(kongtask.schedule('due ' || n, to_char(now() at time zone 'UTC' + interval '3 s', 'SS MI HH24 DD MM \"*\"'), 'note',
           json_build_object('name', n))) from generate_series(1, 1000) n",
    );
    cluster.wait_for("select count(*) || ' ' || count(distinct name) from done", "1000 1000");
    assert_eq!(cluster.text("select max(at - ts) < '3 s' from done"), "t");
    cluster.sql("checkpoint");
    let idle = || cluster.text("select pg_current_wal_insert_lsn() || ' ' || txid_current_snapshot()");
    let mut quiet = false;
    assert!(wait_until(SOON, || {
        let before = idle();
        sleep(Duration::from_secs(2));
        quiet = idle() == before;
        quiet
    }));
}
