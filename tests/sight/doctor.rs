//! `kongtask.doctor()`: each check finds what is broken, says what mends it, and is content afterwards. Between them, these
//! are the cases of docs/how-to/troubleshoot.md, where nothing happens and nothing is logged.

use kongtask_tests::fast_clock::FastClock;
use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use postgres::Client;

fn found(db: &mut Client, check: &str) -> Vec<String> {
    let query = format!(
        "select status || ': ' || detail from kongtask.doctor() where \"check\" = '{check}' and status <> 'ok'"
    );
    rows(db, &query)
}

/// Waits until a check finds something that contains `detail`; returns the statements that mend it.
fn finds(cluster: &Cluster, check: &str, detail: &str) -> Vec<String> {
    let mut db = cluster.connect();
    let came = wait_until(SOON, || found(&mut db, check).iter().any(|line| line.contains(detail)));
    assert!(
        came,
        "{check}: {detail:?} is not in {:?}",
        rows(&mut db, "select * from kongtask.doctor() where status <> 'ok'")
    );
    let hint = format!(
        "select hint from kongtask.doctor() where \"check\" = '{check}' and position($d${detail}$d$ in detail) > 0"
    );
    text(&mut db, &hint).split("; ").map(str::to_string).collect()
}

fn is_content(cluster: &Cluster, check: &str) {
    let mut db = cluster.connect();
    let content = wait_until(SOON, || found(&mut db, check).is_empty());
    assert!(content, "{check}: {:?}", found(&mut db, check));
    assert_eq!(text(&mut db, &format!("select status from kongtask.doctor() where \"check\" = '{check}'")), "ok");
}

/// A check finds something, and is content once what it says is done.
fn is_mended(cluster: &Cluster, check: &str, detail: &str) {
    let mut db = cluster.connect();
    for statement in finds(cluster, check, detail) {
        db.batch_execute(&statement).unwrap_or_else(|e| panic!("{statement}: {}", kongtask_tests::describe(&e)));
    }
    is_content(cluster, check);
}

const NOTHING: &str = "select count(*) from kongtask.doctor() where status <> 'ok'";

#[test]
fn the_doctor_finds_what_is_wrong_with_the_server() {
    let cluster =
        Cluster::with_extension(&["shared_preload_libraries = ''", "max_worker_processes = 3", "kongtask.workers = 3"]);
    let restart = || {
        cluster.stop("fast");
        cluster.start();
    };
    cluster.sql("create function nop() returns void language sql as ''; select kongtask.register_task('nop', 'nop()')");
    let mut db = cluster.connect();
    for statement in finds(&cluster, "preload", "not in shared_preload_libraries") {
        db.batch_execute(&statement).expect("a setting");
    }
    restart();
    is_content(&cluster, "preload");
    // One slot is left for three workers.
    cluster.sql("select graphile_worker.add_job('nop')");
    let mut db = cluster.connect();
    for statement in finds(&cluster, "slots", "max_worker_processes is 3") {
        db.batch_execute(&statement).expect("a setting");
    }
    restart();
    is_content(&cluster, "slots");
    for (setting, check, detail) in [
        ("kongtask.databases = 'elsewhere'", "databases", "does not list database \"postgres\""),
        ("kongtask.workers = 0", "workers", "kongtask.workers is 0"),
        ("kongtask.forbidden_flags_function = 'public.gone'", "flags", "handler public.gone() does not exist"),
        ("autovacuum = off", "autovacuum", "autovacuum is off"),
    ] {
        let detail = if check == "flags" { "kongtask.forbidden_flags_function" } else { detail };
        cluster.reload(&[setting]);
        is_mended(&cluster, check, detail);
    }
    cluster.wait_for(NOTHING, "0");
    let standby = cluster.standby();
    is_mended(&standby, "standby", "is a standby");
}

