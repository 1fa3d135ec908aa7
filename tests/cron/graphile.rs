//! graphile-worker's own reader of crontabs, and its matcher.

use super::{crontab, db, random};
use kongtask_tests::reference::package;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::Write;
use std::process::{Command, Stdio};

/// Reads crontabs, an array of JSON, and says of each what it has, or null.
const READ: &str = "
const { parseCrontab } = require(process.argv[1] + '/dist/crontab.js');
const crontabs = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(crontabs.map((text) => {
  try { return parseCrontab(text).map((item) => [item.task, item.identifier, item.options.backfillPeriod, item.options.maxAttempts ?? null,
    item.options.queueName ?? null, item.options.priority ?? null, item.payload]); } catch (e) { return null; }
})));";

/// Reads expressions, and says at which minutes of two years each fires, the first 40 at most.
const MATCH: &str = "
const { parseCrontab } = require(process.argv[1] + '/dist/crontab.js');
const { cronItemMatches } = require(process.argv[1] + '/dist/cronMatcher.js');
const start = Date.UTC(2024, 0, 1);
console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8')).map((text) => {
  const [item] = parseCrontab(text + ' task');
  const runs = [];
  for (let n = 1; n < 731 * 1440 && runs.length < 40; n++) {
    const t = new Date(start + n * 60000);
    const digest = { min: t.getUTCMinutes(), hour: t.getUTCHours(), date: t.getUTCDate(), month: t.getUTCMonth() + 1, dow: t.getUTCDay() };
    if (cronItemMatches(item, digest)) runs.push(n);
  }
  return runs.join(' ');
})));";

/// What a program says of texts.
fn ask(version: &str, program: &str, texts: &[String]) -> String {
    let mut node = Command::new("node")
        .args(["-e", program])
        .arg(package(version))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    node.stdin
        .take()
        .expect("a pipe")
        .write_all(format!("[{}]", quoted.join(",")).as_bytes())
        .expect("the texts are read");
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("JSON")
}

/// What ours says of the same, as JSON.
fn read(text: &str) -> String {
    let Ok(entries) = crontab::parse(text) else { return "null".into() };
    let quoted = |text: &Option<String>| text.as_ref().map_or("null".into(), |text| format!("{text:?}"));
    let number = |number: Option<i32>| number.map_or("null".into(), |number| number.to_string());
    let entry = |entry: &crontab::CrontabEntry| {
        format!(
            "[{:?},{:?},{},{},{},{},{}]",
            entry.task,
            entry.identifier,
            entry.fill_ms,
            number(entry.max_attempts),
            quoted(&entry.queue_name),
            number(entry.priority),
            entry.payload.as_deref().unwrap_or("null")
        )
    };
    format!("[{}]", entries.iter().map(entry).collect::<Vec<_>>().join(","))
}

