//! A handler has the rights of the role that registered its task, and no way to others, whatever it does, raises or finds.

use crate::{cluster, outcome, run_as};
use kongtask_tests::{Cluster, rows};

/// What a handler tries, and what comes of it: `00000` or a SQLSTATE. Afterwards it is still who it was, and may not read
/// bob's secret.
#[rustfmt::skip]
const TRIALS: &[(&str, &str)] = &[
    ("reset role",                                                                                    "00000"),
    ("set role none",                                                                                 "00000"),
    ("set role postgres",                                                                             "42501"),
    ("set local role bob",                                                                            "42501"),
    ("select set_config('role', 'postgres', false)",                                                  "42501"),
    ("set session authorization postgres",                                                            "42501"),
    ("set session authorization default",                                                             "00000"),
    ("reset session authorization",                                                                   "00000"),
    ("select set_config('session_authorization', 'bob', false)",                                      "42501"),
    ("alter role alice superuser",                                                                    "42501"),
    ("grant bob to alice",                                                                            "42501"),
    ("grant pg_read_all_data to alice",                                                               "42501"),
    ("grant select on app.secret to alice",                                                           "42501"),
    ("alter table app.secret owner to alice",                                                         "42501"),
    ("select app.bobs_function()",                                                                    "42501"),
    ("select payload from graphile_worker.jobs",                                                      "42501"),
    ("select * from app.view_of_jobs",                                                                "42501"),
    ("select app.definer_of_jobs()",                                                                  "42501"),
    ("select graphile_worker.add_job('bobs')",                                                        "42501"),
    ("select graphile_worker.get_job('a-handler-s-worker')",                                          "42501"),
    ("delete from graphile_worker.jobs",                                                              "42501"),
    ("insert into kongtask.tasks (identifier, handler, role) values ('t', 'app.try(json)', 10)",      "42501"),
    ("update kongtask.tasks set role = 10",                                                           "42501"),
    ("select kongtask.register_task('bobs', 'app.try(json)')",                                        "42501"),
    ("select kongtask.unregister_task('bobs')",                                                       "42501"),
    ("select * from kongtask.workers",                                                                "42501"),
    ("alter function graphile_worker.add_job owner to alice",                                         "42501"),
    ("create function graphile_worker.theirs() returns int language sql as 'select 1'",               "42501"),
    ("create function app.c() returns int language c as '$libdir/kongtask', 'kongtask_add_job'",      "42501"),
    ("create function app.r() returns int language sql set role = 'bob' as 'select 1'",               "42501"),
    ("create event trigger theirs on ddl_command_end execute function app.theirs()",                  "42501"),
    ("copy app.tried to program 'true'",                                                              "42501"),
    ("set session_replication_role = replica",                                                        "42501"),
    ("set kongtask.workers = 0",                                                                      "55P02"),
    ("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kongtask launcher'", "42501"),
    // What these leave behind is the worker's, and must not be taken for ours or for the handler's argument.
    ("create temporary table if not exists jobs (id int, payload json)",                              "00000"),
    ("create temporary table if not exists job_queues (id int)",                                      "00000"),
    ("create temporary table if not exists tasks (identifier text, role oid)",                        "00000"),
    ("drop type if exists pg_temp.json; create type pg_temp.json as (x int)",                         "00000"),
    ("create or replace function pg_temp.now() returns timestamptz language sql as 'select 1 / 0; select null::timestamptz'", "00000"),
    ("create or replace function pg_temp.try(pg_catalog.json) returns void language sql as 'select 1 / 0'", "00000"),
    ("create or replace function pg_temp.equal(bigint, bigint) returns boolean language sql as 'select 1 / 0 > 0';
      create operator pg_temp.= (leftarg = bigint, rightarg = bigint, function = pg_temp.equal)",     "00000 or 42723"),
];

/// Who tries them: a handler that is told what, and writes down what came of it.
const HANDLER: &str = "
    create table app.tried (how text, statement text, state text, who name, session name, secret text);
    create function app.try(payload json) returns void language plpgsql as $$
    declare v_state text = '00000'; v_secret text = 'read';
    begin
      begin
        execute payload ->> 'statement';
      exception when others then v_state = sqlstate;
      end;
      begin
        perform from app.secret;
      exception when others then v_secret = sqlstate;
      end;
      insert into app.tried
        values (payload ->> 'how', payload ->> 'statement', v_state, current_user, session_user, v_secret);
    end $$;
    create function app.try_all(payloads json[]) returns void language plpgsql as $$
    begin
      for i in 1..cardinality(payloads) loop perform app.try(payloads[i]); end loop;
    end $$;
    create view app.view_of_jobs as select payload from graphile_worker.jobs;
    create function app.definer_of_jobs() returns json language sql security definer
      as 'select payload from graphile_worker.jobs';
    select kongtask.register_task('alone', 'app.try(json)');
    select kongtask.register_task('claimed', 'app.try(json)', in_place := false);
    select kongtask.register_task('batch', 'app.try(json)', max_batch := 20);
    select kongtask.register_task('set', 'app.try_all(json[])');";

const WAYS: [&str; 4] = ["alone", "claimed", "batch", "set"];

#[test]
fn a_handler_cannot_reach_beyond_its_role() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    run_as(
        &cluster,
        "bob",
        "create table app.secret (); create function app.bobs_function() returns void language sql as '';
         revoke execute on function app.bobs_function from public;
         select kongtask.register_task('bobs', 'app.bobs_function()')",
    );
    run_as(&cluster, "alice", HANDLER);
    cluster.sql("insert into graphile_worker.jobs (task_identifier, run_at) values ('bobs', 'infinity')");
    let mut db = cluster.connect();
    let add = db
        .prepare("select graphile_worker.add_job($1::text, json_build_object('how', $1::text, 'statement', $2::text))");
    let add = add.expect("a statement");
    for how in WAYS {
        for (statement, _) in TRIALS {
            db.execute(&add, &[&how, statement]).expect("add_job");
        }
    }
    cluster.wait_for("select count(*) from app.tried", &(WAYS.len() * TRIALS.len()).to_string());
    assert_eq!(
        rows(&mut db, "select distinct who, session, secret from app.tried"),
        ["alice|alice|42501"],
        "{:?}",
        rows(&mut db, "select * from app.tried where (who, session, secret) <> ('alice', 'alice', '42501')")
    );
    for (statement, expected) in TRIALS {
        let query = "select distinct state from app.tried where statement = $1";
        for row in db.query(query, &[statement]).expect("states") {
            let state: String = row.get(0);
            assert!(expected.contains(&state), "{statement}: {state}, not {expected}");
        }
    }
    assert_eq!(rows(&mut db, "select task_identifier, attempts from graphile_worker.jobs"), ["bobs|0"]);
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "WARNING"]), Vec::<String>::new());
}