#[test]
fn the_doctor_finds_what_is_wrong_with_tasks() {
    let cluster = Cluster::with_extension(&[]);
    cluster.wait_for(NOTHING, "0");
    cluster.sql(
        "create schema app; grant usage on schema app to public;
         create function app.nop(p json) returns void language plpgsql as $$ begin end $$;
         create role alice login; create role bob superuser login;
         grant usage on schema kongtask to alice; grant execute on all functions in schema kongtask to alice;
         set role alice; select kongtask.register_task('hers', 'app.nop(json)'); reset role;
         select graphile_worker.add_job('nobody')",
    );
    // A task that is not registered.
    let mut db = cluster.connect();
    let statements = finds(&cluster, "task", "1 jobs wait for task \"nobody\"");
    assert_eq!(statements, ["select kongtask.register_task('nobody', 'HANDLER(json)')"]);
    db.batch_execute(&statements[0].replace("HANDLER", "app.nop")).expect("a handler");
    is_content(&cluster, "task");
    // Unless an external worker is there for it.
    cluster.sql("select graphile_worker.add_job('elsewhere')");
    finds(&cluster, "task", "\"elsewhere\"");
    let mut external = cluster.connect();
    external.batch_execute("listen \"jobs:insert\"").expect("a listener");
    is_content(&cluster, "task");
    drop(external);
    cluster.sql("delete from graphile_worker.jobs");
    // Roles.
    if cluster.version() < 17 {
        cluster.sql("alter role alice nologin");
        is_mended(&cluster, "role", "which cannot log in");
    }
    cluster.sql("revoke connect on database postgres from public");
    is_mended(&cluster, "role", "may not connect to this database");
    cluster.sql("grant connect on database postgres to public");
    cluster.sql("set role bob; select kongtask.register_task('his', 'app.nop(json)'); reset role; drop role bob");
    cluster.wait_for("select role ~ '^[0-9]+$' from kongtask.tasks where identifier = 'his'", "t");
    is_mended(&cluster, "role", "Task \"his\" runs as a role that has been dropped");
    cluster.sql("select kongtask.register_task('his', 'app.nop(json)'); update kongtask.tasks set role = 'carol' where identifier = 'his'");
    is_mended(&cluster, "role", "runs as role carol, which does not exist");
    cluster.sql("select kongtask.unregister_task('his')");
    // Handlers.
    cluster.sql("revoke execute on function app.nop from public");
    is_mended(&cluster, "handler", "Task \"hers\": permission denied for handler app.nop(json)");
    cluster.sql("create function app.gone() returns void language sql as ''; select kongtask.register_task('gone', 'app.gone()'); drop function app.gone()");
    is_mended(&cluster, "handler", "Task \"gone\"");
    cluster.sql(
        "create function app.fails() returns void language plpgsql as $$ begin raise 'no'; end $$;
         select kongtask.register_task('fails', 'app.fails()');
         select graphile_worker.add_job('fails') from generate_series(1, 3)",
    );
    finds(&cluster, "failing", "The latest attempt of task \"fails\" failed, and 2 attempts before it");
    cluster.sql("create or replace function app.fails() returns void language sql as ''");
    is_mended(&cluster, "failing", "The latest error is: no (SQLSTATE P0001)");
    // Schedules.
    cluster.sql("select kongtask.schedule('daily', '@daily', 'unknown')");
    is_mended(&cluster, "schedules", "Schedule \"daily\"");
    cluster.wait_for(NOTHING, "0");
}

#[test]
fn the_doctor_finds_what_is_wrong_with_the_tables() {
    let cluster = Cluster::with_extension(&["max_prepared_transactions = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql("create function nop() returns void language sql as ''; select kongtask.register_task('nop', 'nop()')");
    // They keep dead rows, and have done so for some seconds when there are some.
    let mut open = cluster.connect();
    open.batch_execute("begin isolation level repeatable read; select count(*) from pg_class").expect("a snapshot");
    // Locks of workers that do not live.
    cluster.sql(
        "select graphile_worker.add_job('elsewhere', queue_name := 'dead'); select graphile_worker.get_job('an-external-worker');
         update graphile_worker.jobs set locked_at = now() - interval '5 h';
         update graphile_worker.job_queues set locked_at = now() - interval '5 h'",
    );
    is_mended(&cluster, "locks", "\"an-external-worker\", which has locked job 1 and 1 more");
    cluster.sql("delete from graphile_worker.jobs");
    cluster.sql(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, queue_name, locked_at, locked_by, attempts)
         values ('nop', 'q', now(), 'another-worker', 1)",
    );
    is_mended(&cluster, "locks", "another-worker");
    // Times.
    cluster.sql(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, run_at, created_at)
         values ('nop', now() + interval '1 h', now() + interval '1 h')",
    );
    is_mended(&cluster, "clock", "added or claimed in the future");
    cluster.sql("select graphile_worker.add_job('nop', run_at := to_timestamp(1700000000000))");
    is_mended(&cluster, "run_at", "more than ten years from now");
    cluster.sql("alter table graphile_worker.jobs disable trigger _900_notify_worker");
    is_mended(&cluster, "triggers", "_900_notify_worker");
    // Dead rows.
    cluster.sql("alter table graphile_worker.jobs set (autovacuum_enabled = off)");
    cluster.sql("begin; prepare transaction 'forgotten'");
    cluster.sql(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, run_at) select 'nop', '2100-01-01' from generate_series(1, 60000);
         delete from graphile_worker.jobs where run_at = '2100-01-01'; analyze graphile_worker.jobs",
    );
    is_mended(&cluster, "xmin", "has been open since");
    is_mended(&cluster, "xmin", "Transaction \"forgotten\" has been prepared since");
    is_mended(&cluster, "autovacuum", "Table jobs has");
    // Something holds the database still.
    let mut loader = cluster.psql("postgres");
    loader.send("set check_function_bodies = off; copy graphile_worker.jobs (task_identifier) from stdin;\n\\.\n\\echo loaded\n");
    loader.wait_for("loaded");
    is_mended(&cluster, "holds", "a session is loading a dump");
    drop(loader);
    cluster.wait_for(NOTHING, "0");
}

