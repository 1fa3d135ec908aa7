//! Random cases, from a seed, shrunk where they differ.

use super::{Both, VERSIONS, compare, is_known_to, show};
use kongtask_tests::say;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Any of some expressions.
fn any_of(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(values).prop_map(String::from)
}

/// A named argument with one of these values, or left out.
fn argument(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(String::new()), 3 => any_of(values).prop_map(move |value| format!(", {name} := {value}"))]
}

const IDENTIFIERS: &[&str] = &["'a'", "'a'", "'b'", "'c'", "''", "null", "repeat('a', 129)"];
const KEYS: &[&str] = &["'k'", "'k'", "'l'", "''", "null", "repeat('k', 513)"];
const QUEUES: &[&str] = &["'q'", "'q'", "'r'", "''", "null", "repeat('q', 129)"];
const TIMES: &[&str] =
    &["now()", "now() - interval '1 hour'", "now() + interval '1 hour'", "null", "'infinity'", "'-infinity'"];
const NUMBERS: &[&str] = &["0", "1", "2", "5", "-1", "null", "2147483647"];
const WORKERS: &[&str] = &["'worker-number-1'", "'worker-number-2'", "'worker-number-1'", "'short'", "null"];
const IDS: &[&str] = &["1", "2", "3", "4", "5", "null"];
const ID_ARRAYS: &[&str] = &["'{1}'", "'{1,2,3,4,5,6}'", "'{2,3}'", "'{}'", "null"];
const FLAGS: &[&str] = &["'{f}'", "'{f,g}'", "'{g}'", "'{}'", "null", "'{null}'"];
const MODES: &[&str] = &["'replace'", "'preserve_run_at'", "'unsafe_dedupe'", "null", "'other'"];
const INTERVALS: &[&str] = &["interval '4 hours'", "interval '-1 second'", "interval '0'", "null"];

/// A statement that may come in a random case.
fn statement() -> impl Strategy<Value = String> {
    let add = (
        any_of(IDENTIFIERS),
        argument("payload", &["'{\"n\": 1}'", "'[1]'", "null", "'null'"]),
        argument("queue_name", QUEUES),
        argument("run_at", TIMES),
        argument("max_attempts", NUMBERS),
        argument("job_key", KEYS),
        argument("priority", NUMBERS),
        argument("flags", FLAGS),
        argument("job_key_mode", MODES),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i)| show(&format!("add_job({a}{b}{c}{d}{e}{f}{g}{h}{i})")));
    let get = (
        any_of(WORKERS),
        argument("task_identifiers", &["'{a}'", "'{a,b}'", "'{}'", "null"]),
        argument("job_expiry", INTERVALS),
        argument("forbidden_flags", FLAGS),
        argument("now", TIMES),
    )
        .prop_map(|(a, b, c, d, e)| show(&format!("get_job({a}{b}{c}{d}{e})")));
    let complete = (any_of(WORKERS), any_of(IDS)).prop_map(|(a, b)| show(&format!("complete_job({a}, {b})")));
    let fail = (any_of(WORKERS), any_of(IDS), any_of(&["'e'", "''", "null"]))
        .prop_map(|(a, b, c)| show(&format!("fail_job({a}, {b}, {c})")));
    let remove = any_of(KEYS).prop_map(|key| show(&format!("remove_job({key})")));
    let complete_many = any_of(ID_ARRAYS).prop_map(|ids| show(&format!("complete_jobs({ids})")));
    let fail_many = (any_of(ID_ARRAYS), argument("error_message", &["'e'", "null"]))
        .prop_map(|(a, b)| show(&format!("permanently_fail_jobs({a}{b})")));
    let reschedule = (
        any_of(ID_ARRAYS),
        argument("run_at", TIMES),
        argument("priority", NUMBERS),
        argument("attempts", NUMBERS),
        argument("max_attempts", NUMBERS),
    )
        .prop_map(|(a, b, c, d, e)| show(&format!("reschedule_jobs({a}{b}{c}{d}{e})")));
    let by_hand = any_of(&[
        "delete from graphile_worker.jobs where id = 1",
        "delete from graphile_worker.jobs where id in (2, 3)",
        "update graphile_worker.jobs set queue_name = 'q' where id = 2",
        "update graphile_worker.jobs set queue_name = null",
        "update graphile_worker.jobs set locked_at = locked_at - interval '5 hours'",
        "update graphile_worker.job_queues set locked_at = locked_at - interval '5 hours' where locked_at is not null",
        "update graphile_worker.jobs set attempts = max_attempts where id = 1",
        "insert into graphile_worker.known_crontabs as c (identifier, known_since, last_execution) values ('c', now(), now())
         on conflict (identifier) do update set last_execution = excluded.last_execution
         where c.last_execution is null or c.last_execution < excluded.last_execution returning c.identifier",
    ]);
    prop_oneof![
        8 => add,
        6 => get,
        2 => complete,
        3 => fail,
        2 => remove,
        1 => complete_many,
        1 => fail_many,
        2 => reschedule,
        1 => by_hand,
    ]
}

#[test]
fn random_sequences_answer_as_the_reference_does() {
    const SEQUENCES: u32 = 2000;
    let both = Both::new();
    for (version, migration) in VERSIONS {
        let (ours, theirs) = both.sides(version, migration);
        let (ours, theirs) = (std::cell::RefCell::new(ours), std::cell::RefCell::new(theirs));
        let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &super::seed()));
        let outcome = runner.run(&vec(statement(), 1..14), |case| {
            let case: Vec<String> = case.into_iter().filter(|statement| is_known_to(version, statement)).collect();
            compare(version, &mut ours.borrow_mut(), &mut theirs.borrow_mut(), &case).map_err(TestCaseError::fail)
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
        say(&format!("{version}: {SEQUENCES} random sequences"));
    }
}