/// SQLSTATEs that mean something to whoever runs a handler: its process is to end, its lock is gone, its job is to be run
/// once more; and those that add_job has.
const STATES: [&str; 17] = [
    "57P01", "57P02", "57P03", "57014", "XX000", "XX001", "55P03", "40001", "40P01", "08006", "25P02", "42501",
    "GWBID", "GWBKM", "P0001", "02000", "58000",
];

#[test]
fn whatever_a_handler_raises_is_a_failed_attempt_and_no_more() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    run_as(
        &cluster,
        "alice",
        "create function app.raise(payload json) returns void language plpgsql as $$
         begin
           raise exception using errcode = payload ->> 'state', message = payload ->> 'message',
             detail = E'terminating connection\nFATAL:  forged', hint = repeat('x', 100000);
         end $$;
         create function app.raise_one(payloads json[]) returns void language sql as 'select app.raise(payloads[1])';
         select kongtask.register_task('alone', 'app.raise(json)');
         select kongtask.register_task('claimed', 'app.raise(json)', in_place := false);
         select kongtask.register_task('batch', 'app.raise(json)', max_batch := 20);
         select kongtask.register_task('set', 'app.raise_one(json[])');",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "2");
    let mut db = cluster.connect();
    let workers = rows(&mut db, "select pid from kongtask.workers order by 1");
    let add = db
        .prepare(
            "select graphile_worker.add_job($1::text, json_build_object('state', $2::text, 'message', $3::text), max_attempts := 1)",
        )
        .expect("a statement");
    let message = "terminating background worker \"kongtask worker\" due to administrator command";
    for how in WAYS {
        db.batch_execute("begin").expect("begin");
        for state in STATES {
            // Whoever shares its call is not to blame.
            for state in [state, "P0001"] {
                db.execute(&add, &[&how, &state, &message]).expect("add_job");
            }
        }
        db.batch_execute("commit").expect("commit");
    }
    let failed = (WAYS.len() * STATES.len() * 2).to_string();
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 1 and locked_at is null", &failed);
    let told = format!(
        "select count(*) from graphile_worker.jobs
         where starts_with(last_error, '{message} (SQLSTATE ' || (payload ->> 'state') || ')') and length(last_error) < 70000"
    );
    assert_eq!(rows(&mut db, &told), [failed]);
    assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers, "nobody was taken for dead");
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC"]), Vec::<String>::new());
}

/// What the only job of a task failed with, once it has.
fn failure(cluster: &Cluster, task: &str) -> String {
    let failed = format!("select count(*) from graphile_worker.jobs where task_identifier = '{task}' and attempts = 1");
    cluster.wait_for(&failed, "1");
    cluster.text(&format!(
        "select substring(last_error from 'SQLSTATE (.....)') from graphile_worker.jobs where task_identifier = '{task}'"
    ))
}

