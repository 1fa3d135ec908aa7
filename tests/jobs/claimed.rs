//! Claimed jobs: whose lock a job carries while it runs, and how long that is kept.

use kongtask_tests::fixtures::with_note;
use kongtask_tests::{SOON, text, wait_until};

#[test]
fn a_job_whose_lock_was_taken_commits_nothing() {
    let cluster = with_note(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function nap() returns void language sql as $$
           insert into done (what) values ('nap'); select pg_sleep(1) $$;
         select kongtask.register_task('nap', 'nap()', in_place := false);
         select graphile_worker.add_job('nap')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    cluster.sql("update graphile_worker.jobs set locked_by = 'somebody-else'");
    cluster.wait_for_log("WARNING:  job 1 (nap) lost its lock while it ran");
    assert_eq!(cluster.text("select count(*) from done"), "0");
    assert_eq!(cluster.text("select locked_by from graphile_worker.jobs"), "somebody-else");
}

#[test]
fn a_handler_longer_than_job_expiry_is_not_run_twice() {
    let cluster = with_note(&["kongtask.job_expiry = '1s'"]);
    cluster.sql(
        "create function nap() returns void language sql as $$
           insert into done (what) values ('nap'); select pg_sleep(4) $$;
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    let mut db = cluster.connect();
    let mut tries = 0;
    let finished = wait_until(SOON, || {
        tries += 1;
        let got = text(&mut db, "select id from graphile_worker.get_job('external-worker', job_expiry := '1 second')");
        assert_eq!(got, "", "stolen at try {tries}");
        text(&mut db, "select count(*) from graphile_worker.jobs") == "0"
    });
    assert!(finished && tries > 100, "{tries}");
    assert_eq!(text(&mut db, "select count(*) from done"), "1");
}
