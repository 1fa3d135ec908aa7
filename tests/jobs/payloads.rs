//! The largest, the deepest and the strangest that add_job takes: it reaches the handler unchanged, or is refused, or is a
//! failed attempt. Workers live through all of it.

use kongtask_tests::{Cluster, JOBS, SOON, describe, rows, text, wait_until};
use postgres::Client;

/// A cluster whose handlers keep what they get, one for each way of getting it.
fn cluster() -> Cluster {
    let cluster = Cluster::with_extension(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table kept (at bigserial, how text, payload text, task text, queue text, key text, flags jsonb);
         -- Large ones are slow enough without compressing what does not compress.
         alter table kept alter payload set storage external;
         create function by_json(p json) returns void language sql as
           $$ insert into public.kept (how, payload) values ('json', p::text) $$;
         create function by_jsonb(p jsonb) returns void language sql as
           $$ insert into public.kept (how, payload) values ('jsonb', p::text) $$;
         create function by_row(j graphile_worker.jobs) returns void language sql as
           $$ insert into public.kept (how, payload, task, queue, key, flags)
                values ('row', j.payload::text, j.task_identifier, j.queue_name, j.key, j.flags) $$;
         create function by_set(p json[]) returns void language sql as
           $$ insert into public.kept (how, payload) select 'set', x::text from unnest(p) x $$;
         select kongtask.register_task('json', 'by_json(json)'), kongtask.register_task('jsonb', 'by_jsonb(jsonb)'),
           kongtask.register_task('row', 'by_row(graphile_worker.jobs)'), kongtask.register_task('set', 'by_set(json[])')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "2");
    cluster
}

fn workers(db: &mut Client) -> Vec<String> {
    rows(db, "select pid from kongtask.workers order by 1")
}

/// The SQLSTATE with which add_job refuses these arguments.
fn refusal(db: &mut Client, arguments: &str) -> String {
    let error = db.batch_execute(&format!("select graphile_worker.add_job({arguments})")).expect_err(arguments);
    error.code().expect("an error of the server's").code().to_string()
}

#[test]
fn a_payload_of_a_hundred_megabytes_arrives_unchanged() {
    let cluster = cluster();
    let mut db = cluster.connect();
    let before = workers(&mut db);
    // Spaces and escapes that only jsonb would change, and nothing that compresses well.
    let mut noise: u64 = 1;
    let mut payload = String::from("{ \"a\" :\t\"\\u00e4");
    while payload.len() < 100 << 20 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        payload.push_str(&format!("{noise:016x}\\n"));
    }
    payload.push_str("\"  }");
    for task in ["json", "row", "set", "jsonb"] {
        db.execute("select graphile_worker.add_job($1, $2::text::json)", &[&task, &payload]).expect("add_job");
        assert!(wait_until(SOON * 2, || text(&mut db, JOBS) == "0"), "{task}\n{}", cluster.log());
        let same = match task {
            "jsonb" => "select payload::jsonb = $1::text::jsonb from kept",
            _ => "select payload = $1 from kept",
        };
        assert!(db.query_one(same, &[&payload]).expect(same).get::<_, bool>(0), "{task}");
        db.batch_execute("truncate kept").expect("truncate");
    }
    assert_eq!(workers(&mut db), before);
}

/// No array holds more than a gigabyte.
#[test]
fn a_set_too_large_for_one_call_is_called_in_parts() {
    let cluster = cluster();
    cluster.reload(&["kongtask.workers = 1"]);
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    cluster.sql(
        "create table lengths (calls int, length bigint);
         create function measure(p json[]) returns void language sql as
           $$ insert into public.lengths select cardinality(p), length(x::text) from unnest(p) x $$;
         select kongtask.register_task('measure', 'measure(json[])')",
    );
    let mut db = cluster.connect();
    let before = workers(&mut db);
    db.batch_execute(
        "do $$ declare p json := format('\"%s\"', repeat('x', 100000000)); begin
           for i in 1..12 loop perform graphile_worker.add_job('measure', p); end loop; end $$",
    )
    .unwrap_or_else(|e| panic!("{}", describe(&e)));
    assert!(wait_until(SOON * 4, || text(&mut db, JOBS) == "0"), "{}", cluster.log());
    let kept = "select count(*) || ' ' || min(length) || ' ' || max(calls) from lengths";
    assert_eq!(text(&mut db, kept), "12 100000002 6");
    assert_eq!(workers(&mut db), before);
}

#[test]
fn a_million_flags_are_flags() {
    let cluster = cluster();
    let mut db = cluster.connect();
    let before = workers(&mut db);
    db.batch_execute(
        "select from graphile_worker.add_job('row', flags := array(select 'flag ' || n from generate_series(1, 1000000) n))",
    )
    .expect("add_job");
    assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{}", cluster.log());
    assert_eq!(text(&mut db, "select count(*) from kept, jsonb_object_keys(flags)"), "1000000");
    // And as many that are forbidden elsewhere.
    db.batch_execute(
        "select from graphile_worker.add_job('elsewhere', flags := array['flag 1000000']);
         select from graphile_worker.add_job('elsewhere', flags := array['other'])",
    )
    .expect("add_job");
    let forbidden = "array(select 'flag ' || n from generate_series(1, 1000000) n)";
    let got =
        format!("select flags from graphile_worker.get_job('an external worker', forbidden_flags := {forbidden})");
    assert_eq!(text(&mut db, &got), "{\"other\": true}");
    assert_eq!(workers(&mut db), before);
}