#[test]
fn rights_that_a_role_loses_its_handlers_lose() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    run_as(&cluster, "alice", "create table app.done (task text)");
    cluster.sql("create schema other");
    for (task, loss) in [
        ("function", "revoke execute on function other.\"function\" from public"),
        ("schema", "revoke usage on schema other from alice"),
        ("table", "revoke insert on app.done from alice"),
    ] {
        cluster.sql(&format!(
            "grant usage on schema other to alice;
             create function other.\"{task}\"() returns void language sql as $$ insert into app.done values ('{task}') $$"
        ));
        run_as(
            &cluster,
            "alice",
            &format!("select kongtask.register_task('{task}', 'other.\"{task}\"()', in_place := false)"),
        );
        let add = format!("select graphile_worker.add_job('{task}')");
        cluster.sql(&add);
        let done = format!("select count(*) from app.done where task = '{task}'");
        cluster.wait_for(&done, "1");
        // The same worker, that has run it.
        cluster.sql(loss);
        cluster.sql(&add);
        assert_eq!(failure(&cluster, task), "42501");
        assert_eq!(cluster.text(&done), "1", "{loss}");
    }
}

#[test]
fn a_handler_of_another_owner_lends_its_rights_and_takes_none() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    run_as(
        &cluster,
        "bob",
        "create table app.was (task text, who name, session name, role_was text);
         grant insert on app.was to alice;
         create function app.definer() returns void language plpgsql security definer as $$
         declare v_state text = '00000';
         begin
           begin execute 'set role alice'; exception when others then v_state = sqlstate; end;
           insert into app.was values ('definer', current_user, session_user, v_state);
         end $$;
         create function app.private() returns void language sql security definer as '';
         revoke execute on function app.definer, app.private from public;
         grant execute on function app.definer to alice;",
    );
    let mut alice = cluster.connect_as("alice", "postgres");
    assert_eq!(outcome(&mut alice, "select kongtask.register_task('private', 'app.private()')"), "42501");
    run_as(
        &cluster,
        "alice",
        "create function app.invoker() returns void language sql set search_path = app set work_mem = '65kB' as
           $$ select definer(); insert into was values ('invoker', current_user, session_user, current_setting('role')) $$;
         create function app.after() returns void language sql as
           $$ insert into app.was values ('after', current_user, session_user, current_setting('role')) $$;
         select kongtask.register_task('definer', 'app.definer()'), kongtask.register_task('invoker', 'app.invoker()'),
           kongtask.register_task('after', 'app.after()')",
    );
    for task in ["definer", "invoker", "after"] {
        cluster.sql(&format!("select graphile_worker.add_job('{task}')"));
        cluster.wait_for(&format!("select count(*) > 0 from app.was where task = '{task}'"), "t");
    }
    assert_eq!(
        rows(&mut cluster.connect(), "select distinct * from app.was order by 1"),
        // A function of SECURITY DEFINER may not change its role.
        ["after|alice|alice|none", "definer|bob|alice|42501", "invoker|alice|alice|none"]
    );
    assert_eq!(cluster.log_lines(&["FATAL", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_task_is_changed_by_its_role_only_whatever_is_done_to_its_function() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    run_as(
        &cluster,
        "alice",
        "create table app.was (who name); grant insert on app.was to bob;
         create function app.was_run() returns void language sql as 'insert into app.was values (current_user)';
         select kongtask.register_task('task', 'app.was_run()')",
    );
    let mut bob = cluster.connect_as("bob", "postgres");
    for statement in [
        "select kongtask.register_task('task', 'app.was_run()')",
        "select kongtask.unregister_task('task')",
        "create or replace function app.was_run() returns void language sql as ''",
        "alter function app.was_run() owner to bob",
        "drop function app.was_run()",
    ] {
        assert_eq!(outcome(&mut bob, statement), "42501", "{statement}");
    }
    // His own task may call her function. That makes it no task of hers.
    run_as(&cluster, "bob", "select kongtask.register_task('his', 'app.was_run()')");
    cluster.sql("select graphile_worker.add_job('his')");
    cluster.wait_for("select string_agg(who, ' ') from app.was", "bob");
    // A member of her role is not her role: what he registers runs as himself, and hers stays hers.
    cluster.sql("grant alice to bob");
    assert_eq!(outcome(&mut bob, "select kongtask.register_task('task', 'app.was_run()')"), "42501");
    assert_eq!(
        rows(&mut cluster.connect(), "select identifier, role from kongtask.tasks order by 1"),
        ["his|bob", "task|alice"]
    );
}
