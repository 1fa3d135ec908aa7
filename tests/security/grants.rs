//! What is granted is what is meant: none of the grants that docs/how-to/roles.md names is a way to more.

use crate::{cluster, outcome, run_as};
use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A table of node's in which its functions write down who they run as.
const NODE_SEES: &str = "create table hostile.ran (what text, who name); grant insert on hostile.ran to public;";

#[test]
fn an_external_worker_cannot_have_its_functions_run_as_another_role() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql("grant create on schema hostile to node");
    run_as(&cluster, "node", NODE_SEES);
    run_as(
        &cluster,
        "alice",
        "create function app.do() returns void language sql as ''; select kongtask.register_task('do', 'app.do()')",
    );
    let mut node = cluster.connect_as("node", "postgres");
    // A foreign key has the server cast to the type of jobs.id, as the owner of jobs.
    outcome(
        &mut node,
        "create type hostile.number as (n bigint);
         create function hostile.cast(hostile.number) returns bigint language plpgsql as
           $$ begin insert into hostile.ran values ('cast', current_user); return ($1).n; end $$;
         create cast (hostile.number as bigint) with function hostile.cast as implicit;
         create table hostile.casts (job hostile.number references graphile_worker.jobs);
         insert into graphile_worker.jobs (task_identifier) values ('elsewhere');
         insert into hostile.casts select row(id)::hostile.number from graphile_worker.jobs;",
    );
    // One that cascades has a deferred trigger fire in whoever completes the job.
    outcome(
        &mut node,
        "create table hostile.cascades (job bigint references graphile_worker.jobs on delete cascade);
         create function hostile.note() returns trigger language plpgsql as
           $$ begin insert into hostile.ran values ('trigger', current_user); return null; end $$;
         create constraint trigger late after delete on hostile.cascades deferrable initially deferred
           for each row execute function hostile.note();
         insert into hostile.cascades select id from graphile_worker.jobs;",
    );
    // And if it had a trigger on jobs, everybody who adds one would run it.
    outcome(
        &mut node,
        "create trigger theirs after insert on graphile_worker.jobs for each row execute function hostile.note()",
    );
    outcome(
        &mut node,
        "begin; insert into graphile_worker.jobs (task_identifier) values ('do');
         insert into hostile.cascades select id from graphile_worker.jobs where task_identifier = 'do'; commit",
    );
    let _ = node.batch_execute("rollback; insert into graphile_worker.jobs (task_identifier) values ('do')");
    cluster.wait_for("select count(*) from graphile_worker.jobs where task_identifier = 'do'", "0");
    assert_eq!(
        rows(&mut cluster.connect(), "select distinct what, who from hostile.ran where who <> 'node' order by 1"),
        Vec::<String>::new()
    );
}

