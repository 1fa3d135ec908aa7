//! Cases that are thought of, by name.

use super::{Both, VERSIONS, compare, is_known_to, show};
use kongtask_tests::say;
use std::collections::BTreeMap;

/// Statements that leave a job with key k in some state, as the first of the tables.
fn states() -> Vec<(&'static str, Vec<String>)> {
    let add = |more: &str| show(&format!("add_job('a', '{{\"old\": 1}}', job_key := 'k', max_attempts := 3{more})"));
    let take = || show("get_job('worker-number-1')");
    let fail = || show("fail_job('worker-number-1', 1, 'it failed')");
    vec![
        ("absent", vec![]),
        ("waiting", vec![add("")]),
        ("waiting in a queue", vec![add(", queue_name := 'q'")]),
        ("future", vec![add(", run_at := now() + interval '1 hour'")]),
        ("with flags", vec![add(", flags := '{f, g}', priority := 5")]),
        ("locked", vec![add(""), take()]),
        ("locked in a queue", vec![add(", queue_name := 'q'"), take()]),
        ("failed once", vec![add(""), take(), fail()]),
        (
            "failed once, and due",
            vec![add(""), take(), fail(), "update graphile_worker.jobs set run_at = now()".into()],
        ),
        ("exhausted", vec![add(""), show("permanently_fail_jobs('{1}', 'enough')")]),
        ("exhausted and locked", vec![add(""), take(), "update graphile_worker.jobs set attempts = 3".into()]),
        (
            "locked for long",
            vec![add(""), take(), "update graphile_worker.jobs set locked_at = now() - interval '5 hours'".into()],
        ),
    ]
}

/// What is done to a job in each of the states.
fn deeds() -> Vec<String> {
    let mut deeds = Vec::new();
    for mode in ["", ", job_key_mode := null", ", job_key_mode := 'replace'", ", job_key_mode := 'preserve_run_at'"]
        .into_iter()
        .chain([", job_key_mode := 'unsafe_dedupe'", ", job_key_mode := 'Replace'", ", job_key_mode := ''"])
    {
        for more in ["", ", run_at := now() + interval '2 hours', queue_name := 'other', flags := '{h}'"] {
            deeds.push(show(&format!("add_job('b', '{{\"new\": 1}}', job_key := 'k'{more}{mode})")));
        }
    }
    for call in [
        "remove_job('k')",
        "remove_job('K')",
        "complete_job('worker-number-1', 1)",
        "complete_job('worker-number-2', 1)",
        "complete_job(null, 1)",
        "fail_job('worker-number-1', 1, 'again')",
        "fail_job('worker-number-2', 1, 'again')",
        "fail_job('worker-number-1', 1, null)",
        "complete_jobs('{1}')",
        "permanently_fail_jobs('{1}')",
        "permanently_fail_jobs('{1}', 'by hand')",
        "reschedule_jobs('{1}', run_at := now() + interval '1 day')",
        "reschedule_jobs('{1}', attempts := 0)",
        "get_job('worker-number-2')",
        "get_job('worker-number-2', job_expiry := interval '0')",
        "get_job('worker-number-2', now := now() + interval '1 day')",
    ] {
        deeds.push(show(call));
    }
    deeds.push("delete from graphile_worker.jobs".into());
    deeds.push("update graphile_worker.jobs set queue_name = 'moved'".into());
    deeds.push("update graphile_worker.jobs set queue_name = null, priority = 7".into());
    deeds
}

