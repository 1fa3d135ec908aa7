//! Which rows there are, and what is in them.

use crate::{TASKS, run, with_ways};
use kongtask_tests::fault::stopped;
use kongtask_tests::{Cluster, error, rows, text};

#[test]
fn each_attempt_leaves_one_row_in_whatever_way_its_job_runs() {
    let cluster = with_ways(&["kongtask.workers = 2"]);
    let mut db = cluster.connect();
    for task in TASKS {
        for (more, queue, key) in [("", "", ""), (", queue_name := 'q'", "q", ""), (", job_key := 'k' || n", "", "k")] {
            let add = format!(
                "select count(graphile_worker.add_job('{task}', to_json(n){more})) from generate_series(1, 20) n"
            );
            run(&cluster, &format!("truncate did, kongtask.runs_0; {add}"));
            assert_eq!(text(&mut db, "select count(*) || ' ' || sum(n) from did"), "20 210", "{task}{more}");
            let expected = format!("20|{task}|{queue}|{key}|succeeded|1|f|f||postgres");
            let kept = "select count(distinct job_id), task, queue, left(key, 1), state, attempt,
                          started_at > ended_at or started_at < now() - interval '1 min', waited < '0', error, role
                        from kongtask.runs where payload is null group by 2, 3, 4, 5, 6, 7, 8, 9, 10";
            assert_eq!(rows(&mut db, kept), [expected], "{task}{more}");
            let sum = if task == "steps" { "" } else { "420" };
            assert_eq!(text(&mut db, "select sum(result::int) from kongtask.runs"), sum, "{task}{more}");
            assert_eq!(text(&mut db, "select count(*) from kongtask.runs"), "20", "{task}{more}");
        }
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_failed_attempt_is_kept_with_its_error_whether_or_not_another_follows() {
    let cluster = with_ways(&["kongtask.workers = 2"]);
    let mut db = cluster.connect();
    for task in TASKS {
        run(
            &cluster,
            &format!(
                "truncate did, kongtask.runs_0;
                 select graphile_worker.add_jobs(array[
                   ('{task}', '1', null, null, null, null, null, null),
                   ('{task}', '-1', null, null, 2, null, null, null),
                   ('{task}', '2', null, null, null, null, null, null)]::graphile_worker.job_spec[])"
            ),
        );
        cluster.wait_for("select count(*) from graphile_worker.jobs where run_at > now()", "1");
        run(
            &cluster,
            "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where attempts < max_attempts), now())",
        );
        let kept = "select state, attempt, started_at < ended_at, result is null, split_part(error, E'\\n', 1)
                    from kongtask.runs order by ended_at, job_id";
        let none = if task == "steps" { "t" } else { "f" };
        let mut expected = vec![
            format!("succeeded|1|t|{none}|"),
            "retrying|1|t|t|negative (SQLSTATE P0001)".into(),
            format!("succeeded|1|t|{none}|"),
            "failed|2|t|t|negative (SQLSTATE P0001)".into(),
        ];
        let mut found = rows(&mut db, kept);
        assert_eq!(found.last(), expected.last(), "{task}");
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{task}");
        // What is kept is what the job itself says.
        let same = "select count(*) from kongtask.runs join kongtask.failed on id = job_id
                    where state = 'failed' and error = last_error";
        assert_eq!(text(&mut db, same), "1", "{task}");
        cluster.sql("delete from graphile_worker.jobs");
    }
}

#[test]
fn what_a_handler_asks_for_and_what_a_session_cancels_is_kept() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql(
        "create table puts_off (); create function snoozes() returns int language plpgsql as $$ begin
           if exists (select from pg_class where relname = 'puts_off') then
             drop table public.puts_off; perform kongtask.snooze('0'); end if; return 1; end $$;
         create function gives_up() returns void language plpgsql as $$ begin perform kongtask.give_up('enough'); end $$;
         create function sleeps() returns void language sql as 'select pg_sleep(600)';
         select kongtask.register_task('snoozes', 'snoozes()', keep := 'all'), kongtask.register_task('gives_up', 'gives_up()', keep := 'failures'),
                kongtask.register_task('sleeps', 'sleeps()', keep := 'failures'),
                kongtask.register_task('slow', 'sleeps()', keep := 'failures', timeout := '10 ms')",
    );
    run(&cluster, "select graphile_worker.add_job('snoozes')");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let kept = "select state, attempt, result, split_part(error, E'\\n', 1) from kongtask.runs order by ended_at";
    assert_eq!(rows(&mut db, kept), ["snoozed|1||", "succeeded|1|1|"]);
    run(&cluster, "truncate kongtask.runs_0; select graphile_worker.add_job('gives_up')");
    run(&cluster, "select graphile_worker.add_job('slow', max_attempts := 1)");
    let running = cluster.text("select id from graphile_worker.add_job('sleeps')");
    cluster.wait_for(
        &format!("select count(*) from kongtask.workers where job_id = {running} and state = 'running'"),
        "1",
    );
    let waiting = cluster.text("select id from graphile_worker.add_job('alone')");
    let cancel = |job: &str| format!("select kongtask.cancel({job}, 'not wanted')");
    // What is rolled back was not cancelled.
    db.batch_execute(&format!("begin; {}; rollback", cancel(&waiting))).expect("a rollback");
    assert_eq!(text(&mut db, &cancel(&waiting)), "cancelled");
    assert_eq!(text(&mut db, &cancel(&running)), "stopping");
    cluster.wait_for("select count(*) from kongtask.runs where state = 'cancelled'", "2");
    assert_eq!(
        rows(&mut db, &kept.replace("order", "where task <> 'alone' order")),
        [
            "failed|1||enough",
            "failed|1||timed out after 10ms (SQLSTATE 57014)",
            "cancelled|1||cancelled by postgres: not wanted"
        ]
    );
    let never = format!("select state, attempt, started_at, waited, error from kongtask.runs where job_id = {waiting}");
    assert_eq!(rows(&mut db, &never), ["cancelled||||cancelled by postgres: not wanted"]);
}

#[test]
fn nothing_is_kept_but_what_a_task_asks_for() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let add = "select graphile_worker.add_job('alone', '1'), graphile_worker.add_job('alone', '-1', max_attempts := 1)";
    for (keep, expected) in [("none", ""), ("failures", "failed"), ("all", "failed succeeded")] {
        run(
            &cluster,
            &format!("truncate kongtask.runs_0; select kongtask.alter_task('alone', keep := '{keep}'); {add}"),
        );
        let kept = "select string_agg(state, ' ' order by state) from kongtask.runs where payload is null";
        assert_eq!(text(&mut db, kept), expected, "{keep}");
    }
    run(
        &cluster,
        &format!("truncate kongtask.runs_0; select kongtask.alter_task('alone', keep_payload := true); {add}"),
    );
    assert_eq!(text(&mut db, "select string_agg(payload::text, ' ' order by job_id) from kongtask.runs"), "1 -1");
    // An option that is left out has its default again.
    cluster.sql("select kongtask.alter_task('alone', keep_for := '1 hour')");
    let options = "select keep, keep_for, keep_payload from kongtask.tasks where identifier = 'alone'";
    assert_eq!(rows(&mut db, options), ["all|01:00:00|t"]);
    cluster.sql("select kongtask.register_task('alone', 'does(json)')");
    assert_eq!(rows(&mut db, options), ["none|7 days|f"]);
    for (option, message) in [
        ("keep := 'some'", "keep \"some\" is not known"),
        ("keep_for := '0'", "keep_for must be between 1 millisecond and 10 years"),
        ("keep_for := '11 years'", "keep_for must be between 1 millisecond and 10 years"),
    ] {
        for function in ["register_task('alone', 'does(json)',", "alter_task('alone',"] {
            let call = format!("select kongtask.{function} {option})");
            assert_eq!(error(&mut db, &call), ("22023".into(), message.into()), "{call}");
        }
    }
}

