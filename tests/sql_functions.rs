//! graphile-worker's functions, called as its workers and its users call them. No worker of ours takes part.

use kongtask_tests::fixtures::quiet;
use kongtask_tests::{Cluster, error, rows, text};
use postgres::Client;

const WORKER: &str = "external-worker-1";

#[test]
fn add_job_checks_its_arguments() {
    let (_cluster, mut db) = quiet();
    for (call, code, message) in [
        ("repeat('a', 129)", "GWBID", "Task identifier is too long (max length: 128)."),
        ("'a', queue_name := repeat('q', 129)", "GWBQN", "Job queue name is too long (max length: 128)."),
        ("'a', job_key := repeat('k', 513)", "GWBJK", "Job key is too long (max length: 512)."),
        ("'a', max_attempts := 0", "GWBMA", "Job maximum attempts must be at least 1."),
        (
            "'a', job_key := 'k', job_key_mode := 'other'",
            "GWBKM",
            "Invalid job_key_mode value, expected 'replace', 'preserve_run_at' or 'unsafe_dedupe'.",
        ),
        ("null", "23502", "null value in column \"task_identifier\" of relation \"jobs\" violates not-null constraint"),
        ("'a', flags := array[null]", "22023", "field name must not be null"),
        ("'a', job_key := ''", "23514", "new row for relation \"jobs\" violates check constraint \"jobs_key_check\""),
    ] {
        let got = error(&mut db, &format!("select graphile_worker.add_job({call})"));
        assert_eq!(got, (code.to_string(), message.to_string()), "{call}");
    }
    // At the limits, in characters rather than bytes; and without a key the mode does not matter.
    db.batch_execute(
        "select graphile_worker.add_job(repeat('ä', 128), queue_name := repeat('ä', 128), job_key := repeat('ä', 512));
         select graphile_worker.add_job('a', job_key_mode := 'other');
         select graphile_worker.add_job('a', null, null, null, null, null, null, null, null);",
    )
    .expect("at the limits");
}

#[test]
fn an_error_shows_the_statements_of_the_user_and_none_of_ours() {
    let (_cluster, mut db) = quiet();
    db.batch_execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
         create function add() returns void language plpgsql as $$ begin
           perform graphile_worker.add_job('a', job_key := '');
         end $$;
         create function add_for_each() returns trigger language plpgsql as $$ begin perform add(); return new; end $$;
         create table orders (id int);
         create trigger add after insert on orders for each row execute function add_for_each();
         select graphile_worker.add_job('a', job_key := 'k');",
    )
    .expect("functions");
    let mut says = |statement: &str| {
        let failure = db.batch_execute(statement).expect_err(statement);
        let failure = failure.as_db_error().expect("an error of the server's");
        assert!(failure.position().is_none(), "{statement}: {:?}", failure.position());
        failure.where_().unwrap_or_default().replace("public.", "")
    };
    assert_eq!(says("select graphile_worker.add_job('a', job_key := '')"), "");
    assert_eq!(says("select graphile_worker.add_job(null)"), "");
    assert_eq!(
        says(
            "select graphile_worker.add_jobs(array[(null, null, null, null, null, null, null, null)]::graphile_worker.job_spec[])"
        ),
        ""
    );
    assert_eq!(
        says("insert into orders values (1)"),
        "SQL statement \"SELECT graphile_worker.add_job('a', job_key := '')\"\n\
         PL/pgSQL function add() line 2 at PERFORM\n\
         SQL statement \"SELECT add()\"\n\
         PL/pgSQL function add_for_each() line 1 at PERFORM"
    );
    // What a trigger of the owner's raises; and what is said where the table is not as it should be.
    let trigger = "create trigger refuse before update on graphile_worker.jobs for each row execute function refuse();";
    assert_eq!(
        says(&format!("begin; {trigger} select graphile_worker.reschedule_jobs('{{1}}', priority := 1)")),
        "PL/pgSQL function refuse() line 1 at RAISE"
    );
    let renamed = "rollback; begin; alter table graphile_worker.jobs rename column key to name;";
    assert_eq!(says(&format!("{renamed} select graphile_worker.remove_job('k')")), "");
}

#[test]
fn an_error_keeps_its_constraint_and_context() {
    let (_cluster, mut db) = quiet();
    db.batch_execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
           raise exception 'not today' using errcode = 'ABCDE', constraint = 'my_rule', detail = 'd', hint = 'h';
         end $$;
         create trigger refuse before insert on graphile_worker.jobs for each row execute function refuse();",
    )
    .expect("a trigger of a user's");
    let failure = db.batch_execute("select graphile_worker.add_job('a')").expect_err("refused");
    let failure = failure.as_db_error().expect("an error of the server's");
    assert_eq!(failure.code().code(), "ABCDE");
    assert_eq!(failure.constraint(), Some("my_rule"));
    assert_eq!((failure.detail(), failure.hint()), (Some("d"), Some("h")));
    assert!(failure.where_().is_some_and(|context| context.contains("PL/pgSQL function public.refuse()")
        || context.contains("PL/pgSQL function refuse()")));
}

