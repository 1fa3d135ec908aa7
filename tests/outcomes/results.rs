//! What handlers return.

use crate::{run, with_ways};
use kongtask_tests::{rows, text};

#[test]
fn whatever_a_handler_returns_is_its_job_s_result() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql(
        "create type pair as (a int, b text); create domain small as int check (value < 10);
         create domain document as jsonb; create type mood as enum ('good');",
    );
    let large = format!("to_jsonb({})", "repeat('abc', 100000)");
    for (of, value, expected) in [
        ("void", "1", ""),
        ("int", "3", "3"),
        ("int", "null", ""),
        ("bigint", "1 << 40", "256"),
        ("bool", "true", "true"),
        ("numeric", "'NaN'", "\"NaN\""),
        ("float8", "'Infinity'", "\"Infinity\""),
        ("text", "'a\"b'", "\"a\\\"b\""),
        ("json", "'{\"a\":  [1]}'", "{\"a\": [1]}"),
        ("jsonb", "'{\"a\":  null}'", "{\"a\": null}"),
        ("jsonb", "'null'", "null"),
        ("document", "'[1]'", "[1]"),
        ("timestamptz", "'2030-01-01 00:00+00'", "\"2030-01-01T00:00:00+00:00\""),
        ("int[]", "array[1, null]", "[1, null]"),
        ("pair", "(1, 'b')", "{\"a\": 1, \"b\": \"b\"}"),
        ("pair[]", "array[(1, 'b')]::public.pair[]", "[{\"a\": 1, \"b\": \"b\"}]"),
        ("small", "4", "4"),
        ("mood", "'good'", "\"good\""),
    ] {
        let value = if of == "pair" { "row(1, 'b')::public.pair" } else { value };
        let value = if of == "bigint" { "256" } else { value };
        run(
            &cluster,
            &format!(
                "truncate kongtask.runs_0; drop function if exists returns();
                 create function returns() returns {of} language plpgsql set timezone = 'UTC' as
                   $$ begin {} end $$;
                 select kongtask.register_task('returns', 'returns()', keep := 'all'), graphile_worker.add_job('returns')",
                if of == "void" { "return;".into() } else { format!("return {value};") }
            ),
        );
        assert_eq!(rows(&mut db, "select state, result from kongtask.runs"), [format!("succeeded|{expected}")], "{of}");
    }
    // With OUT arguments, from a language that returns what it has toasted, and large.
    run(
        &cluster,
        &format!(
            "truncate kongtask.runs_0; create function record(out a int, out b text) language sql as $$ select 1, 'x' $$;
             create table kept_elsewhere (document jsonb); alter table kept_elsewhere alter document set storage external;
             insert into kept_elsewhere values ({large});
             create function toasted() returns jsonb language sql as 'select document from public.kept_elsewhere';
             select kongtask.register_task('record', 'record()', keep := 'all'), kongtask.register_task('toasted', 'toasted()', keep := 'all'),
               graphile_worker.add_job('record'), graphile_worker.add_job('toasted')"
        ),
    );
    cluster.sql("drop table kept_elsewhere");
    assert_eq!(text(&mut db, "select result from kongtask.runs where task = 'record'"), "{\"a\": 1, \"b\": \"x\"}");
    assert_eq!(text(&mut db, "select length(result::text) from kongtask.runs where task = 'toasted'"), "300002");
}

#[test]
fn a_result_that_jsonb_cannot_have_fails_the_attempt() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql(
        "create function odd() returns json language plpgsql as $$ begin
           insert into public.did values (1); return '\"\\u0000\"'; end $$;
         select kongtask.register_task('odd', 'odd()', keep := 'all')",
    );
    run(&cluster, "select graphile_worker.add_job('odd', max_attempts := 1)");
    assert_eq!(text(&mut db, "select error ~ 'SQLSTATE 22P05' from kongtask.runs"), "t");
    assert_eq!(text(&mut db, "select count(*) from did"), "0");
    // What is not kept is not looked at.
    run(&cluster, "select kongtask.alter_task('odd', keep := 'failures'); select graphile_worker.add_job('odd')");
    assert_eq!(text(&mut db, "select count(*) from did"), "1");
}

#[test]
fn a_handler_of_many_jobs_returns_an_array_with_an_element_for_each_of_them() {
    let cluster = with_ways(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let results = "select string_agg(coalesce(result::text, '-'), ' ' order by job_id) from kongtask.runs";
    for (of, value, expected) in [
        ("int[]", "select array_agg(10 * (x #>> '{}')::int) from unnest(p) x", "10 20 30"),
        ("jsonb[]", "select array['\"a\"'::jsonb, null, '{}']", "\"a\" - {}"),
        ("int[]", "select '{1,2}'::int[]", "- - -"),
        ("int[]", "select null::int[]", "- - -"),
        ("jsonb", "select '[1,2,3]'::jsonb", "- - -"),
        ("int", "select 1", "- - -"),
    ] {
        run(
            &cluster,
            &format!(
                "truncate kongtask.runs_0; drop function if exists all_of(json[]);
                 create function all_of(p json[]) returns {of} language sql as $$ {value} $$;
                 select kongtask.register_task('all_of', 'all_of(json[])', keep := 'all'),
                   count(graphile_worker.add_job('all_of', to_json(n))) from generate_series(1, 3) n"
            ),
        );
        assert_eq!(text(&mut db, results), expected, "{of} {value}");
    }
}
