//! Job keys: replacing, removing and adding beside a job that runs.

use kongtask_tests::fixtures::{quiet, with_note};
use kongtask_tests::{rows, text};

/// One state of the job that has the key, and one way to add another with it.
#[test]
fn job_key_modes_treat_each_state_as_the_reference_does() {
    let (_cluster, mut db) = quiet();
    let waiting = "";
    let failed = "update graphile_worker.jobs set attempts = 2, last_error = 'e' where key = 'k';";
    let locked = "update graphile_worker.jobs set attempts = 1, locked_at = now(), locked_by = 'w' where key = 'k';";
    // payload, run_at's year, attempts, max_attempts, last_error, key, revision of each job, in order
    for (mode, state, expected) in [
        ("replace", waiting, vec!["2|2002|0|25||k|1"]),
        ("preserve_run_at", waiting, vec!["2|2001|0|25||k|1"]),
        ("unsafe_dedupe", waiting, vec!["1|2001|0|7||k|1"]),
        ("replace", failed, vec!["2|2002|0|25||k|1"]),
        ("preserve_run_at", failed, vec!["2|2002|0|25||k|1"]),
        ("unsafe_dedupe", failed, vec!["1|2001|2|7|e|k|1"]),
        ("replace", locked, vec!["1|2001|7|7|||0", "2|2002|0|25||k|0"]),
        ("preserve_run_at", locked, vec!["1|2001|7|7|||0", "2|2002|0|25||k|0"]),
        ("unsafe_dedupe", locked, vec!["1|2001|1|7||k|1"]),
    ] {
        db.batch_execute(&format!(
            "delete from graphile_worker.jobs;
             select graphile_worker.add_job('a', '1', run_at := '2001-02-03', max_attempts := 7, job_key := 'k');
             {state}
             select graphile_worker.add_job('a', '2', run_at := '2002-02-03', job_key := 'k', job_key_mode := '{mode}');"
        ))
        .expect("add_job");
        let got = rows(
            &mut db,
            "select payload, extract(year from run_at), attempts, max_attempts, last_error, key, revision
             from graphile_worker.jobs order by id",
        );
        assert_eq!(got, expected, "{mode} {state}");
    }
}

#[test]
fn remove_job_deletes_or_disarms() {
    let (_cluster, mut db) = quiet();
    db.batch_execute(
        "select graphile_worker.add_job('a', job_key := 'waiting');
         select graphile_worker.add_job('a', job_key := 'running');
         update graphile_worker.jobs set locked_at = now(), locked_by = 'w', attempts = 1 where key = 'running';",
    )
    .expect("add_job");
    assert_eq!(text(&mut db, "select id from graphile_worker.remove_job('waiting')"), "1");
    assert_eq!(rows(&mut db, "select id, key, attempts from graphile_worker.remove_job('running')"), ["2||25"]);
    assert_eq!(text(&mut db, "select graphile_worker.remove_job('none') is null"), "t");
    assert_eq!(rows(&mut db, "select id from graphile_worker.jobs"), ["2"]);
}

#[test]
fn add_job_with_the_key_or_queue_of_a_running_job_does_not_wait() {
    let cluster = with_note(&[]);
    cluster.sql(
        "create function nap() returns void language sql as 'select pg_sleep(3)';
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap', job_key := 'k', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs where locked_by is not null", "1");
    let mut db = cluster.connect();
    db.batch_execute(
        "set statement_timeout = '1s';
         select graphile_worker.add_job('note', '\"with the key\"', job_key := 'k');
         select graphile_worker.add_job('note', '\"in the queue\"', queue_name := 'q');
         select graphile_worker.complete_jobs('{1}'), graphile_worker.reschedule_jobs('{1}', priority := 3);",
    )
    .expect("nobody waits");
    cluster.wait_for("select count(*) from done where what = 'with the key'", "1");
    assert_eq!(text(&mut db, "select count(*) from done where what = 'in the queue'"), "0");
    cluster.wait_for("select count(*) from done where what = 'in the queue'", "1");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}