#[test]
fn add_job_returns_the_row_with_its_defaults() {
    let (_cluster, mut db) = quiet();
    assert_eq!(
        rows(
            &mut db,
            "select id, queue_name, task_identifier, payload, priority, run_at = now(), attempts, max_attempts, last_error,
               created_at = now(), updated_at = now(), key, locked_at, locked_by, revision, flags
             from graphile_worker.add_job('a')"
        ),
        ["1||a|{}|0|t|0|25||t|t||||0|"]
    );
    assert_eq!(
        rows(
            &mut db,
            "select id, queue_name, payload, priority, run_at, max_attempts, key, flags from graphile_worker.add_job(
               'a', '{\"b\" : 1, \"b\":2}', 'q', '2099-01-01 00:00Z', 3, 'k', -5, array['y', 'x'])"
        ),
        ["2|q|{\"b\" : 1, \"b\":2}|-5|2099-01-01 00:00:00+00|3|k|{\"x\": true, \"y\": true}"]
    );
    // A queue has no row until one of its jobs runs.
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues"), "0");
    // The row is of the table's type, whole, also as a value.
    assert_eq!(
        text(
            &mut db,
            "select pg_typeof(j) || (j).payload::text from graphile_worker.add_job('a', '{\"big\": 1}') as j"
        ),
        "graphile_worker.jobs{\"big\": 1}"
    );
}

#[test]
fn external_workers_get_complete_and_fail_jobs() {
    let (_cluster, mut db) = quiet();
    let (code, message) = error(&mut db, "select graphile_worker.get_job('short')");
    assert_eq!((code.as_str(), message.as_str()), ("P0001", "invalid worker id"));
    assert_eq!(text(&mut db, &format!("select graphile_worker.get_job('{WORKER}') is null")), "t");
    db.batch_execute(
        "select graphile_worker.add_job('low', priority := 5);
         select graphile_worker.add_job('first', queue_name := 'q');
         select graphile_worker.add_job('second', queue_name := 'q');
         select graphile_worker.add_job('flagged', flags := array['f']);
         select graphile_worker.add_job('later', run_at := now() + interval '1 hour');",
    )
    .expect("add_job");
    let get = |db: &mut Client, arguments: &str| {
        text(db, &format!("select task_identifier from graphile_worker.get_job('{WORKER}', {arguments})"))
    };
    assert_eq!(get(&mut db, "forbidden_flags := array['f', 'g']"), "first");
    assert_eq!(
        rows(&mut db, "select attempts, locked_by, locked_at is not null from graphile_worker.jobs where id = 2"),
        [format!("1|{WORKER}|t")]
    );
    assert_eq!(
        rows(
            &mut db,
            "select queue_name, job_count, locked_by, locked_at is not null, job_id from graphile_worker.job_queues"
        ),
        [format!("q|1|{WORKER}|t|2")]
    );
    // Its queue is locked: the second of the queue waits.
    assert_eq!(get(&mut db, "forbidden_flags := array['f']"), "low");
    assert_eq!(get(&mut db, "task_identifiers := array['second', 'later']"), "");
    assert_eq!(get(&mut db, "null"), "flagged");
    // A lock counts as dead after job_expiry, and so does the queue's.
    assert_eq!(get(&mut db, "job_expiry := interval '-1 second'"), "first");
    assert_eq!(get(&mut db, "task_identifiers := array['later'], now := now() + interval '2 hours'"), "later");

    let failed = "select attempts, last_error, locked_at, run_at - now() between '6.9 s' and '7.4 s'
                  from graphile_worker.fail_job";
    assert_eq!(rows(&mut db, &format!("{failed}('{WORKER}', 2, 'oops')")), ["2|oops||t"]);
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues where queue_name = 'q'"), "0");
    // Not the holder: nothing.
    assert_eq!(text(&mut db, "select graphile_worker.fail_job('somebody-else', 1, 'oops') is null"), "t");
    assert_eq!(get(&mut db, "null"), "second");
    assert_eq!(text(&mut db, &format!("select id from graphile_worker.complete_job('{WORKER}', 3)")), "3");
    assert_eq!(
        rows(&mut db, "select locked_by from graphile_worker.job_queues where queue_name = 'q'"),
        Vec::<String>::new()
    );
    assert_eq!(text(&mut db, "select graphile_worker.complete_job('anybody-at-all', 99) is null"), "t");
}

