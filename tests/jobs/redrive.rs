//! Jobs that have failed for good: the view that shows them, and what gives them further attempts.

use kongtask_tests::fixtures::{quiet, without_polling};
use kongtask_tests::{JOBS, error, rows, text};

#[test]
fn failed_shows_jobs_that_have_failed_for_good_and_redrive_runs_them_again() {
    let cluster = without_polling(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table works (yes boolean);
         create function maybe(p json) returns void language plpgsql as $$ begin
           if not exists (select from works) then
             raise 'not now' using errcode = 'ZX042', detail = 'as it is (SQLSTATE 00000)';
           end if;
           insert into done (n) values ((p #>> '{}')::int);
         end $$;
         select kongtask.register_task('maybe', 'maybe(json)', max_attempts := 1), kongtask.register_task('other', 'maybe(json)', backoff := '{1 hour}');
         select graphile_worker.add_job('maybe', to_json(n)) from generate_series(1, 5) n;
         select graphile_worker.add_job('maybe', '6', queue_name := 'q', job_key := 'k', priority := 3, flags := '{f}');
         select graphile_worker.add_job('other', '7')",
    );
    cluster.wait_for("select count(*) from kongtask.failed", "6");
    cluster.wait_for(
        "select attempts from graphile_worker.jobs where task_identifier = 'other' and last_error is not null",
        "1",
    );
    let mut db = cluster.connect();
    assert_eq!(
        rows(
            &mut db,
            "select task_identifier, queue_name, key, payload, flags, priority, attempts, max_attempts, sqlstate,
               split_part(last_error, E'\\n', 1), created_at <= failed_at and failed_at > now() - interval '1 min'
             from kongtask.failed where id = 6"
        ),
        ["maybe|q|k|6|{\"f\": true}|3|1|1|ZX042|not now (SQLSTATE ZX042)|t"]
    );
    db.batch_execute("insert into works values (true)").expect("it works");
    assert_eq!(text(&mut db, "select kongtask.redrive('other')"), "0");
    assert_eq!(text(&mut db, "select kongtask.redrive(ids := '{6, 7, 100}')"), "1");
    cluster.wait_for("select string_agg(n::text, '' order by n) from done", "6");
    // Oldest first, and no more than asked for: which failed first, the test says.
    db.batch_execute(
        "alter table graphile_worker.jobs disable trigger user;
        update graphile_worker.jobs set updated_at = now() - id * interval '1 min';
        alter table graphile_worker.jobs enable trigger user",
    )
    .expect("an order");
    assert_eq!(text(&mut db, "select kongtask.redrive('maybe', most := 2)"), "2");
    cluster.wait_for("select string_agg(n::text, '' order by n) from done", "456");
    // Another transaction has one of them.
    let mut holder = cluster.connect();
    holder.batch_execute("begin; select from graphile_worker.jobs where id = 2 for update").expect("a lock");
    assert_eq!(text(&mut db, "select kongtask.redrive(most := null, run_at := '2100-01-01')"), "2");
    assert_eq!(
        rows(
            &mut db,
            "select id, attempts, run_at = '2100-01-01', last_error is null from graphile_worker.jobs where id < 4 order by id"
        ),
        ["1|0|t|f", "2|1|f|f", "3|0|t|f"]
    );
    holder.batch_execute("rollback").expect("a rollback");
    assert_eq!(text(&mut db, "select kongtask.redrive(run_at := null)"), "1");
    cluster.wait_for(JOBS, "3");
    cluster.wait_for("select string_agg(n::text, '' order by n) from done", "2456");
}

#[test]
fn redrive_leaves_alone_what_has_not_failed_for_good() {
    let (_cluster, mut db) = quiet();
    db.batch_execute(
        "select graphile_worker.add_job('a', max_attempts := 1), graphile_worker.add_job('a'), graphile_worker.add_job('a', max_attempts := 1);
         select graphile_worker.get_job('an-external-worker', '{a}');
         select graphile_worker.permanently_fail_jobs('{3}', 'no')",
    )
    .expect("jobs");
    // Job 1 runs its last attempt.
    assert_eq!(rows(&mut db, "select id from kongtask.failed"), ["3"]);
    assert_eq!(text(&mut db, "select kongtask.redrive()"), "1");
    assert_eq!(
        rows(&mut db, "select id, attempts, last_error from graphile_worker.jobs order by id"),
        ["1|1|", "2|0|", "3|0|no"]
    );
    assert_eq!(
        error(&mut db, "select kongtask.redrive(most := -1)"),
        ("22023".into(), "most must not be negative".into())
    );
    assert_eq!(text(&mut db, "select kongtask.redrive(most := 0)"), "0");
}
