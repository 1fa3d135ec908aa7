//! Settings, of a role, of the database, or made by somebody's function, change neither what our statements mean nor what
//! the next job finds.

use crate::{cluster, outcome, run_as};
use kongtask_tests::{Cluster, SOON, describe, rows, text, wait_until};

/// Things that are named as what our statements use, in a schema that comes before pg_catalog. Whoever uses one fails.
pub fn hostile_objects() -> String {
    let mut all = String::from(
        "create function hostile.hijacked() returns boolean language plpgsql as
           $$ begin raise exception 'hijacked as %', current_user; end $$;
         create type hostile.json as (x int); create type hostile.text as (x int); create type hostile.timestamptz as (x int);
         create table hostile.jobs (id int); create table hostile.job_queues (id int); create table hostile.tasks (id int);
         create table hostile.pg_class (oid int); create table hostile.pg_extension (oid int);
         create table hostile.pg_namespace (oid int); create table hostile.pg_proc (oid int);",
    );
    for (names, left, right) in [
        ("= <> < <= > >= + -", "bigint", "bigint"),
        ("= <> < <= > >= + -", "int", "int"),
        ("= <> < <= > >= ||", "pg_catalog.text", "pg_catalog.text"),
        ("= <> < <= > >=", "pg_catalog.timestamptz", "pg_catalog.timestamptz"),
        ("+ -", "pg_catalog.timestamptz", "interval"),
        ("= <>", "oid", "oid"),
        // Where pg_catalog has no operator for the very types, one that has is taken wherever it is.
        ("= <>", "oid", "regclass"),
        ("= <>", "oid", "regrole"),
        ("= <>", "\"char\"", "pg_catalog.text"),
        ("= <>", "varchar", "varchar"),
        ("= <>", "name", "name"),
        ("= <>", "name", "pg_catalog.text"),
        ("= <>", "\"char\"", "\"char\""),
        ("?| ->>", "jsonb", "pg_catalog.text[]"),
    ] {
        let function = format!("hostile.\"{}\"", format!("{left} {right}").replace('"', ""));
        all += &format!(
            "create function {function}({left}, {right}) returns boolean language sql as 'select hostile.hijacked()';"
        );
        for name in names.split(' ') {
            all += &format!(
                "create operator hostile.{name} (leftarg = {left}, rightarg = {right}, function = {function});"
            );
        }
    }
    for signature in [
        "now()",
        "length(pg_catalog.text)",
        "starts_with(pg_catalog.text, pg_catalog.text)",
        "exp(double precision)",
        "exp(int)",
        "unnest(pg_catalog.text[])",
        "unnest(bigint[])",
        "json_typeof(pg_catalog.json)",
        "to_jsonb(anyelement)",
        "quote_ident(pg_catalog.text)",
        "quote_ident(name)",
        "format(pg_catalog.text, name)",
        "format(pg_catalog.text, variadic pg_catalog.text[])",
        "current_setting(pg_catalog.text)",
        "current_schema()",
        "to_regclass(pg_catalog.text)",
        "has_function_privilege(regproc, pg_catalog.text)",
        "has_function_privilege(oid, pg_catalog.text)",
        "add_job(pg_catalog.text)",
    ] {
        all += &format!(
            "create function hostile.{signature} returns boolean language sql as 'select hostile.hijacked()';"
        );
    }
    all
}

/// The path that everybody has who connects: hostile things first.
const PATH: &str = "alter database postgres set search_path = hostile, pg_catalog, public;
    alter role postgres set search_path = hostile, pg_catalog, public;
    alter role alice set search_path = hostile, pg_catalog, public;
    alter role web set search_path = hostile, pg_catalog, public;
    alter role node set search_path = hostile, pg_catalog, public;";

/// Takes it away where people and tests look.
const OWN_PATH: &str = "set search_path = pg_catalog";