#[test]
fn administrators_change_many_and_wait_for_nobody() {
    let (cluster, mut db) = quiet();
    db.batch_execute(
        "select graphile_worker.add_job('a', '{}', 'q') from generate_series(1, 6);
         update graphile_worker.jobs set locked_at = now(), locked_by = 'w' where id = 1;
         update graphile_worker.jobs set locked_at = now() - interval '5 hours', locked_by = 'w' where id = 2;",
    )
    .expect("add_job");
    let mut other = cluster.connect();
    other.batch_execute("begin; select from graphile_worker.jobs where id = 3 for update").expect("lock");
    db.batch_execute("set statement_timeout = '5s'").expect("set");
    assert_eq!(rows(&mut db, "select id from graphile_worker.complete_jobs('{1,2,3,4,99}') order by id"), ["2", "4"]);
    assert_eq!(
        rows(&mut db, "select id, attempts, last_error from graphile_worker.permanently_fail_jobs('{1,3,5}', 'no')"),
        ["5|25|no"]
    );
    assert_eq!(
        rows(&mut db, "select id, last_error from graphile_worker.permanently_fail_jobs('{5}')"),
        ["5|Manually marked as failed"]
    );
    assert_eq!(
        rows(
            &mut db,
            "select id, run_at, priority, attempts, max_attempts from graphile_worker.reschedule_jobs(
               '{1,3,5,6}', run_at := '2030-01-01Z', attempts := 1) order by id"
        ),
        ["5|2030-01-01 00:00:00+00|0|1|25", "6|2030-01-01 00:00:00+00|0|1|25"]
    );
    assert_eq!(rows(&mut db, "select * from graphile_worker.complete_jobs(null)"), Vec::<String>::new());
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.jobs where queue_name = 'q'"), "4");
}

#[test]
fn updated_at_grows() {
    let (_cluster, mut db) = quiet();
    db.batch_execute(
        "select graphile_worker.add_job('a', queue_name := 'q'), graphile_worker.add_job('a', queue_name := 'r')",
    )
    .expect("add_job");
    db.batch_execute(
        "begin;
         update graphile_worker.jobs set priority = 1 where id = 1;
         update graphile_worker.jobs set priority = 2 where id = 1;
         commit;",
    )
    .expect("update");
    assert_eq!(text(&mut db, "select updated_at > created_at from graphile_worker.jobs where id = 1"), "t");
}

#[test]
fn functions_do_not_trust_the_search_path() {
    let (_cluster, mut db) = quiet();
    db.batch_execute(
        "create schema evil;
         create function evil.lower_than(int, int) returns boolean language plpgsql as
           $$ begin raise exception 'hijacked'; end $$;
         create operator evil.< (leftarg = int, rightarg = int, function = evil.lower_than);
         create operator evil.= (leftarg = int, rightarg = int, function = evil.lower_than);
         create function evil.add(int, int) returns int language plpgsql as $$ begin raise exception 'hijacked'; end $$;
         create operator evil.+ (leftarg = int, rightarg = int, function = evil.add);
         create function evil.now() returns timestamptz language plpgsql as $$ begin raise exception 'hijacked'; end $$;
         create type evil.json as (a int);
         set search_path = evil, pg_catalog;
         select graphile_worker.add_job('a', '{}'::pg_catalog.json, 'q', job_key := 'k', job_key_mode := 'preserve_run_at');
         select graphile_worker.add_job('a', '{}'::pg_catalog.json, 'q', job_key := 'k', job_key_mode := 'preserve_run_at');
         select graphile_worker.get_job('external-worker', job_expiry := interval '1 hour', now := pg_catalog.now());
         select graphile_worker.fail_job('external-worker', 1, 'e');
         select graphile_worker.reschedule_jobs('{1}', attempts := 0);
         select graphile_worker.complete_jobs('{1}');",
    )
    .expect("no hijacking");
}