/// An effect that cannot be committed, and one whose worker ends before the commit.
#[test]
fn what_is_rolled_back_has_no_row() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(crate::WAYS);
    let mut db = cluster.connect();
    cluster.sql(
        "create table unique_ns (n int unique deferrable initially deferred);
        insert into unique_ns values (7);
        create function repeats(p json) returns int language sql as
          'insert into public.unique_ns values ((p #>> ''{}'')::int) returning n';
        select kongtask.register_task('repeats', 'repeats(json)', keep := 'all')",
    );
    run(
        &cluster,
        "select graphile_worker.add_job('repeats', '7', max_attempts := 1), graphile_worker.add_job('repeats', '8')",
    );
    assert_eq!(text(&mut db, "select string_agg(n::text, ' ' order by n) from unique_ns"), "7 8");
    let kept = "select string_agg(state || coalesce(' ' || result::text, ''), ', ' order by job_id) from kongtask.runs";
    assert_eq!(text(&mut db, kept), "failed, succeeded 8");
    cluster.sql("truncate kongtask.runs_0");
    cluster.arm("completed", "stop");
    cluster.sql("select graphile_worker.add_job('alone', '1')");
    let worker = stopped(&cluster, &mut db);
    assert_eq!(text(&mut db, "select count(*) from kongtask.runs"), "0");
    db.execute("select pg_terminate_backend($1)", &[&worker]).expect("a termination");
    kongtask_tests::fault::go_on(worker);
    cluster.wait_for("select count(*) from did", "1");
    assert_eq!(text(&mut db, "select string_agg(state, ' ') from kongtask.runs"), "succeeded");
}