#[test]
fn no_search_path_changes_what_the_queue_does() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '200ms'"]);
    run_as(&cluster, "mallory", &hostile_objects());
    run_as(
        &cluster,
        "alice",
        "create table app.done (task text);
         create function app.do(payload json) returns void language sql as $$ insert into app.done values ('do') $$;
         create function app.do_all(json[]) returns void language sql as $$ insert into app.done values ('do_all') $$;
         create function app.fail() returns void language plpgsql as 'begin raise exception using message = ''as it should''; end';
         select kongtask.register_task('plain', 'app.do(json)'), kongtask.register_task('fail', 'app.fail()'),
           kongtask.register_task('claimed', 'app.do(json)', in_place := false),
           kongtask.register_task('batch', 'app.do(json)', max_batch := 20),
           kongtask.register_task('set', 'app.do_all(json[])')",
    );
    cluster.sql(PATH);
    cluster.stop("fast");
    cluster.start();
    // The path is one under which what is unqualified fails.
    let mut web = cluster.connect_as("web", "postgres");
    assert_eq!(outcome(&mut web, "select 1 = 1"), "P0001");
    for arguments in [
        // Job 1: of others the numbers depend on what runs meanwhile.
        "'elsewhere', queue_name := 'r', flags := '{f}'",
        "'plain'",
        "'claimed'",
        "'plain', queue_name := 'q'",
        "'fail', queue_name := 'q', max_attempts := 1",
        "'plain', queue_name := 'q'",
        "'plain', job_key := 'k'",
        "'plain', job_key := 'k'",
        "'plain', job_key := 'k', job_key_mode := 'unsafe_dedupe'",
        "'plain', flags := '{f,g}'",
        "'fail', max_attempts := 1",
    ] {
        web.batch_execute(&format!("select graphile_worker.add_job({arguments})"))
            .unwrap_or_else(|e| panic!("{arguments}: {}", describe(&e)));
    }
    for _ in 0..30 {
        web.batch_execute("select graphile_worker.add_job('batch'), graphile_worker.add_job('set')").expect("add_job");
    }
    let mut node = cluster.connect_as("node", "postgres");
    for statement in [
        "select graphile_worker.add_jobs(array[('elsewhere', '[1]', null, null, null, 'l', null, '{f}')]::graphile_worker.job_spec[])",
        "select graphile_worker.add_jobs(array[('elsewhere', '[1]', null, null, null, 'l', null, '{f}')]::graphile_worker.job_spec[])",
        "select graphile_worker.get_job('node-s-worker', '{elsewhere}', forbidden_flags := '{h}')",
        "select graphile_worker.fail_job('node-s-worker', 1, 'e')",
        "select graphile_worker.reschedule_jobs('{1}', run_at := 'now')",
        "select graphile_worker.get_job('node-s-worker', '{elsewhere}')",
        "select graphile_worker.force_unlock_workers('{node-s-worker}')",
        "select graphile_worker.complete_job('node-s-worker', 1)",
        "select graphile_worker.permanently_fail_jobs(array(select id from graphile_worker.jobs where key operator(pg_catalog.=) 'l'))",
        "select graphile_worker.complete_jobs(array(select id from graphile_worker.jobs where key operator(pg_catalog.=) 'l'))",
        "select graphile_worker.remove_job('l')",
        "insert into graphile_worker.jobs (task_identifier, queue_name, locked_by) values ('plain', 's', 'kongtask:dead')",
        "select payload from graphile_worker.jobs",
    ] {
        assert_eq!(outcome(&mut node, statement), "ok", "{statement}");
    }
    run_as(
        &cluster,
        "alice",
        "select kongtask.register_task('plain', 'app.do(pg_catalog.json)'); select kongtask.unregister_task('none')",
    );
    // The scheduler has the database's path, and finds what a dead worker held.
    cluster.sql(&format!(
        "{OWN_PATH}; update graphile_worker.jobs set locked_by = 'kongtask:dead', locked_at = now() where task_identifier = 'plain';
         select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'kongtask scheduler'"
    ));
    let mut db = cluster.connect();
    db.batch_execute(OWN_PATH).expect("set");
    let came = wait_until(SOON, || {
        text(
            &mut db,
            "select string_agg(task_identifier || ' ' || attempts, ', ' order by id) from graphile_worker.jobs",
        ) == "fail 1, fail 1"
    });
    assert!(came, "{:?}\n{}", rows(&mut db, "select * from graphile_worker.jobs"), cluster.log());
    assert_eq!(
        rows(&mut db, "select distinct substring(last_error from '^[^(]*') from graphile_worker.jobs"),
        ["as it should "]
    );
    let log = cluster.log();
    let hijacked: Vec<_> = log.lines().filter(|line| line.contains("hijacked as")).collect();
    // But for the one that showed that it would.
    assert_eq!(hijacked.len(), 1, "{hijacked:?}");
}

