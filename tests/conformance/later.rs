//! `add_jobs` and `force_unlock_workers`, which graphile-worker has since 0.16, compared with 0.17.3's. Its tables are
//! others, and it numbers the jobs of one call in any order: rows are compared without their ids, and changed by hand
//! through {jobs}.

use super::{Side, compare};
use kongtask_tests::{Cluster, reference};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub const VERSION: &str = "0.17.3";
const MIGRATION: usize = 19;

/// updated_at is left out: ours grows by a millisecond with each update in a transaction, as 0.12's does.
fn state(from: &str) -> String {
    let time = super::distance;
    format!(
        "select t.task, q.queue, j.payload::text, j.priority, {}, j.attempts, j.max_attempts, j.last_error, j.key,
           {}, j.locked_by, j.revision, j.flags
         from {from} order by (t.task, q.queue, j.key, j.payload::text, j.priority, j.run_at, j.flags, j.attempts, j.revision)::text",
        time("j.run_at"),
        time("j.locked_at")
    )
}

fn sides() -> (Cluster, Side, Side) {
    let cluster = Cluster::with_extension(&["kongtask.databases = ''"]);
    cluster.sql("create database theirs");
    let (ours, mut theirs) = (cluster.connect(), cluster.connect_as("postgres", "theirs"));
    reference::install(&mut theirs, VERSION, MIGRATION, "graphile_worker");
    let ours = Side {
        db: ours,
        state: state(
            "graphile_worker.jobs as j, lateral (select j.task_identifier as task) as t,
             lateral (select j.queue_name as queue) as q",
        ),
        jobs: "graphile_worker.jobs",
    };
    let theirs = Side {
        db: theirs,
        state: state(
            "graphile_worker._private_jobs as j
             left join (select id, identifier as task from graphile_worker._private_tasks) as t on t.id = j.task_id
             left join (select id, queue_name as queue from graphile_worker._private_job_queues) as q
               on q.id = j.job_queue_id",
        ),
        jobs: "graphile_worker._private_jobs",
    };
    (cluster, ours, theirs)
}

fn add(specs: &[&str], more: &str) -> String {
    format!(
        "select count(*) from graphile_worker.add_jobs(array[{}]::graphile_worker.job_spec[]{more})",
        specs.join(", ")
    )
}

#[test]
fn directed_cases_answer_as_the_later_reference_does() {
    let (_cluster, mut ours, mut theirs) = sides();
    let keyed = add(&["('a', '[1]', 'q', now() + interval '1 hour', 3, 'k', 2, '{f}')"], "");
    let again = |more: &str| {
        add(&["('b', '[2, 3]', null, now(), 4, 'k', 1, null)", "('c', null, null, null, null, null, null, null)"], more)
    };
    let lock = "update {jobs} set locked_at = now(), locked_by = 'w'";
    let states: [&[&str]; 6] = [
        &[],
        &["update {jobs} set attempts = 1, last_error = 'e'"],
        &["update {jobs} set attempts = max_attempts"],
        &[lock],
        &[lock, "update {jobs} set attempts = max_attempts"],
        &["update {jobs} set payload = '{\"an\": \"object\"}'"],
    ];
    let mut cases: Vec<Vec<String>> = Vec::new();
    for state in states {
        for more in ["", ", true", ", job_key_preserve_run_at := false", ", job_key_preserve_run_at := null"] {
            let mut case = vec![keyed.clone()];
            case.extend(state.iter().map(|statement| statement.to_string()));
            case.push(again(more));
            case.push("select graphile_worker.force_unlock_workers('{x, w}')".into());
            cases.push(case);
        }
    }
    for specs in [
        "('a', null, null, null, null, null, null, null)",
        "('', '1', '', '-infinity', 32767, 'é', -32768, '{}')",
        "('a', '\"x\"', 'q', 'infinity', 1, 'k', 32767, '{f,g,f}')",
        "('a', '{}', null, null, null, null, null, '{null}')",
        "('a', '{}', null, null, null, '', null, null)",
        "(null, '{}', null, null, null, null, null, null)",
        "('a', '{}', null, null, null, 'k', null, null), ('a', '{}', null, null, null, 'k', null, null)",
        "('a', '{}', 'q', null, null, 'k', null, null), ('a', '{}', 'q', null, null, 'l', null, null)",
        "('a', '{}', null, null, 32768, null, null, null)",
    ] {
        cases.push(vec![add(&[specs], ""), add(&["('z', null, null, null, null, null, null, null)"], "")]);
    }
    cases.push(vec![add(&[], "")]);
    cases.push(vec![
        "select count(*) from graphile_worker.add_jobs(specs := null, job_key_preserve_run_at := true)".into(),
    ]);
    cases.push(vec![keyed, lock.into(), "select graphile_worker.force_unlock_workers(null)".into()]);
    for case in &cases {
        if let Err(difference) = compare(VERSION, &mut ours, &mut theirs, case) {
            panic!("{difference}");
        }
    }
}

#[test]
fn random_calls_answer_as_the_later_reference_does() {
    let (_cluster, ours, theirs) = sides();
    let (ours, theirs) = (std::cell::RefCell::new(ours), std::cell::RefCell::new(theirs));
    let of = |values: &'static [&'static str]| proptest::sample::select(values);
    let spec = (
        of(&["'a'", "'b'", "'c'"]),
        of(&["null", "'[1]'", "'[2]'", "'{\"n\": 1}'"]),
        of(&["null", "'q'", "'r'"]),
        of(&["null", "now() + interval '1 hour'", "now() - interval '1 hour'"]),
        of(&["null", "1", "5"]),
        of(&["null", "null", "'k'", "'l'", "'m'"]),
        of(&["null", "-3", "9"]),
        of(&["null", "'{}'", "'{f}'", "'{g,f}'"]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| format!("({a}, {b}, {c}, {d}, {e}, {f}, {g}, {h})"));
    let add = (vec(spec, 1..6), of(&["", ", true"])).prop_map(|(specs, more)| {
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        add(&specs, more)
    });
    let other = of(&[
        "update {jobs} set locked_at = now(), locked_by = 'w' where key = 'k'",
        "update {jobs} set attempts = attempts + 1, last_error = 'e' where attempts < max_attempts",
        "select graphile_worker.force_unlock_workers('{w}')",
        "select count(*) from graphile_worker.complete_jobs((select array_agg(id) from {jobs} where key = 'l'))",
        "select key, revision from graphile_worker.remove_job('m')",
    ])
    .prop_map(String::from);
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &super::seed()));
    let outcome = runner.run(&vec(prop_oneof![3 => add, 2 => other], 1..8), |case| {
        compare(VERSION, &mut ours.borrow_mut(), &mut theirs.borrow_mut(), &case).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