#[test]
fn json_too_deep_for_the_handler_is_a_failed_attempt() {
    let cluster = cluster();
    let mut db = cluster.connect();
    let before = workers(&mut db);
    // An enqueuer that may go deeper than the workers.
    db.batch_execute("set max_stack_depth = '7MB'").expect("set");
    let deep = "(repeat('[', 20000) || repeat(']', 20000))::json";
    db.batch_execute(&format!(
        "select from graphile_worker.add_job('json', {deep}); select from graphile_worker.add_job('row', {deep});
         select from graphile_worker.add_job('jsonb', {deep})"
    ))
    .unwrap_or_else(|e| panic!("{}", describe(&e)));
    cluster.wait_for("select count(*) from kept", "2");
    cluster.wait_for(
        "select task_identifier || ' ' || substring(last_error, 'SQLSTATE .....') from graphile_worker.jobs where attempts = 1",
        "jsonb SQLSTATE 54001",
    );
    assert_eq!(text(&mut db, &format!("select count(*) from kept where payload = {deep}::text")), "2");
    // Too deep for anybody.
    assert_eq!(refusal(&mut db, "'json', (repeat('[', 1000000) || repeat(']', 1000000))::json"), "54001");
    assert_eq!(workers(&mut db), before);
}

#[test]
fn a_long_error_is_cut_where_a_character_ends_and_says_so() {
    let cluster = cluster();
    cluster.sql(
        "create function wail(p json) returns void language plpgsql as $$ begin
           raise '%', repeat(p ->> 'with', 10000000)
             using detail = repeat(p ->> 'with', 1000000), hint = repeat(p ->> 'with', 1000000); end $$;
         select kongtask.register_task('wail', 'wail(json)')",
    );
    let mut db = cluster.connect();
    let before = workers(&mut db);
    for letters in ["x", "é", "€", "🐘"] {
        db.execute(
            "select graphile_worker.add_job('wail', json_build_object('with', $1::text), max_attempts := 1)",
            &[&letters],
        )
        .expect("add_job");
        cluster.wait_for("select attempts from graphile_worker.jobs where locked_at is null", "1");
        let says = text(&mut db, "select last_error from graphile_worker.jobs");
        let kept = says.chars().take_while(|&letter| letter == letters.chars().next().expect("a letter")).count();
        assert!((16 << 10..=64 << 10).contains(&kept), "{kept} of {letters}");
        let end = &says[kept * letters.len()..];
        assert!(end.starts_with("... (") && end.ends_with(" bytes left out)"), "{end}");
        db.batch_execute("delete from graphile_worker.jobs").expect("delete");
    }
    assert_eq!(workers(&mut db), before);
}

#[test]
fn names_may_be_as_long_as_their_limits_in_characters_and_no_longer() {
    let cluster = cluster();
    let mut db = cluster.connect();
    for letter in ["x", "ü", "🐘"] {
        let (name, key) = (letter.repeat(128), letter.repeat(512));
        db.execute("select from kongtask.register_task($1, 'by_row(graphile_worker.jobs)')", &[&name])
            .expect("register");
        let add = "select from graphile_worker.add_job($1, queue_name := $2, job_key := $3)";
        db.execute(add, &[&name, &name, &key]).expect("add_job");
        assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{}", cluster.log());
        let kept = db.query_one("delete from kept returning task, queue, key", &[]).expect("kept");
        assert_eq!((kept.get(0), kept.get(1), kept.get(2)), (name.clone(), name.clone(), key.clone()));
        let longer = |text: &str| format!("'{text}{letter}'");
        assert_eq!(refusal(&mut db, &longer(&name)), "GWBID");
        assert_eq!(refusal(&mut db, &format!("'row', queue_name := {}", longer(&name))), "GWBQN");
        assert_eq!(refusal(&mut db, &format!("'row', job_key := {}", longer(&key))), "GWBJK");
        let register = format!("select kongtask.register_task({}, 'by_row(graphile_worker.jobs)')", longer(&name));
        assert_eq!(kongtask_tests::error(&mut db, &register).0, "22023");
    }
}

/// What might be taken for something else on its way.
const STRANGE: &[&str] = &[
    "'; drop table kept; --",
    "*/ drop table kept; /*",
    "\"quoted\" and 'quoted'",
    "$$ dollars $1 $body$",
    "back\\slash \\' \\n \\\\",
    "line\nfeed\r\n\ttab",
    "{curly, \"braces\"}",
    "%s %d %% %I",
    "🐘 👩‍👩‍👧 e\u{301} \u{202e}right to left\u{202c} \u{feff}",
    "\u{1}\u{1b}[31m\u{7f}\u{80}\u{ffff}\u{10ffff}",
    "null",
    "  spaces  ",
    "kongtask:",
];