/// Compares as jsonb does: numbers by value, members in any order.
fn compare(texts: &[String]) {
    let theirs = ask("0.12.2", READ, texts);
    let ours = format!("[{}]", texts.iter().map(|text| read(text)).collect::<Vec<_>>().join(","));
    let rows = db()
        .query(
            "select theirs.n::int, theirs.value::text, ours.value::text
             from jsonb_array_elements($1::text::jsonb) with ordinality as theirs (value, n)
             inner join jsonb_array_elements($2::text::jsonb) with ordinality as ours (value, n) using (n)
             where theirs.value <> ours.value",
            &[&theirs, &ours],
        )
        .expect("JSON");
    let wrong = rows.iter().map(|row| {
        format!(
            "{:?}: {} is theirs, {} ours",
            texts[row.get::<_, i32>(0) as usize - 1],
            row.get::<_, String>(1),
            row.get::<_, String>(2)
        )
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crontabs_are_read_as_graphile_worker_does() {
    let lines = [
        "* * * * * task",
        "  0\t4 1-5 */2 7   task:with-name ",
        "# a comment\n\n 0 4 * * * a\r\n5 4 * * * b\n",
        "0 4 * * * a\n0 5 * * * a",
        "0 4 * * * a ?id=x\n0 5 * * * a",
        "0 4 * * * a ?id=x\n0 5 * * * b ?id=x",
        "* * * * *",
        "* * * * * ",
        "* * * * task",
        "60 * * * * task",
        "* * * * 8 task",
        "* * 0 * * task",
        "5-5 * * * * task",
        "5/2 * * * * task",
        "1-5/2 * * * * task",
        "*/0 * * * * task",
        "*/99 * * * * task",
        "* * * * MON task",
        ",1 * * * * task",
        "@daily task",
        "* * * * * 1task",
        "* * * * * task ?fill=1w2d3h4m5s&max=5&queue=q:1&priority=-3&id=i-d",
        "* * * * * task ?fill=4",
        "* * * * * task ?fill=",
        "* * * * * task ?max=",
        "* * * * * task ?max=-1",
        "* * * * * task ?max=0",
        "* * * * * task ?priority=-",
        "* * * * * task ?queue=a%3Ab",
        "* * * * * task ?queue=a+b",
        "* * * * * task ?id=%61b",
        "* * * * * task ?id=1",
        "* * * * * task ?id=a&id=b",
        "* * * * * task ?&&max=1&",
        "* * * * * task ?other=1",
        "* * * * * task ?",
        "* * * * * task ?max=1?max=2",
        "* * * * * task {a: 1} trailing",
        "* * * * * task {}",
        "* * * * * task ?max=1 {a: 'b', \"c\": [1, .5, 5., +1, -1, 0x1F, 1e3, Infinity, -Infinity, NaN,], d: {e: null, f: true, g: false,},}",
        "* * * * * task{}",
        "* * * * * task {a: 1, a: 2}",
        "* * * * * task {a: 'it\\'s', b: '\\x41\\u0042\\n\\v\\q', $c_1: \"\\\"\"}",
        "* * * * * task {a: \"ä星\", ä: 1, \\u0061b: 2}",
        "* * * * * task {/* comment */ a: 1 /**/}",
        "* * * * * task {a: 01}",
        "* * * * * task {a: 1e}",
        "* * * * * task {a: .}",
        "* * * * * task {a: 0x}",
        "* * * * * task {a: '}",
        "* * * * * task {a b}",
        "* * * * * task {1: 2}",
        "* * * * * task {,}",
        "* * * * * task {a: [,]}",
        "* * * * * task {a: undefined}",
        "* * * * * task {a: '\\1'}",
        "* * * * * task {a: '\\xzz'}",
        "* * * * * task {a: -0, b: 12345678901234567890, c: 1e400, d: 1e21, e: 1e-7, f: 123456.789}",
        "* * * * * task {{}}",
        "* * * * * task []",
        "* * * * * task {__proto__: 1}",
    ];
    compare(&lines.map(String::from));
}

#[test]
fn random_crontabs_are_read_as_graphile_worker_does() {
    let piece = proptest::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "a", "'b'", "\"c\"", "1", "0x1f", ".5", "-", "+", "e3", "null", "true", "NaN",
        " ", "//", "/*", "*/", "\\", "u0041", "'", "\"", "$", "ä",
    ]);
    let payload = vec(piece, 0..12).prop_map(|pieces| format!("{{{}}}", pieces.concat()));
    let option = proptest::sample::select(vec![
        "?max=1",
        "?fill=1d2h",
        "?id=x",
        "?priority=-1&queue=q",
        "?",
        "?id",
        "?max=1&max=2",
        "?max=%31",
        "",
    ]);
    let field =
        proptest::sample::select(vec!["*", "*/5", "1", "1-3", "1,5", "0", "7", "31", "5-1", "1,", "x", "*/0", "007"]);
    let line =
        (vec(field, 4..7), proptest::sample::select(vec!["task", "a:b", "1a", ""]), option, payload, any::<bool>())
            .prop_map(|(fields, task, option, payload, has)| {
                format!("{} {task} {option} {}", fields.join(" "), if has { &payload } else { "" })
            });
    let payloads = vec(
        proptest::sample::select(vec![
            "a:1,",
            "b:'x',",
            "c:[1,2,],",
            "d:{e:-.5},",
            "'f':\"\\u00e9\",",
            "a:+0X10,",
            "g:1.e2,",
        ]),
        0..5,
    )
    .prop_map(|members| format!("* * * * * task {{{}}}", members.concat()));
    let lines = RefCell::new(Vec::new());
    random(3000)
        .run(&prop_oneof![line, payloads], |line| {
            lines.borrow_mut().push(line);
            Ok(())
        })
        .expect("nothing is tested yet");
    let lines = lines.into_inner();
    assert!(lines.iter().filter(|line| crontab::parse(line).is_ok()).count() > 500);
    compare(&lines);
}

#[test]
fn an_error_of_a_crontab_names_its_line_and_character() {
    for (text, line, position, message) in [
        ("* * * * * a\n* 25 * * * b", 2, 3, "hour 25 is out of range"),
        ("\n  0  4 32 * * b", 2, 8, "day of month 32 is out of range"),
        ("* * * * * a ?id=x\n#\n * * * * * b ?id=x", 3, 2, "two entries of the crontab have the identifier \"x\""),
        ("* * * * * a ?max=1&no=1", 1, 20, "the option no is not valid"),
        ("* * * * * a {b: ?}", 1, 17, "'?' is not expected here"),
        ("* * * * * a {b: 1", 1, 18, "the payload ends too soon"),
        ("* * * * * 5", 1, 11, "the task's name is not valid"),
        ("* * * *", 1, 8, "the line of the crontab ends too soon"),
        ("* * * * * a b", 1, 13, "what comes after the task is neither options nor a payload"),
    ] {
        let error = crontab::parse(text).expect_err(text);
        assert_eq!((error.line, error.position, error.message.as_str()), (line, position, message), "{text}");
    }
    let deep = format!("* * * * * a {}", "{a:".repeat(100_000));
    assert_eq!(crontab::parse(&deep).expect_err("too deep").message, "the payload is nested too deeply");
}

#[test]
fn next_runs_are_those_of_graphile_workers_matcher() {
    let number = |least: u32, most: u32| {
        let values = least..=most;
        let item = prop_oneof![
            Just("*".to_string()),
            (1..=most).prop_map(|step| format!("*/{step}")),
            values.clone().prop_map(|value| value.to_string()),
            (values.clone(), values).prop_map(|(a, b)| if a == b {
                a.to_string()
            } else {
                format!("{}-{}", a.min(b), a.max(b))
            }),
        ];
        vec(item, 1..3).prop_map(|items| items.join(","))
    };
    let fields = (number(0, 59), number(0, 23), number(1, 31), number(1, 12), number(0, 7));
    let crons = RefCell::new(Vec::new());
    random(200)
        .run(&fields, |(minute, hour, day, month, weekday)| {
            crons.borrow_mut().push(format!("{minute} {hour} {day} {month} {weekday}"));
            Ok(())
        })
        .expect("nothing is tested yet");
    let crons = crons.into_inner();
    let theirs = ask("0.12.2", MATCH, &crons);
    let mut db = db();
    let rows =
        db.query("select value from json_array_elements_text($1::text::json) as value", &[&theirs]).expect("JSON");
    for (cron, row) in crons.iter().zip(rows) {
        let ours = db.query_one(
            "select coalesce(string_agg((extract(epoch from run - timestamptz '2024-01-01Z') / 60)::int::text, ' ' order by run), '')
             from kongtask.next_runs($1, 'UTC', '2024-01-01Z', 40) as run where run < '2026-01-01Z'",
            &[cron],
        );
        match ours {
            Ok(ours) => assert_eq!(ours.get::<_, String>(0), row.get::<_, String>(0), "{cron}"),
            Err(error) => assert_eq!(row.get::<_, String>(0), "", "{cron}: {error}"),
        }
    }
}