/// Each parameter of each function with each value worth trying, in named notation.
fn parameters() -> Vec<(String, Vec<String>)> {
    let long = |n: usize| format!("repeat('é', {n})");
    let numbers = ["null", "0", "1", "-1", "2147483647", "-2147483648"].map(String::from);
    let times = [
        "null",
        "now()",
        "now() - interval '1 year'",
        "now() + interval '1 year'",
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 00:00:00 BC'",
        "'294276-12-31 23:59:59.999999'",
    ]
    .map(String::from);
    let texts = |most: usize| {
        let fixed = ["null", "''", "'x'", "'O''Brien'", "E'two\\nlines'", "'日本語'", "' '"].map(String::from);
        fixed.into_iter().chain([long(most), long(most + 1)]).collect::<Vec<_>>()
    };
    let payloads = ["null", "'null'", "'{}'", "'[1, 2]'", "'\"text\"'", "'{\"a\":  1, \"a\": 2}'", "'3.140'"]
        .map(String::from)
        .into_iter()
        .chain(["'{'", "json_build_object('a', repeat('x', 100000))"].map(String::from));
    let flags = ["null", "'{}'", "'{f}'", "'{f,g,f}'", "'{null}'", "'{\"\"}'", "'{{f,g},{h,i}}'"].map(String::from);
    let intervals = ["null", "'0'", "'1 second'", "'-1 hour'", "'100 years'"].map(String::from);
    let ids = ["null", "'{}'", "'{1}'", "'{1,2,3}'", "'{1,1}'", "'{null,2}'", "'{-1}'", "'{9223372036854775807}'"]
        .map(String::from);

    let mut all: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    all.insert(("add_job('a'", "payload"), payloads.collect());
    all.insert(("add_job('a'", "queue_name"), texts(128));
    all.insert(("add_job('a'", "run_at"), times.to_vec());
    all.insert(("add_job('a'", "max_attempts"), numbers.to_vec());
    all.insert(("add_job('a'", "job_key"), texts(512));
    all.insert(("add_job('a'", "priority"), numbers.to_vec());
    all.insert(("add_job('a'", "flags"), flags.to_vec());
    all.insert(("add_job('a'", "job_key_mode"), texts(20));
    all.insert(("add_job(payload := '{}'", "identifier"), texts(128));
    all.insert(("get_job(task_identifiers := null", "worker_id"), {
        let ids = ["null", "''", "'123456789'", "'1234567890'", "'éééééééééé'", "'ééééé'"].map(String::from);
        ids.to_vec()
    });
    let tasks = ["null", "'{}'", "'{a}'", "'{b}'", "'{b,a}'", "'{null}'", "'{A}'"].map(String::from);
    all.insert(("get_job('worker-number-1'", "task_identifiers"), tasks.to_vec());
    all.insert(("get_job('worker-number-1'", "job_expiry"), intervals.to_vec());
    all.insert(("get_job('worker-number-1'", "forbidden_flags"), flags.to_vec());
    all.insert(("get_job('worker-number-1'", "now"), times.to_vec());
    let job_ids = ["null", "1", "2", "3", "-1", "9223372036854775807"].map(String::from);
    all.insert(("complete_job(worker_id := 'worker-number-1'", "job_id"), job_ids.to_vec());
    all.insert(("fail_job(error_message := 'e', worker_id := 'worker-number-1'", "job_id"), job_ids.to_vec());
    all.insert(("fail_job(job_id := 1, worker_id := 'worker-number-1'", "error_message"), texts(10000));
    all.insert(("fail_job(job_id := 1, error_message := 'e'", "worker_id"), texts(10));
    all.insert(("permanently_fail_jobs('{2}'", "error_message"), texts(10000));
    all.insert(("reschedule_jobs('{1,2,3}'", "run_at"), times.to_vec());
    for parameter in ["priority", "attempts", "max_attempts"] {
        all.insert(("reschedule_jobs('{1,2,3}'", parameter), numbers.to_vec());
    }
    for function in ["complete_jobs(", "permanently_fail_jobs(", "reschedule_jobs("] {
        all.insert((function, "job_ids"), ids.to_vec());
    }
    all.insert(("remove_job(", "job_key"), texts(512));

    // Three jobs to do it to: one runs, one waits, one is another's.
    let before = [
        show("add_job('a', '{}', 'q')"),
        show("get_job('worker-number-1')"),
        show("add_job('a', '{}', job_key := 'x', flags := '{f}')"),
        show("add_job('b', '{}', 'q', run_at := now() - interval '1 minute')"),
    ];
    let mut cases = Vec::new();
    for ((call, parameter), values) in all {
        let comma = if call.ends_with('(') { "" } else { ", " };
        for value in values {
            let statement = show(&format!("{call}{comma}{parameter} := {value})"));
            let name = format!("{call}{comma}{parameter} := {value})");
            cases.push((name, before.iter().cloned().chain([statement, show("get_job('worker-number-3')")]).collect()));
        }
    }
    cases
}

