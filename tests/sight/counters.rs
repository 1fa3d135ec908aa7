//! `kongtask.stat_tasks`, `stat_histogram` and `stat_reset`.

use kongtask_tests::fixtures::{with_crashing_handlers, with_note_and_nap};
use kongtask_tests::{Cluster, SOON, error, rows, text, wait_until};

/// Tasks of each kind whose handlers fail for every seventh number, and the one after it.
const EVERY_KIND: &str = "
    create function act(p json) returns void language plpgsql as $$ begin
      if (p #>> '{}')::int % 7 < 2 then raise 'no good: %', p; end if; end $$;
    create function act_on_all(p json[]) returns void language plpgsql as $$ begin perform act(x) from unnest(p) x; end $$;
    select kongtask.register_task('plain', 'act(json)'), kongtask.register_task('claimed', 'act(json)', in_place := false),
           kongtask.register_task('queued', 'act(json)'), kongtask.register_task('batch', 'act(json)', max_batch := 50),
           kongtask.register_task('set', 'act_on_all(json[])')";

#[test]
fn counters_are_exact_while_jobs_fail_and_workers_end() {
    let cluster = Cluster::with_extension(&["log_min_messages = warning"]);
    cluster.sql(EVERY_KIND);
    // Every seventh fails once and for good, the next one twice. What is rolled back was never added.
    let add = |task: &str| {
        let queue = if task == "queued" { "'q' || n % 3" } else { "null" };
        format!(
            "select count(graphile_worker.add_job('{task}', to_json(n), {queue}, max_attempts := 1 + n % 7))
             from generate_series(0, 419) n"
        )
    };
    for task in ["plain", "claimed", "queued", "batch", "set"] {
        cluster.sql(&format!(
            "begin; savepoint a; {add}; rollback to a; savepoint b; savepoint c; {add}; release c; release b; commit;
             begin; {add}; rollback",
            add = add(task)
        ));
    }
    let mut db = cluster.connect();
    let mut rounds = 0;
    let came = wait_until(SOON * 2, || {
        rounds += 1;
        if rounds % 10 == 0 {
            let victim = "select pg_terminate_backend(pid) from kongtask.workers where state = 'running' limit 1";
            text(&mut db, victim);
        }
        // They need not wait for their second attempt.
        let again = "select count(*) from graphile_worker.reschedule_jobs(array(
                       select id from graphile_worker.jobs where attempts = 1 and max_attempts > 1 and run_at > now()), now())";
        text(&mut db, again);
        text(&mut db, "select count(*) from graphile_worker.jobs where attempts < max_attempts") == "0"
    });
    assert!(came, "{:?}", rows(&mut db, "select * from kongtask.stat_tasks"));
    cluster.wait_for("select sum(running) from kongtask.stat_tasks", "0");
    let account = "added, succeeded, failed, discarded, cancelled, snoozed, timed_out, crashed";
    for task in ["plain", "claimed", "queued", "batch", "set"] {
        let counts = format!("select {account} from kongtask.stat_tasks where task = '{task}'");
        let counted = || rows(&mut cluster.connect(), &counts);
        let exact = wait_until(SOON, || counted() == ["420|300|180|120|0|0|0|0"]);
        assert!(exact, "{task}: {:?}", counted());
        for what in ["run", "wait"] {
            let sum = format!("select sum(count), count(*), max(le) from kongtask.stat_histogram('{task}', '{what}')");
            assert_eq!(rows(&mut db, &sum), ["480|24|Infinity"], "{task} {what}");
        }
        let times = format!(
            "select min_run_time <= mean_run_time and mean_run_time <= max_run_time and stddev_run_time >= 0
               and abs(total_run_time - mean_run_time * 480) < 0.001 and total_run_time > 0 and max_wait_time > 0
               and last_success_at between stats_reset and now() and last_failure_at between stats_reset and now()
               and last_error like 'no good: %(SQLSTATE P0001)' and role = 'postgres'
             from kongtask.stat_tasks where task = '{task}'"
        );
        assert_eq!(text(&mut db, &times), "t", "{:?}", rows(&mut db, "select * from kongtask.stat_tasks"));
    }
}