#[test]
fn every_text_arrives_as_it_was() {
    let cluster = cluster();
    let mut db = cluster.connect();
    for strange in STRANGE {
        db.execute("select from kongtask.register_task($1, 'by_row(graphile_worker.jobs)')", &[strange])
            .expect("register");
        // What fails says so in the log, and what runs in pg_stat_activity.
        db.execute(
            "select from graphile_worker.add_job($1, to_json($1::text), queue_name := $1, job_key := $1, flags := array[$1])",
            &[strange],
        )
        .expect(strange);
        assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{strange:?}\n{}", cluster.log());
        let same = "select payload::json #>> '{}' = $1 and task = $1 and queue = $1 and key = $1
            and flags = jsonb_build_object($1::text, true) from kept";
        assert!(db.query_one(same, &[strange]).expect("kept").get::<_, bool>(0), "{strange:?}");
        db.batch_execute("truncate kept").expect("truncate");
    }
    // JSON can say what no text of Postgres can hold: json takes it, jsonb does not.
    let nothing = "\"a\\u0000b\"";
    for task in ["json", "jsonb"] {
        db.execute("select from graphile_worker.add_job($1, $2::text::json)", &[&task, &nothing]).expect("add_job");
    }
    cluster.wait_for("select count(*) from kept", "1");
    assert_eq!(text(&mut db, "select payload from kept"), nothing);
    cluster.wait_for(
        "select task_identifier || ' ' || substring(last_error, 'SQLSTATE .....') from graphile_worker.jobs where attempts = 1",
        "jsonb SQLSTATE 22P05",
    );
}

#[test]
fn the_ends_of_time_are_times() {
    let cluster = cluster();
    cluster.reload(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    let mut db = cluster.connect();
    let before = workers(&mut db);
    let times = ["2000-01-01", "4713-01-01 BC", "infinity", "-infinity", "294276-12-31 23:59:59.999999"];
    db.batch_execute("begin").expect("begin");
    for time in times {
        db.execute(
            "select from graphile_worker.add_job('row', to_json($1::text), run_at := $1::text::timestamptz)",
            &[&time],
        )
        .expect(time);
    }
    db.batch_execute("select from graphile_worker.add_job('set', '1', run_at := now() + interval '300 ms'); commit")
        .expect("commit");
    cluster.wait_for("select count(*) from kept", "4");
    assert_eq!(
        text(&mut db, "select string_agg(payload::json #>> '{}', ', ' order by at) from kept where how = 'row'"),
        "-infinity, 4713-01-01 BC, 2000-01-01"
    );
    // What is never due keeps nothing else from being due, and can be told to run after all.
    db.batch_execute("select from graphile_worker.add_job('json', '1', run_at := now() + interval '300 ms')")
        .expect("add_job");
    cluster.wait_for("select count(*) from kept where how = 'json'", "1");
    assert_eq!(text(&mut db, JOBS), "2");
    db.batch_execute(
        "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := '-infinity')",
    )
    .expect("reschedule");
    cluster.wait_for(JOBS, "0");
    // A failed attempt is due some time after it was begun, however long ago it was due before.
    db.batch_execute("select from graphile_worker.add_job('jsonb', '\"\\u0000\"', run_at := '-infinity')")
        .expect("add_job");
    cluster.wait_for(
        "select run_at between now() and now() + interval '3 s' from graphile_worker.jobs where attempts = 1",
        "t",
    );
    assert_eq!(workers(&mut db), before);
}

#[test]
fn numbers_reach_to_both_of_their_ends() {
    let cluster = cluster();
    cluster.reload(&["kongtask.workers = 1"]);
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    let mut db = cluster.connect();
    let before = workers(&mut db);
    db.batch_execute(
        "begin;
         select from graphile_worker.add_job('row', '3', priority := 2147483647);
         select from graphile_worker.add_job('row', '2');
         select from graphile_worker.add_job('row', '1', priority := -2147483648);
         commit",
    )
    .expect("add_job");
    cluster.wait_for("select string_agg(payload, '' order by at) from kept", "123");
    // The last attempt that there is.
    db.batch_execute(
        "select from graphile_worker.add_job('jsonb', '\"\\u0000\"', job_key := 'k', run_at := 'infinity', max_attempts := 2147483647);
         select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now(), attempts := 2147483646)",
    )
    .expect("add_job");
    cluster.wait_for(
        "select attempts || ' ' || max_attempts from graphile_worker.jobs where last_error is not null",
        "2147483647 2147483647",
    );
    cluster.wait_for_log("failed for good on attempt 2147483647 of 2147483647");
    assert_eq!(refusal(&mut db, "'row', max_attempts := 0"), "GWBMA");
    assert_eq!(refusal(&mut db, "'row', max_attempts := -2147483648"), "GWBMA");
    assert_eq!(workers(&mut db), before);
}