/// Positional notation, NULL for whole calls, and what only several calls show.
fn sequences() -> Vec<(String, Vec<String>)> {
    let shown = |calls: &[&str]| calls.iter().map(|call| show(call)).collect::<Vec<_>>();
    let mut cases: Vec<(String, Vec<String>)> = Vec::new();
    for (name, calls) in [
        ("add_job, positional", &["add_job('a', '1', 'q', now(), 3, 'k', 4, '{f}')"][..]),
        (
            "add_job, positional mode",
            &["add_job('a', '1', 'q', now(), 3, 'k', 4, '{f}', 'unsafe_dedupe' /* positional mode */)"],
        ),
        ("add_job, all NULL", &["add_job(null, null, null, null, null, null, null, null)"]),
        ("get_job, positional", &["add_job('a')", "get_job('worker-number-1', '{a}', interval '1 hour', '{f}')"]),
        (
            "get_job, positional now",
            &["add_job('a')", "get_job('worker-number-1', null, null, null, now() /* positional now */)"],
        ),
        ("get_job, all NULL", &["add_job('a')", "get_job(null, null, null, null)"]),
        (
            "complete_job, positional",
            &["add_job('a', '{}', 'q')", "get_job('worker-number-1')", "complete_job('worker-number-1', 1)"],
        ),
        ("fail_job, all NULL", &["add_job('a')", "fail_job(null, null, null)"]),
        ("remove_job, NULL", &["add_job('a')", "remove_job(null)"]),
        ("reschedule_jobs, positional", &["add_job('a')", "reschedule_jobs('{1}', now(), 1, 2, 3)"]),
        ("permanently_fail_jobs, positional", &["add_job('a')", "permanently_fail_jobs('{1}', 'e')"]),
        (
            "jobs run by priority, run_at and id",
            &[
                "add_job('a', priority := 1)",
                "add_job('b')",
                "add_job('c', run_at := now() - interval '1 hour')",
                "add_job('d', priority := -1, run_at := now() + interval '1 second')",
                "add_job('e')",
                "get_job('worker-number-1')",
                "get_job('worker-number-1')",
                "get_job('worker-number-1')",
                "get_job('worker-number-1')",
                "get_job('worker-number-1')",
            ],
        ),
        (
            "jobs of a queue run one at a time",
            &[
                "add_job('a', '{}', 'q')",
                "add_job('b', '{}', 'q')",
                "add_job('c', '{}', 'r')",
                "get_job('worker-number-1')",
                "get_job('worker-number-2')",
                "get_job('worker-number-3')",
                "complete_job('worker-number-1', 1)",
                "get_job('worker-number-3')",
                "fail_job('worker-number-3', 2, 'e')",
                "complete_job('worker-number-2', 3)",
            ],
        ),
        (
            "a job whose lock has expired is taken again",
            &[
                "add_job('a', '{}', 'q')",
                "get_job('worker-number-1')",
                "get_job('worker-number-2', job_expiry := '-1 second')",
                "fail_job('worker-number-1', 1, 'late')",
                "complete_job('worker-number-1', 1)",
            ],
        ),
        (
            "attempts grow, and end",
            &[
                "add_job('a', max_attempts := 2)",
                "get_job('worker-number-1')",
                "fail_job('worker-number-1', 1, 'one')",
                "reschedule_jobs('{1}', run_at := now())",
                "get_job('worker-number-1')",
                "fail_job('worker-number-1', 1, 'two')",
                "reschedule_jobs('{1}', run_at := now())",
                "get_job('worker-number-1')",
                "reschedule_jobs('{1}', attempts := 1)",
                "get_job('worker-number-1')",
            ],
        ),
        (
            "back-off at many attempts",
            &[
                "add_job('a')",
                "reschedule_jobs('{1}', attempts := 15)",
                "get_job('worker-number-1')",
                "fail_job('worker-number-1', 1, 'e')",
            ],
        ),
    ] {
        cases.push((name.to_string(), shown(calls)));
    }
    for statement in [
        "insert into graphile_worker.jobs (task_identifier) values ('a')",
        "insert into graphile_worker.jobs (task_identifier, queue_name) values ('a', 'q'), ('b', 'q')",
        "insert into graphile_worker.jobs (task_identifier, queue_name, key) values ('a', 'q', '')",
        "insert into graphile_worker.job_queues (queue_name) values ('q')",
        "insert into graphile_worker.known_crontabs (identifier) values ('c')",
        "insert into graphile_worker.known_crontabs (identifier, known_since) values ('c', now()) returning identifier",
        "truncate graphile_worker.jobs",
        "select graphile_worker.get_job('worker-number-1') is null",
        "select graphile_worker.remove_job('none') is null, graphile_worker.complete_job('worker-number-1', 7) is null",
        "select count(*) from (select graphile_worker.add_job('a', to_json(n)) from generate_series(1, 20) n) j",
        "select (graphile_worker.add_job('a', '{}', 'q')).queue_name",
        "do $$ begin perform graphile_worker.add_job(repeat('a', 129)); exception when sqlstate 'GWBID' then
           perform graphile_worker.add_job('b'); end $$",
    ] {
        cases.push((statement.into(), vec![statement.into(), show("get_job('worker-number-1')")]));
    }
    cases
}

fn cases() -> Vec<(String, Vec<String>)> {
    let mut cases = Vec::new();
    for (state, before) in states() {
        for deed in deeds() {
            let name = format!("{state}: {}", deed);
            let after = show("get_job('worker-number-3', job_expiry := interval '1 hour')");
            cases.push((name, before.iter().cloned().chain([deed, after]).collect()));
        }
    }
    cases.extend(parameters());
    cases.extend(sequences());
    cases
}

#[test]
fn directed_cases_answer_as_the_reference_does() {
    let both = Both::new();
    let cases = cases();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let mut failures = Vec::new();
    for (version, migration) in VERSIONS {
        let (mut ours, mut theirs) = both.sides(version, migration);
        let known: Vec<_> =
            cases.iter().filter(|(_, case)| case.iter().all(|statement| is_known_to(version, statement))).collect();
        for (name, case) in &known {
            if let Err(difference) = compare(version, &mut ours, &mut theirs, case) {
                failures.push(format!("{name}: {difference}"));
            }
        }
        say(&format!("{version}: {} directed cases", known.len()));
    }
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n"));
}
