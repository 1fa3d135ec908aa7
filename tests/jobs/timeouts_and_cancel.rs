//! Calls that are ended: by a timeout, a cancel, or the termination of their worker.

use kongtask_tests::every_kind::drains_once;
use kongtask_tests::fixtures::{with_crashing_handlers, with_every_kind, with_note_and_nap};
use kongtask_tests::{IDLE, JOBS, LOCKED, RUNNING, error, rows};
use std::time::{Duration, Instant};

#[test]
fn a_call_that_takes_longer_than_its_timeout_has_failed() {
    let cluster = with_crashing_handlers(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function sleeps() returns void language sql as $$ select pg_sleep(60) $$;
         create function loops() returns void language plpgsql as $$ begin loop null; end loop; end $$;
         create function fifth(p json) returns void language plpgsql as $$ begin
           if p #>> '{}' = '5' then perform pg_sleep(60); end if; perform note(p); end $$;
         create function all_of(p json[]) returns void language plpgsql as $$ begin perform fifth(x) from unnest(p) x; end $$;
         select kongtask.register_task('sleeps', 'sleeps()', timeout := '200 ms'),
                kongtask.register_task('loops', 'loops()', timeout := '0.2 s'),
                kongtask.register_task('fifth', 'fifth(json)', max_batch := 50, timeout := '200 ms'),
                kongtask.register_task('all_of', 'all_of(json[])', timeout := '200 ms')",
    );
    let mut db = cluster.connect();
    for task in ["sleeps", "loops"] {
        let begun = Instant::now();
        cluster.sql(&format!("select graphile_worker.add_job('{task}', max_attempts := 1)"));
        let failed = format!(
            "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs where task_identifier = '{task}'"
        );
        cluster.wait_for(&failed, "timed out after 200ms (SQLSTATE 57014)");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    for task in ["fifth", "all_of"] {
        cluster.sql(&format!(
            "delete from graphile_worker.jobs; truncate done;
             select count(graphile_worker.add_job('{task}', to_json(n), max_attempts := 1)) from generate_series(1, 8) n"
        ));
        cluster.wait_for("select string_agg(payload::text || attempts, ',') from graphile_worker.jobs", "51");
        cluster.wait_for("select string_agg(n::text, ',' order by n) from done", "1,2,3,4,6,7,8");
    }
    // The timer is gone with the call: what is next may take its time.
    cluster.sql(
        "truncate done;
         create function naps() returns void language sql as $$ select pg_sleep(0.5); insert into done values (0) $$;
         select kongtask.register_task('naps', 'naps()'), kongtask.register_task('quick', 'note(json)', timeout := '200 ms');
         select graphile_worker.add_job('quick', '1', priority := -1), graphile_worker.add_job('naps', max_attempts := 1)",
    );
    cluster.wait_for("select count(*) from done where n = 0", "1");
    for timeout in ["'0'", "'-1 s'", "'0.1 ms'", "'25 days'"] {
        let statement = format!("select kongtask.register_task('naps', 'naps()', timeout := {timeout})");
        assert_eq!(
            error(&mut db, &statement),
            ("22023".into(), "timeout must be between 1 millisecond and 24 days".into())
        );
    }
    db.batch_execute("select kongtask.register_task('naps', 'naps()', timeout := '1 day 1 hour')").expect("a timeout");
    assert_eq!(rows(&mut db, "select timeout from kongtask.tasks where identifier = 'naps'"), ["1 day 01:00:00"]);
}

#[test]
fn terminate_gives_the_job_back_and_cancel_fails_it() {
    let cluster = with_note_and_nap(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql("select graphile_worker.add_job('nap', '1', queue_name := 'q', max_attempts := 1)");
    cluster.wait_for(RUNNING, "1");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'");
    cluster.wait_for("select attempts from graphile_worker.jobs where locked_by is not null", "1");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    cluster.wait_for(IDLE, "2");
    cluster.sql("select graphile_worker.add_job('nap', '60', queue_name := 'q')");
    // Not before the handler has begun.
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    let worker = cluster.text("select pid from kongtask.workers where state = 'running'");
    cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
    cluster.wait_for(
        "select last_error like 'canceling statement due to user request (SQLSTATE 57014)%' from graphile_worker.jobs",
        "t",
    );
    assert_eq!(cluster.text(LOCKED), "0");
    assert_eq!(cluster.text(&format!("select state from kongtask.workers where pid = {worker}")), "idle");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    // Idle ones, the scheduler and the launcher come back as well.
    cluster.sql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type like 'kongtask%'");
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done where what = '1'", "1");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type like 'kongtask%'", "4");
}

#[test]
fn a_cancelled_batch_or_set_fails_what_ran_and_does_each_job_once() {
    let cluster = with_every_kind(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    // One call is one job of a batch, and all jobs of a set.
    for (task, failed) in [("rest_batch", "1"), ("rest_set", "20")] {
        for keys in ["null", "'k' || n"] {
            cluster.sql("truncate done; update naps set seconds = 60");
            cluster.sql(&format!(
                "select count(graphile_worker.add_job('{task}', to_json(n), job_key := {keys})) from generate_series(1, 20) n"
            ));
            // Not before the handler has begun.
            cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
            let worker = cluster.text("select pid from kongtask.workers");
            cluster.sql("update naps set seconds = 0");
            cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
            let said = "canceling statement due to user request (SQLSTATE 57014)%";
            let count =
                "select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null and last_error";
            cluster.wait_for(&format!("{count} like '{said}'"), failed);
            drains_once(&cluster, 20);
            assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
        }
    }
    cluster.wait_for_log_times("failed on attempt 1 of 25: canceling statement due to user request", 42);
}

/// By what users have fired as it commits: it is of all jobs that share the transaction, as with a set.
#[test]
fn a_batch_that_is_cancelled_as_it_commits_has_failed() {
    let cluster = with_every_kind(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function rest() returns trigger language plpgsql security definer as $$ begin
           perform pg_sleep(seconds) from public.naps; return new; end $$;
         create constraint trigger rest after insert on done deferrable initially deferred for each row execute function rest()",
    );
    for keys in ["null", "'k' || n"] {
        let add = format!(
            "select count(graphile_worker.add_job('batch', to_json(n), job_key := {keys})) from generate_series(1, 3) n"
        );
        // Plans are made at first, which takes a batch's time.
        cluster.sql(&add);
        cluster.wait_for(JOBS, "0");
        cluster.sql("truncate done; update naps set seconds = 60");
        cluster.sql(&add);
        cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
        let worker = cluster.text("select pid from kongtask.workers");
        cluster.sql("update naps set seconds = 0");
        cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
        let said = "canceling statement due to user request (SQLSTATE 57014)%";
        let count = "select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null and last_error";
        cluster.wait_for(&format!("{count} like '{said}'"), "3");
        drains_once(&cluster, 3);
        assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
        cluster.sql("truncate done");
    }
}

/// An error that is caught has Postgres let cancels in again, in the midst of a statement of the queue's own.
#[test]
fn a_trigger_on_jobs_that_catches_an_error_lets_no_cancel_end_a_worker() {
    let cluster = with_every_kind(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function catches() returns trigger language plpgsql security definer as $$ begin
           begin perform 1 / 0; exception when others then null; end;
           perform pg_sleep(seconds) from public.naps; return new; end $$;
         create trigger catches before update on graphile_worker.jobs for each row
           when (new.last_error is not null and old.last_error is null) execute function catches();
         update naps set seconds = 1",
    );
    cluster.wait_for(IDLE, "1");
    let worker = cluster.text("select pid from kongtask.workers");
    cluster.sql("select graphile_worker.add_job('again', '1')");
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
    cluster.wait_for("select last_error like 'the first attempt%' from graphile_worker.jobs", "t");
    cluster.wait_for(IDLE, "1");
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker, "{}", cluster.log());
}