#[test]
fn the_doctor_finds_limits_that_limit_nothing_or_tell_no_jobs_apart() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 0"]);
    cluster.sql("create function nop() returns void language sql as ''; select kongtask.register_task('nop', 'nop()')");
    cluster.sql("select kongtask.set_limit('typo', '{mop}', concurrency := 1)");
    is_mended(&cluster, "limits", "Limit \"typo\" names tasks that are not registered: mop.");
    assert_eq!(cluster.text("select count(*) from kongtask.limit_settings"), "0");
    cluster.sql("select kongtask.set_limit('typo', '{mop,nop,pop}', 'tenant', 3, 60, '1 min', 5)");
    is_mended(&cluster, "limits", "Limit \"typo\" names tasks that are not registered: mop, pop.");
    assert_eq!(
        cluster.text("select concat_ws(' ', tasks, by, concurrency, rate, per, burst) from kongtask.limit_settings"),
        "{nop} tenant 3 60 00:01:00 5"
    );
    cluster.sql(
        "select graphile_worker.add_job('nop', json_build_object(case when n % 2 = 0 then 'tenant' else 'tenet' end, n))
         from generate_series(1, 10) n",
    );
    is_content(&cluster, "limits");
    cluster.sql("select graphile_worker.add_job('nop', '{\"tenet\": 11}')");
    let statements = finds(
        &cluster,
        "limits",
        "Of 11 jobs that wait under limit \"typo\", 6 share one limit, as they have no member \"tenant\".",
    );
    cluster.sql(&statements[0].replace("MEMBER", "tenet"));
    is_content(&cluster, "limits");
    assert_eq!(
        cluster.text("select concat_ws(' ', tasks, by, concurrency, rate, per, burst) from kongtask.limit_settings"),
        "{nop} tenet 3 60 00:01:00 5"
    );
}

#[test]
fn the_doctor_finds_a_limit_that_has_had_no_room_for_a_minute() {
    let cluster = Cluster::stopped(&["kongtask.workers = 3"]);
    let clock = FastClock::of(&cluster, 100);
    cluster.start_with(&clock.environment());
    cluster.sql(
        "create extension kongtask;
         create function hang(p json) returns void language plpgsql as $$ begin
           while (p ->> 'hangs')::boolean loop perform pg_sleep(0.01); end loop; end $$;
         select kongtask.register_task('hang', 'hang(json)'), kongtask.set_limit('each', by := 'key', concurrency := 1),
                kongtask.set_limit('three', concurrency := 3);
         select graphile_worker.add_job('hang', '{\"hangs\": true, \"key\": \"a\"}'),
                graphile_worker.add_job('hang', '{\"hangs\": true, \"key\": \"b\"}')",
    );
    cluster.wait_for(
        "select count(*) from kongtask.workers where state = 'running' and since < now() - interval '90 s'",
        "2",
    );
    is_content(&cluster, "limits");
    cluster.sql("select graphile_worker.add_job('hang', '{\"key\": \"b\"}', run_at := '2020-01-01')");
    finds(&cluster, "limits", "Limit \"each\" has had no room for key \"b\" since");
    assert_eq!(found(&mut cluster.connect(), "limits").len(), 1, "there is room under the other limit");
    is_mended(&cluster, "limits", "Limit \"each\" has had no room for key \"b\" since");
    assert_eq!(cluster.text("select count(*) from kongtask.workers where state = 'running'"), "1");
    assert_eq!(cluster.text("select payload ->> 'key' from graphile_worker.jobs where last_error ~ 'cancelled'"), "b");
}

#[test]
fn a_queue_that_is_worked_down_is_found_in_order_and_says_what_runs() {
    let cluster = with_note_and_nap(&["kongtask.workers = 1"]);
    cluster.sql("select graphile_worker.add_job('nap', to_json(n * 30), 'q') from generate_series(0, 2) n");
    // The first is done, and the worker has gone on with the second.
    cluster.wait_for("select running from kongtask.queues", "2");
    assert_eq!(cluster.text("select why from kongtask.job_states where id = 3"), "its queue is busy: it runs job 2");
    assert_eq!(
        cluster.text("select count(*) from kongtask.doctor() where \"check\" = 'locks' and status <> 'ok'"),
        "0"
    );
}
