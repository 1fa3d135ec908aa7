//! First attempts in place: one transaction takes the job, calls the handler and commits.

use kongtask_tests::fixtures::{add, without_polling};
use kongtask_tests::{JOBS, RUNNING, rows, text};
use std::time::{Duration, Instant};

#[test]
fn a_first_attempt_in_place_marks_nothing_and_keeps_nobody_waiting() {
    let cluster = without_polling(&["kongtask.workers = 2"]);
    cluster.sql(
        "create function nap(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
           insert into done (n) values (j.attempts * 10 + (kongtask.current_job()).attempts);
           perform pg_sleep(1); end $$;
         select kongtask.register_task('nap', 'nap(json, graphile_worker.jobs)');
         select kongtask.register_task('marked', 'nap(json, graphile_worker.jobs)', in_place := false);
         select graphile_worker.add_job('nap'), graphile_worker.add_job('marked')",
    );
    cluster.wait_for(RUNNING, "2");
    cluster.wait_for("select count(*) from graphile_worker.jobs where locked_by is not null", "1");
    let begun = Instant::now();
    let mut db = cluster.connect();
    assert_eq!(
        rows(&mut db, "select task_identifier, attempts, locked_by is null from graphile_worker.jobs order by id"),
        ["nap|0|t", "marked|1|f"]
    );
    assert_eq!(rows(&mut db, "select task_identifier from kongtask.workers order by 1"), ["marked", "nap"]);
    for statement in [
        "select graphile_worker.complete_jobs('{1,2}')",
        "select graphile_worker.permanently_fail_jobs('{1,2}')",
        "select graphile_worker.reschedule_jobs('{1,2}', run_at := now())",
        "select id from graphile_worker.get_job('an external worker')",
        "select '' from graphile_worker.add_job('elsewhere')",
    ] {
        assert_eq!(text(&mut db, statement), "", "{statement}");
    }
    assert!(begun.elapsed() < Duration::from_millis(700), "somebody waited");
    cluster.wait_for("select string_agg(task_identifier, '') from graphile_worker.jobs", "elsewhere");
    assert_eq!(rows(&mut db, "select n from done"), ["11", "11"]);
}

#[test]
fn a_first_attempt_in_place_that_fails_is_recorded_at_whatever_moment_it_does() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table late (n int unique deferrable initially deferred); insert into late values (1);
         create function at_once() returns void language plpgsql as $$ begin
           insert into done values (1, 1); raise 'no'; end $$;
         create function at_commit() returns void language sql as $$ insert into late values (1) $$;
         select kongtask.register_task('at_once', 'at_once()'), kongtask.register_task('at_commit', 'at_commit()');
         select graphile_worker.add_job('at_once', max_attempts := 1), graphile_worker.add_job('at_commit')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 1", "2");
    let mut db = cluster.connect();
    assert_eq!(
        rows(
            &mut db,
            "select task_identifier, split_part(last_error, E'\\n', 1), run_at - updated_at between '2.7 s' and '2.72 s',
               locked_by from graphile_worker.jobs order by id"
        ),
        [
            "at_once|no (SQLSTATE P0001)|t|",
            "at_commit|duplicate key value violates unique constraint \"late_n_key\" (SQLSTATE 23505)|t|"
        ]
    );
    assert_eq!(text(&mut db, "select count(*) from done"), "0");
    cluster.wait_for_log("job 1 (at_once) failed for good on attempt 1 of 1: no");
    // The second attempt is claimed, and runs when it is due.
    cluster.sql("delete from late; select graphile_worker.reschedule_jobs('{2}', run_at := now())");
    cluster.wait_for(JOBS, "1");
}

#[test]
fn a_worker_that_is_terminated_in_place_gives_its_job_back_at_once() {
    let cluster = without_polling(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table naps (n int); insert into naps values (60);
         create function nap() returns void language plpgsql as $$ declare s int; begin
           select n into s from naps; perform pg_sleep(s); insert into done (n) values (s); end $$;
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap')",
    );
    cluster.wait_for(RUNNING, "1");
    // In a transaction of its own: whoever takes the job next is to see that.
    cluster.sql("update naps set n = 0");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'");
    let begun = Instant::now();
    cluster.wait_for(JOBS, "0");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(cluster.text("select string_agg(n::text, '') from done"), "0");
}

#[test]
fn a_trigger_of_a_user_s_on_the_queue_fails_the_job_not_the_worker() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "select kongtask.register_task('note', 'note(json)');
         create function keep() returns trigger language plpgsql as $$ begin
           if old.payload::text = '1' then raise 'kept'; end if; return old; end $$;
         create trigger keep before delete on graphile_worker.jobs for each row execute function keep();",
    );
    cluster.sql(&add("note", 3));
    cluster.wait_for("select split_part(last_error, E'\\n', 1) from graphile_worker.jobs", "kept (SQLSTATE P0001)");
    cluster.wait_for("select string_agg(n::text, ',' order by n) from done", "2,3");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}