#[test]
fn a_jsonb_payload_has_an_add_job_of_its_own() {
    let (_cluster, mut db) = quiet();
    // A literal is taken for json; and where jsonb is given, the error says that there is no such function.
    db.batch_execute("select graphile_worker.add_job('a', '{\"b\":  1}')").expect("a literal");
    let (code, message) = error(&mut db, "select graphile_worker.add_job('a', payload := '{}'::jsonb)");
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("42883", "function graphile_worker.add_job(unknown, payload => jsonb) does not exist")
    );
    db.batch_execute("select graphile_worker.add_job('a', '{\"b\":  1}'::jsonb::json)")
        .expect("what the documentation says");
    for call in [
        "'a', '{\"b\":  1}'",
        "'a', payload := jsonb_build_object('b', 1)",
        "'a', '[]', 'q', '2020-01-01', 3, 'k', 4, '{f}', 'preserve_run_at'",
        "'a', jsonb_build_object('b', 'ä'), job_key := 'l'",
        "'a', null",
        "'a'",
        // Stored elsewhere, and compressed.
        "'a', (select big from bigs)",
    ] {
        db.batch_execute("create temp table if not exists bigs as select to_jsonb(repeat('x', 500000)) as big")
            .expect("a table");
        db.batch_execute(&format!("select kongtask.add_job_jsonb({call})"))
            .unwrap_or_else(|e| panic!("{call}: {}", kongtask_tests::describe(&e)));
    }
    assert_eq!(
        rows(
            &mut db,
            "select left(payload::text, 11), length(payload::text), queue_name, run_at <= now(), max_attempts, key, priority, flags
             from graphile_worker.jobs order by id"
        ),
        [
            r#"{"b":  1}|9||t|25||0|"#,
            r#"{"b": 1}|8||t|25||0|"#,
            r#"{"b": 1}|8||t|25||0|"#,
            r#"{"b": 1}|8||t|25||0|"#,
            r#"[]|2|q|t|3|k|4|{"f": true}"#,
            r#"{"b": "ä"}|10||t|25|l|0|"#,
            "{}|2||t|25||0|",
            "{}|2||t|25||0|",
            "\"xxxxxxxxxx|500002||t|25||0|",
        ]
    );
    assert_eq!(error(&mut db, "select kongtask.add_job_jsonb('a', max_attempts := 0)").0, "GWBMA");
    assert_eq!(
        error(&mut db, "select kongtask.add_job_jsonb('a', job_key := 'k', job_key_mode := 'other')").0,
        "GWBKM"
    );
}

#[test]
fn a_plain_job_is_added_without_an_insert_unless_the_table_was_changed() {
    let cluster = Cluster::with(&["kongtask.workers = 0", "track_functions = all"]);
    cluster.sql("create extension kongtask");
    let mut db = cluster.connect();
    // An INSERT fires the trigger.
    let fired =
        "select coalesce(sum(calls), 0) from pg_stat_xact_user_functions where funcname = 'tg_jobs__notify_new_jobs'";
    let mut add = || -> usize {
        let calls = |db: &mut postgres::Client| text(db, fired).parse::<usize>().expect("a number");
        db.batch_execute("begin").expect("begin");
        let before = calls(&mut db);
        db.batch_execute("select graphile_worker.add_job('t', '{\"a\": 1}')").expect("add_job");
        let after = calls(&mut db);
        db.batch_execute("commit").expect("commit");
        after - before
    };
    assert_eq!(add(), 0);
    cluster.sql(
        "create table seen (id bigint);
         create function see() returns trigger language plpgsql as $$ begin insert into public.seen values (new.id); return new; end $$;
         create trigger see after insert on graphile_worker.jobs for each row execute function see()",
    );
    assert_eq!(add(), 1);
    assert_eq!(cluster.text("select count(*) from seen"), "1");
    cluster.sql("drop trigger see on graphile_worker.jobs");
    assert_eq!(add(), 0);
    for (change, back) in [
        ("create index more on graphile_worker.jobs (created_at)", "drop index graphile_worker.more"),
        (
            "alter table graphile_worker.jobs add constraint small check (priority < 100)",
            "alter table graphile_worker.jobs drop constraint small",
        ),
        (
            "alter table graphile_worker.jobs alter updated_at set default '2000-01-01'",
            "alter table graphile_worker.jobs alter updated_at set default now()",
        ),
        (
            "alter table graphile_worker.jobs disable trigger _500_release_queue",
            "alter table graphile_worker.jobs enable trigger _500_release_queue",
        ),
    ] {
        cluster.sql(change);
        assert_eq!(add(), 1, "{change}");
        cluster.sql(back);
        assert_eq!(add(), 0, "{back}");
    }
    let mut db = cluster.connect();
    db.batch_execute("set session_replication_role = replica").expect("set");
    db.batch_execute("select graphile_worker.add_job('replicated')").expect("add_job");
    assert_eq!(error(&mut db, "begin read only; select graphile_worker.add_job('t')").0, "25006");
    db.batch_execute("rollback; set enable_seqscan = off; set enable_bitmapscan = off").expect("set");
    // Every index has every job.
    let all = text(&mut db, "select count(*) from graphile_worker.jobs");
    for (index, condition) in [
        ("jobs_pkey", "id > 0"),
        ("jobs_key_key", "key is null"),
        (
            "jobs_priority_run_at_id_locked_at_without_failures_idx",
            "priority > -1 and run_at > '2000-01-01' and attempts < max_attempts",
        ),
    ] {
        let query = format!("select count(*) from graphile_worker.jobs where {condition}");
        let plan = rows(&mut db, &format!("explain {query}")).join(" ");
        assert!(plan.contains(&format!("using {index}")), "{plan}");
        assert_eq!(text(&mut db, &query), all, "{index}");
    }
}