/// A handler that says what it finds: its role and its settings.
const FINDS: &str = "
    create table app.found (who name, path text);
    create function app.find() returns void language sql as
      $$ insert into app.found values (current_user, current_setting('search_path')) $$;
    select kongtask.register_task('find', 'app.find()');";

/// Runs that handler, in a worker that has done something before; what it found.
fn found(cluster: &Cluster) -> Vec<String> {
    cluster.sql("select graphile_worker.add_job('find')");
    cluster.wait_for("select count(*) from app.found", "1");
    rows(&mut cluster.connect(), "select * from app.found")
}

#[test]
fn what_a_deferred_trigger_sets_is_gone_with_its_transaction() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql("grant bob to alice");
    run_as(
        &cluster,
        "alice",
        "create table app.checked ();
         create function app.check() returns trigger language plpgsql as $$
         begin
           set role bob; set search_path = hostile;
           return null;
         end $$;
         create constraint trigger late after insert on app.checked deferrable initially deferred
           for each row execute function app.check();
         create function app.do() returns void language sql as 'insert into app.checked default values';
         select kongtask.register_task('do', 'app.do()')",
    );
    run_as(&cluster, "alice", FINDS);
    cluster.sql("grant insert on app.found to bob; select graphile_worker.add_job('do')");
    cluster.wait_for("select count(*) from app.checked", "1");
    assert_eq!(found(&cluster), ["alice|\"$user\", public"]);
}

#[test]
fn a_function_of_forbidden_flags_leaves_nothing_behind() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql("grant bob to alice");
    run_as(
        &cluster,
        "mallory",
        "create table hostile.asked (who name, session name); grant insert on hostile.asked to public;
         create table hostile.locked (); grant all on hostile.locked to public;
         create function hostile.flags() returns text[] language plpgsql as $$
         begin
           insert into hostile.asked values (current_user, session_user);
           lock table hostile.locked;
           set search_path = hostile;
           begin set role postgres; exception when insufficient_privilege then set role bob; end;
           return array[null, 'forbidden'];
         end $$;
         create function hostile.raises() returns text[] language plpgsql as
           $$ begin raise exception using errcode = '57P01', message = 'terminating'; end $$;
         create function hostile.nothing() returns text[] language sql as 'select null::text[]';",
    );
    run_as(&cluster, "alice", FINDS);
    cluster.sql("grant insert on app.found to bob");
    // It is asked at least once before the first job.
    cluster.reload(&["kongtask.forbidden_flags_function = 'hostile.flags()'"]);
    cluster.wait_for("select count(*) > 0 from hostile.asked", "t");
    cluster.sql("select graphile_worker.add_job('find', flags := '{forbidden}')");
    assert_eq!(found(&cluster), ["alice|\"$user\", public"]);
    assert_eq!(rows(&mut cluster.connect(), "select distinct who, session from hostile.asked"), ["alice|alice"]);
    cluster.sql("set lock_timeout = '10s'; lock table hostile.locked");
    // Once it has raised no job runs, and no worker ends. NULL forbids nothing.
    cluster.reload(&["kongtask.forbidden_flags_function = 'hostile.raises()'"]);
    let warning =
        "kongtask.forbidden_flags_function failed, and no job runs until it succeeds: terminating (SQLSTATE 57P01)";
    let warned = wait_until(SOON, || {
        // It is asked again when there is something to run.
        cluster.sql("select graphile_worker.add_job('find')");
        cluster.log().contains(warning)
    });
    assert!(warned, "{}", cluster.log());
    let before = cluster.text("select count(*) from app.found");
    cluster.sql("select graphile_worker.add_job('find'); select pg_sleep(2)");
    assert_eq!(cluster.text("select count(*) from app.found"), before);
    cluster.reload(&["kongtask.forbidden_flags_function = 'hostile.nothing()'"]);
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL"]), Vec::<String>::new());
}