#[test]
fn counters_outlive_a_restart_and_not_a_crash() {
    let cluster = with_crashing_handlers(&[]);
    cluster.sql(
        "create function too_long() returns void language sql as $$ select pg_sleep(60) $$;
         select kongtask.register_task('too_long', 'too_long()', timeout := '50 ms');
         select graphile_worker.add_job('too_long', max_attempts := 1), graphile_worker.add_job('note', '1')",
    );
    let counts = "select string_agg(concat_ws(' ', task, added, succeeded, failed, discarded, timed_out, crashed), ', ' order by task)
                  from kongtask.stat_tasks";
    cluster.wait_for(counts, "note 1 1 0 0 0 0, too_long 1 0 1 1 1 0");
    let since = "select stats_reset from kongtask.stat_tasks where task = 'note'";
    let before = cluster.text(since);
    for mode in ["fast", "smart"] {
        cluster.stop(mode);
        cluster.start();
        assert_eq!(cluster.text(counts), "note 1 1 0 0 0 0, too_long 1 0 1 1 1 0", "{mode}");
        assert_eq!(cluster.text(since), before);
        assert_eq!(
            cluster.text("select last_error from kongtask.stat_tasks where task = 'too_long'"),
            "timed out after 50ms (SQLSTATE 57014)"
        );
    }
    cluster.stop("immediate");
    cluster.start();
    assert_eq!(cluster.text("select coalesce(sum(succeeded), 0) from kongtask.stat_tasks"), "0");
    // The job that crashes the server is the first that is counted afterwards.
    // It may take this session with it, and any that asks meanwhile.
    let _ = cluster.connect().batch_execute("select graphile_worker.add_job('crash', max_attempts := 1)");
    let crashed = || {
        let asked = "select concat_ws(' ', failed, discarded, crashed) from kongtask.stat_tasks where task = 'crash'";
        let mut db = cluster.try_connect_as("postgres", "postgres").ok()?;
        db.query_opt(asked, &[]).ok()?.map(|row| row.get::<_, String>(0))
    };
    let crashed = || crashed().as_deref() == Some("1 1 1");
    assert!(wait_until(SOON, crashed), "{:?}", cluster.text(counts));
}

#[test]
fn tasks_beyond_the_limit_are_counted_together() {
    let cluster = Cluster::with_extension(&["kongtask.max_tracked_tasks = 3"]);
    let tasks = "create function nop() returns void language sql as '';
                 select kongtask.register_task('t' || n, 'nop()') from generate_series(1, 5) n;
                 select graphile_worker.add_job('t' || n) from generate_series(1, 5) n";
    cluster.sql(tasks);
    let counts = "select string_agg(concat_ws(' ', task, added, succeeded), ', ' order by task collate \"C\") from kongtask.stat_tasks";
    cluster.wait_for(counts, "<others> 2 2, t1 1 1, t2 1 1, t3 1 1");
    assert_eq!(cluster.text("select role from kongtask.stat_tasks where task = '<others>'"), "");
    // The rows of a database that is dropped are free again, as are those of an extension that is.
    cluster.sql("drop extension kongtask cascade; create extension kongtask");
    cluster.sql("select kongtask.stat_reset()");
    cluster.sql("create database other");
    let mut other = cluster.connect_as("postgres", "other");
    other.batch_execute("create extension kongtask").expect("an extension");
    other.batch_execute(tasks).expect("jobs");
    let others = || text(&mut cluster.connect_as("postgres", "other"), counts);
    assert!(wait_until(SOON, || others() == "<others> 2 2, t1 1 1, t2 1 1, t3 1 1"), "{}", others());
    drop(other);
    cluster.sql("drop database other");
    cluster
        .sql("create function nop2() returns void language sql as ''; select kongtask.register_task('mine', 'nop2()')");
    let counted = || {
        cluster.sql("select kongtask.stat_reset(), graphile_worker.add_job('mine')");
        cluster.text("select count(*) from kongtask.stat_tasks where task = 'mine'") == "1"
    };
    assert!(wait_until(SOON, counted), "{}", cluster.text(counts));
}

