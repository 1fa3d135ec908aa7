//! Failed attempts: what is recorded, and when the next one is due.

use kongtask_tests::fixtures::with_note;
use kongtask_tests::{rows, text};

#[test]
fn a_failed_attempt_leaves_no_effect_and_is_recorded() {
    let cluster = with_note(&[]);
    cluster.sql(
        "create function bad(p json) returns void language plpgsql as $$ begin
           insert into done (job, what) values (1, 'an effect');
           raise exception 'boom %', p ->> 'n' using errcode = 'XX123', detail = 'the detail', hint = 'the hint';
         end $$;
         select kongtask.register_task('bad', 'bad(json)');
         select graphile_worker.add_job('bad', '{\"n\": 7}', max_attempts := 2, queue_name := 'q')",
    );
    cluster.wait_for("select attempts from graphile_worker.jobs where last_error is not null", "1");
    let mut db = cluster.connect();
    let last_error = text(&mut db, "select last_error from graphile_worker.jobs");
    assert!(
        last_error.starts_with("boom 7 (SQLSTATE XX123)\nDETAIL: the detail\nHINT: the hint\nCONTEXT: "),
        "{last_error}"
    );
    assert!(last_error.contains("PL/pgSQL function"), "{last_error}");
    assert_eq!(
        rows(
            &mut db,
            "select locked_at, locked_by, run_at - updated_at between '2.7 s' and '2.72 s' from graphile_worker.jobs"
        ),
        ["||t"]
    );
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues"), "0");
    cluster.wait_for_log("LOG:  job 1 (bad) failed on attempt 1 of 2: boom 7");
    // Given its second attempt now, it fails for good, and stays.
    cluster.sql("select graphile_worker.reschedule_jobs('{1}', run_at := now())");
    cluster.wait_for("select attempts from graphile_worker.jobs", "2");
    cluster.wait_for_log("WARNING:  job 1 (bad) failed for good on attempt 2 of 2: boom 7");
    // With further attempts it comes back to life.
    cluster.sql("create or replace function bad(p json) returns void language sql as $$ insert into done (what) values ('good') $$");
    cluster.sql("select graphile_worker.reschedule_jobs('{1}', run_at := now(), attempts := 0)");
    cluster.wait_for("select string_agg(what, ',') from done", "good");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}

#[test]
fn a_failing_deferred_constraint_is_a_failed_attempt() {
    let cluster = with_note(&[]);
    cluster.sql(
        "create table parent (id int primary key);
         create table child (id int references parent deferrable initially deferred);
         create function orphan() returns void language sql as 'insert into child values (1)';
         select kongtask.register_task('orphan', 'orphan()');
         select graphile_worker.add_job('orphan')",
    );
    cluster.wait_for(
        "select last_error like '%violates foreign key constraint%SQLSTATE 23503%' from graphile_worker.jobs",
        "t",
    );
    assert_eq!(cluster.text("select count(*) from child"), "0");
}