#[test]
fn rows_also_go_to_a_table_that_a_user_has_given_an_index_or_a_trigger() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let add = "select graphile_worker.add_job('batch', to_json(n)) from generate_series(1, 3) n";
    run(&cluster, &format!("create index by_task on kongtask.runs_0 (task) where result <> '4'; {add}"));
    db.batch_execute("set enable_seqscan = off").expect("a setting");
    let by_index = "select count(*) from kongtask.runs_0 where task = 'batch' and result <> '4'";
    assert!(rows(&mut db, &format!("explain {by_index}")).concat().contains("by_task"));
    assert_eq!(text(&mut db, by_index), "2");
    run(
        &cluster,
        &format!(
            "drop index kongtask.by_task; create table copies (job bigint);
             create function copies() returns trigger language plpgsql as
               $$ begin insert into public.copies values (new.job_id); return new; end $$;
             create trigger copies after insert on kongtask.runs_0 for each row execute function copies(); {add}"
        ),
    );
    assert_eq!(text(&mut db, "select count(*) from copies"), "3");
    run(&cluster, &format!("alter table kongtask.runs_0 add column note text default 'x'; {add}"));
    assert_eq!(text(&mut db, "select string_agg(note, '') from kongtask.runs_0"), "xxxxxxxxx");
    assert_eq!(text(&mut db, "select sum(result::int) from kongtask.runs"), "36");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_job_that_its_handler_completes_or_fails_itself_is_kept_as_that() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql(
        "create function settles(p json, j graphile_worker.jobs) returns int language plpgsql as $$ begin
           insert into public.did values (1);
           case p #>> '{}'
             when 'complete' then perform graphile_worker.complete_job(j.locked_by, j.id);
             else perform graphile_worker.fail_job(j.locked_by, j.id, 'not today');
           end case; return 1; end $$;
         select kongtask.register_task('settles', 'settles(json, graphile_worker.jobs)', in_place := false, keep := 'all');
         select graphile_worker.add_job('settles', '\"complete\"'), graphile_worker.add_job('settles', '\"fail\"'),
                graphile_worker.add_job('settles', '\"fail\"', max_attempts := 1)",
    );
    cluster.wait_for("select count(*) from did", "3");
    let kept = "select state, attempt, result, error from kongtask.runs order by job_id";
    assert_eq!(rows(&mut db, kept), ["succeeded|1|1|", "retrying|1||not today", "failed|1||not today"]);
}