#[test]
fn counters_are_reset_by_those_who_may() {
    let cluster = Cluster::with_extension(&[]);
    cluster.sql(
        "create role alice login; create role bob login;
         grant usage on schema kongtask, graphile_worker to alice, bob;
         grant execute on all functions in schema kongtask to alice, bob;
         grant select on kongtask.stat_tasks to alice, bob;
         create schema app authorization alice; set role alice;
         create function app.fails() returns void language plpgsql as $$ begin raise 'secret'; end $$;
         select kongtask.register_task('hers', 'app.fails()');
         reset role;
         create function nop() returns void language sql as '';
         select kongtask.register_task('ours', 'nop()');
         select graphile_worker.add_job('hers'), graphile_worker.add_job('ours')",
    );
    let counts = "select string_agg(concat_ws(' ', task, role, added, succeeded, failed), ', ' order by task) from kongtask.stat_tasks";
    cluster.wait_for(counts, "hers alice 1 0 1, ours postgres 1 1 0");
    // Who may not read jobs may not read their errors. The function behind the view says no more than the view.
    for source in ["kongtask.stat_tasks", "kongtask.live_stats()"] {
        let last_error = &format!("select last_error from {source} where task = 'hers'");
        assert_eq!(cluster.text(last_error), "secret (SQLSTATE P0001)");
        for role in ["alice", "bob"] {
            assert_eq!(text(&mut cluster.connect_as(role, "postgres"), last_error), "", "{role}");
        }
    }
    let mut bob = cluster.connect_as("bob", "postgres");
    for (statement, message) in [
        ("select kongtask.stat_reset()", "permission denied to reset the counters of all tasks"),
        ("select kongtask.stat_reset('hers')", "permission denied to reset the counters of task \"hers\""),
    ] {
        assert_eq!(error(&mut bob, statement), ("42501".into(), message.into()));
    }
    let mut alice = cluster.connect_as("alice", "postgres");
    alice.batch_execute("select kongtask.stat_reset('hers')").expect("her own");
    assert_eq!(cluster.text(counts), "hers alice 0 0 0, ours postgres 1 1 0");
    assert_eq!(error(&mut alice, "select kongtask.stat_reset('ours')").0, "42501");
    cluster.sql("select kongtask.stat_reset()");
    assert_eq!(cluster.text(counts), "hers alice 0 0 0, ours postgres 0 0 0");
    let unknown = error(&mut alice, "select * from kongtask.stat_histogram(what := 'sleep')");
    assert_eq!(unknown, ("22023".into(), "histogram \"sleep\" is not known".into()));
}

#[test]
fn jobs_that_are_cancelled_or_snoozed_are_counted() {
    let cluster = with_note_and_nap(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function rests(p json) returns void language plpgsql as $$ begin
           if not exists (select from done where what = p #>> '{}') then
             insert into done values (0, p #>> '{}'); perform kongtask.snooze('0');
           end if;
         end $$;
         select kongtask.register_task('rests', 'rests(json)'),
                kongtask.register_task('rests_in_batch', 'rests(json)', max_batch := 10);
         select graphile_worker.add_job('rests', '1'), graphile_worker.add_job('rests', '2', 'q'),
                graphile_worker.add_job('nap', '60');
         select graphile_worker.add_job('rests_in_batch', to_json(n)) from generate_series(11, 13) n",
    );
    let counts =
        "select string_agg(concat_ws(' ', task, added, succeeded, snoozed, cancelled, failed), '; ' order by task)
                  from kongtask.stat_tasks where task <> 'note'";
    cluster.wait_for("select count(*) from kongtask.workers where task_identifier = 'nap'", "1");
    // One that runs, one that waits, one that is rolled back.
    cluster.sql(
        "select graphile_worker.add_job('nap', '60', run_at := '2100-01-01');
         begin; savepoint s; select kongtask.cancel(id) from graphile_worker.jobs; rollback to s; commit;
         select kongtask.cancel(id) from graphile_worker.jobs where task_identifier = 'nap'",
    );
    cluster.wait_for(counts, "nap 2 0 0 2 0; rests 2 2 2 0 0; rests_in_batch 3 3 3 0 0");
    // What is put off has not succeeded.
    cluster.sql(
        "create function puts_off() returns void language sql as $$ select kongtask.snooze('1 day') $$;
         select kongtask.register_task('puts_off', 'puts_off()', max_batch := 10);
         select graphile_worker.add_job('puts_off') from generate_series(1, 3)",
    );
    cluster.wait_for("select snoozed from kongtask.stat_tasks where task = 'puts_off'", "3");
    assert_eq!(cluster.text("select last_success_at from kongtask.stat_tasks where task = 'puts_off'"), "");
}

#[test]
fn each_job_of_a_set_that_fails_as_a_whole_is_counted_with_its_time() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function fail_all(p json[]) returns void language plpgsql as $$ begin
           perform kongtask.retry_in('1 hour'); raise 'later'; end $$;
         select kongtask.register_task('set', 'fail_all(json[])'), kongtask.register_task('claimed', 'fail_all(json[])', in_place := false);
         select graphile_worker.add_job(task) from unnest(array['set', 'claimed']) task, generate_series(1, 3)",
    );
    for task in ["set", "claimed"] {
        let counted = format!(
            "select concat_ws(' ', failed, (select sum(count) from kongtask.stat_histogram(task, 'run')))
             from kongtask.stat_tasks where task = '{task}'"
        );
        cluster.wait_for(&counted, "3 3");
    }
}