#[test]
fn trigger_functions_serve_our_tables_only() {
    let cluster = cluster(&["kongtask.workers = 0"]);
    // What people say where they mean that a role may call what there is to call.
    cluster.sql("grant execute on all functions in schema graphile_worker, kongtask to mallory");
    cluster.sql("grant usage on schema graphile_worker, kongtask to mallory");
    let functions = rows(
        &mut cluster.connect(),
        "select oid::regprocedure from pg_proc where prorettype = 'trigger'::regtype
           and pronamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace) order by 1",
    );
    assert!(functions.len() > 5, "{functions:?}");
    cluster.sql("insert into graphile_worker.jobs (task_identifier, queue_name) values ('a', 'victim')");
    let mut found = Vec::new();
    for function in functions {
        // Numbers where our tables have texts, and the name of somebody's queue where ours have it.
        for columns in [
            vec!["bigint default 1234567890123"; 20].into_iter().map(str::to_string).collect::<Vec<_>>(),
            vec!["text default 'victim'"; 20].into_iter().map(str::to_string).collect(),
            Vec::new(),
        ] {
            let columns: Vec<_> = columns.iter().enumerate().map(|(n, kind)| format!("c{n} {kind}")).collect();
            for fired in [
                "before insert on theirs for each row",
                "after insert on theirs for each row",
                "after delete on theirs for each row",
                "after insert on theirs for each statement",
            ] {
                // The server may have to come back from the former.
                let mut mallory = None;
                wait_until(SOON, || {
                    mallory = cluster.try_connect_as("mallory", "postgres").ok();
                    mallory.is_some()
                });
                let outcome = outcome(
                    &mut mallory.expect("the server is there"),
                    &format!(
                        "create temporary table theirs ({});
                         create trigger theirs {fired} execute function {function};
                         insert into theirs default values; delete from theirs",
                        columns.join(", ")
                    ),
                );
                if outcome != "39P01" && !(function.starts_with("kongtask.") && outcome == "ok") {
                    let first = columns.first().map_or("", String::as_str);
                    found.push(format!("{function} {fired} ({first}, …): {outcome}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(cluster.text("select string_agg(queue_name, ' ') from graphile_worker.jobs"), "victim");
}

#[test]
fn who_may_add_jobs_cannot_stop_those_of_others() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    run_as(
        &cluster,
        "alice",
        "create function app.do() returns void language sql as ''; select kongtask.register_task('do', 'app.do()')",
    );
    let mut web = cluster.connect_as("web", "postgres");
    // As a session that restores a dump has it, which must be left alone until it is done. This one stays.
    web.batch_execute("set check_function_bodies = off").expect("settings");
    let mut copy = web.copy_out("copy (select (graphile_worker.add_job('do')).id) to stdout").expect("copy");
    std::io::Read::read_to_end(&mut copy, &mut Vec::new()).expect("a row");
    drop(copy);
    // And times and numbers at the ends of what there is.
    for arguments in [
        "run_at := 'infinity'",
        "run_at := '-infinity'",
        "run_at := '4714-11-24 00:00:00+00 BC'",
        "run_at := '294276-12-31 23:59:59+00'",
        "priority := 2147483647",
        "priority := -2147483648",
        "max_attempts := 2147483647",
        "queue_name := repeat('q', 128), job_key := repeat('k', 512)",
        "payload := '[\"\\u0000\"]', max_attempts := 1",
        "flags := '{\"\"}'",
    ] {
        let statement = format!("select graphile_worker.add_job('do', {arguments})");
        assert_eq!(outcome(&mut web, &statement), "ok", "{statement}");
    }
    cluster.sql("select graphile_worker.add_job('do')");
    cluster.wait_for(
        "select string_agg(run_at::text, ',' order by id) from graphile_worker.jobs",
        "infinity,294276-12-31 23:59:59+00",
    );
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC"]), Vec::<String>::new());
    drop(web);
}

/// As the extension tells tasks apart in few bytes (src/registry.rs).
fn tag(identifier: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    identifier.hash(&mut hasher);
    hasher.finish() as u32
}

#[test]
fn who_may_register_tasks_cannot_stop_those_of_others() {
    // Found in a few minutes.
    const SAME: [&str; 2] = ["alice_task", "mallory_3212491355"];
    assert_eq!(tag(SAME[0]), tag(SAME[1]), "look for two others");
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '200ms'"]);
    for (role, task) in [("alice", SAME[0]), ("bob", SAME[1])] {
        run_as(
            &cluster,
            role,
            &format!(
                "create table app.{role} (who name);
                 create function app.{role}() returns void language sql as 'insert into app.{role} values (current_user)';
                 select kongtask.register_task('{task}', 'app.{role}()')"
            ),
        );
    }
    cluster.sql(&format!("select graphile_worker.add_job('{}'), graphile_worker.add_job('{}')", SAME[0], SAME[1]));
    for role in ["alice", "bob"] {
        cluster.wait_for(&format!("select string_agg(who, ' ') from app.{role}"), role);
    }
}

/// A cluster whose extension belongs to a role that is no superuser, any more, and who has a function that says who runs it.
fn owned(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with(settings);
    cluster.sql("create role owner superuser login");
    cluster.connect_as("owner", "postgres").batch_execute("create extension kongtask").expect("as a superuser");
    cluster.sql(
        "alter role owner nosuperuser; create schema app authorization owner; grant usage on schema app to public",
    );
    run_as(
        &cluster,
        "owner",
        "create table app.ran (who name); grant insert on app.ran to public;
         create function app.do() returns void language sql as 'insert into app.ran values (current_user)';
         create function app.note() returns trigger language plpgsql as
           $$ begin insert into app.ran values (current_user); return null; end $$;",
    );
    cluster
}

#[test]
fn the_owner_of_the_tables_cannot_have_a_task_run_as_another_role() {
    let cluster = owned(&["kongtask.workers = 2"]);
    run_as(
        &cluster,
        "owner",
        "select kongtask.register_task('own', 'app.do()');
         insert into kongtask.tasks (identifier, handler, role) values ('theirs', 'app.do()', 'postgres');
         select graphile_worker.add_job('theirs'); select graphile_worker.add_job('own')",
    );
    cluster.wait_for("select count(*) > 0 from app.ran", "t");
    let theirs = || cluster.text("select count(*) from app.ran where who <> 'owner'");
    assert!(!wait_until(std::time::Duration::from_secs(3), || theirs() != "0"), "it ran as postgres");
}

#[test]
fn a_trigger_of_the_owner_of_the_tables_runs_as_the_owner() {
    let cluster = owned(&["kongtask.workers = 1"]);
    run_as(
        &cluster,
        "owner",
        "select kongtask.register_task('own', 'app.do()');
         create trigger at_once after update on graphile_worker.jobs for each row execute function app.note();
         create constraint trigger late after update on graphile_worker.jobs deferrable initially deferred
           for each row execute function app.note();
         insert into graphile_worker.jobs (task_identifier, run_at) values ('elsewhere', 'infinity');
         update graphile_worker.jobs set locked_by = 'kongtask:dead', locked_at = now()",
    );
    // The scheduler, which is the server itself, releases what a dead worker held.
    cluster.sql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'kongtask scheduler'");
    let mut db = cluster.connect();
    let released = wait_until(SOON, || text(&mut db, "select count(*) from graphile_worker.jobs where locked_by is null") == "1")
        // Or a trigger that may not run keeps it from that, and it says so.
        || cluster.log().contains("cannot fire deferred trigger within security-restricted operation");
    assert!(released, "{}", cluster.log());
    assert_eq!(rows(&mut db, "select distinct who from app.ran"), ["owner"]);
}
