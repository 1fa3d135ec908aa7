//! graphile-worker's own process beside the server, on one crontab: each instant is fired by one of them.

use crate::cluster;
use kongtask_tests::reference::Worker;
use kongtask_tests::{text, wait_until};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn beside_graphile_worker_each_minute_fires_once() {
    let cluster = cluster(&[]);
    cluster.sql("insert into graphile_worker.known_crontabs values ('here', now() - interval '1 day', now() - interval '5 minutes')");
    let crontab = "* * * * * note ?id=here&fill=4m {\"name\": \"here\"}\n* * * * * note ?id=new {\"name\": \"new\"}\n";
    let imported = cluster.text(&format!(
        "select string_agg(concat_ws(' ', name, cron, task, payload::text, missed, missed_within), E'\\n')
         from kongtask.import_crontab($${crontab}$$)"
    ));
    assert_eq!(
        imported,
        "here * * * * * note {\"name\":\"here\"} all 00:04:00\nnew * * * * * note {\"name\":\"new\"} skip"
    );
    let worker = Worker::start(&cluster, ("postgres", "postgres"), "0.12.2", &[("other", "")], crontab, &[]);
    cluster.wait_for("select count(*) between 3 and 5 from done where name = 'here' and backfilled", "t");
    let begun = Instant::now();
    let twice = "select min(count) from (select count(distinct ts) from done where not backfilled group by name) c having count(*) = 2";
    let mut db = cluster.connect();
    assert!(
        wait_until(Duration::from_secs(130), || ["2", "3"].contains(&text(&mut db, twice).as_str())),
        "{}",
        worker.log()
    );
    assert!(begun.elapsed() > Duration::from_secs(50));
    // Whoever came second would have been by now.
    sleep(Duration::from_secs(1));
    assert_eq!(text(&mut db, "select count(*) - count(distinct (name, ts)) from done"), "0");
    assert_eq!(
        text(&mut db, "select count(*) = extract(epoch from max(ts) - min(ts)) / 60 + 1 from done where name = 'here'"),
        "t"
    );
}
