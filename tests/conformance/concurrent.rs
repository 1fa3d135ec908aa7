//! Several sessions at once: who waits for whom, who is notified, and what comes of it.

use super::Both;
use kongtask_tests::{SOON, describe, rows, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A row without its times, which differ between the sides by the time it takes to get there.
const SHOWN: &str = "create function timeless(graphile_worker.jobs) returns text language sql as $$
  select concat_ws(' | ', ($1).id, 'task ' || ($1).task_identifier, 'queue ' || ($1).queue_name, ($1).payload,
    ($1).priority, ($1).attempts, ($1).max_attempts, 'key ' || ($1).key, 'by ' || ($1).locked_by, ($1).revision,
    ($1).flags, case when ($1).run_at > now() then 'future' end) $$";

/// A session that runs what it is sent, without anybody waiting for it.
struct Session {
    pid: i32,
    send: Sender<String>,
    answers: Receiver<String>,
}

impl Session {
    fn new(mut db: Client) -> Session {
        let pid = db.query_one("select pg_backend_pid()", &[]).expect("a pid").get(0);
        let (send, statements) = channel::<String>();
        let (answer, answers) = channel();
        std::thread::spawn(move || {
            for statement in statements {
                let result = match db.simple_query(&statement) {
                    Ok(messages) => super::rows(&messages),
                    Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => describe(&error),
                    Err(error) => panic!("{statement}: {}", describe(&error)),
                };
                if answer.send(result).is_err() {
                    break;
                }
            }
        });
        Session { pid, send, answers }
    }

    /// Runs a statement: its answer, or `waits`.
    fn step(&self, statement: &str, monitor: &mut Client) -> String {
        self.send.send(statement.to_string()).expect("the session is there");
        let mut answer = None;
        let settled = wait_until(SOON, || {
            answer = self.answers.recv_timeout(Duration::from_millis(5)).ok();
            let waits = "select from pg_stat_activity where pid = $1 and state = 'active' and wait_event_type = 'Lock'";
            answer.is_some() || monitor.query_opt(waits, &[&self.pid]).expect("a query").is_some()
        });
        assert!(settled, "{statement} neither ends nor waits");
        answer.unwrap_or_else(|| "waits".into())
    }

    fn rest(&self) -> String {
        self.answers.recv_timeout(SOON).expect("what waited ends")
    }
}

/// Who runs what, A or B.
type Case = (&'static str, &'static [(char, &'static str)]);

const CASES: &[Case] = &[
    (
        "the same key twice, committed",
        &[
            ('A', "begin; select timeless(j) from graphile_worker.add_job('a', job_key := 'k') j"),
            ('B', "select timeless(j) from graphile_worker.add_job('b', job_key := 'k') j"),
            ('A', "commit"),
        ],
    ),
    (
        "the same key twice, rolled back",
        &[
            ('A', "begin; select timeless(j) from graphile_worker.add_job('a', job_key := 'k') j"),
            ('B', "select timeless(j) from graphile_worker.add_job('b', job_key := 'k') j"),
            ('A', "rollback"),
        ],
    ),
    (
        "the same key twice, deduplicated",
        &[
            ('A', "begin; select timeless(j) from graphile_worker.add_job('a', job_key := 'k') j"),
            (
                'B',
                "select timeless(j) from graphile_worker.add_job('b', job_key := 'k', job_key_mode := 'unsafe_dedupe') j",
            ),
            ('A', "commit"),
        ],
    ),
    (
        "the same key twice, run_at preserved",
        &[
            ('A', "select from graphile_worker.add_job('a', job_key := 'k', run_at := now() + interval '1 day')"),
            (
                'A',
                "begin; select timeless(j) from graphile_worker.add_job('a', job_key := 'k', job_key_mode := 'preserve_run_at') j",
            ),
            (
                'B',
                "select timeless(j) from graphile_worker.add_job('b', job_key := 'k', job_key_mode := 'preserve_run_at') j",
            ),
            ('A', "commit"),
        ],
    ),
    (
        "a key whose job is being taken",
        &[
            ('A', "select from graphile_worker.add_job('a', job_key := 'k')"),
            ('A', "begin; select timeless(j) from graphile_worker.get_job('worker-number-1') j"),
            ('B', "select timeless(j) from graphile_worker.add_job('b', job_key := 'k') j"),
            ('A', "commit"),
        ],
    ),
    (
        "a key whose job is being completed",
        &[
            ('A', "select from graphile_worker.add_job('a', job_key := 'k')"),
            ('A', "select from graphile_worker.get_job('worker-number-1')"),
            ('A', "begin; select timeless(j) from graphile_worker.complete_job('worker-number-1', 1) j"),
            ('B', "select timeless(j) from graphile_worker.add_job('b', job_key := 'k') j"),
            ('A', "commit"),
        ],
    ),
    (
        "a key whose job is being removed",
        &[
            ('A', "select from graphile_worker.add_job('a', job_key := 'k')"),
            ('A', "begin; select timeless(j) from graphile_worker.remove_job('k') j"),
            ('B', "select timeless(j) from graphile_worker.remove_job('k') j"),
            ('A', "commit"),
        ],
    ),
    (
        "two who take jobs",
        &[
            ('A', "select from graphile_worker.add_job('a') a, graphile_worker.add_job('b') b"),
            ('A', "begin; select timeless(j) from graphile_worker.get_job('worker-number-1') j"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
            ('A', "rollback"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
        ],
    ),
    (
        "two who take jobs of a queue",
        &[
            ('A', "select from graphile_worker.add_job('a', '{}', 'q') a, graphile_worker.add_job('b', '{}', 'q') b"),
            ('A', "begin; select timeless(j) from graphile_worker.get_job('worker-number-1') j"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
            ('A', "commit"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
            ('A', "begin; select timeless(j) from graphile_worker.complete_job('worker-number-1', 1) j"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
            ('A', "commit"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2') j"),
        ],
    ),
    (
        "a job that is being failed",
        &[
            ('A', "select from graphile_worker.add_job('a', queue_name := 'q')"),
            ('A', "select from graphile_worker.get_job('worker-number-1')"),
            ('A', "begin; select timeless(j) from graphile_worker.fail_job('worker-number-1', 1, 'e') j"),
            ('B', "select timeless(j) from graphile_worker.get_job('worker-number-2', job_expiry := '0') j"),
            ('B', "select timeless(j) from graphile_worker.complete_job('worker-number-2', 1) j"),
            ('A', "commit"),
        ],
    ),
    (
        "a job that is changed behind a snapshot",
        &[
            ('A', "select from graphile_worker.add_job('a', job_key := 'k')"),
            ('A', "begin isolation level repeatable read; select timeless(j) from graphile_worker.jobs j"),
            ('B', "select timeless(j) from graphile_worker.add_job('b', job_key := 'k') j"),
            ('A', "select timeless(j) from graphile_worker.add_job('c', job_key := 'k') j"),
            ('A', "rollback"),
        ],
    ),
];

/// What administrators do to a row that somebody is changing: the reference waits, ours leaves it out.
const LEFT_OUT: &[&str] = &[
    "select timeless(j) from graphile_worker.complete_jobs('{1,2}') j",
    "select timeless(j) from graphile_worker.permanently_fail_jobs('{1,2}') j",
    "select timeless(j) from graphile_worker.reschedule_jobs('{1,2}', priority := 3) j",
];

/// What a side says to a case, step by step, and its tables in the end.
fn play(connect: &dyn Fn() -> Client, steps: &[(char, &str)]) -> Vec<String> {
    let mut monitor = connect();
    monitor
        .batch_execute(
            "truncate graphile_worker.jobs, graphile_worker.job_queues; select setval('graphile_worker.jobs_id_seq', 1, false)",
        )
        .expect("clean tables");
    let (a, b) = (Session::new(connect()), Session::new(connect()));
    let mut said = Vec::new();
    let mut waiting = Vec::new();
    for (who, statement) in steps {
        let session = if *who == 'A' { &a } else { &b };
        let answer = session.step(statement, &mut monitor);
        if answer == "waits" {
            waiting.push(session);
        }
        said.push(answer);
    }
    said.extend(waiting.into_iter().map(Session::rest));
    said.extend(rows(&mut monitor, "select timeless(j) from graphile_worker.jobs j order by id"));
    said.extend(rows(
        &mut monitor,
        "select queue_name, locked_by from graphile_worker.job_queues where locked_at is not null order by 1",
    ));
    said
}

/// Connections to ours and to the reference.
fn with_both(f: impl FnOnce(&dyn Fn() -> Client, &dyn Fn() -> Client)) {
    let both = Both::new();
    let (ours, theirs) = (|| both.cluster.connect(), || both.cluster.connect_as("postgres", "0.12.2"));
    for connect in [&ours as &dyn Fn() -> Client, &theirs] {
        connect().batch_execute(SHOWN).expect("a function");
    }
    f(&ours, &theirs);
}

#[test]
fn sessions_wait_for_each_other_as_in_the_reference() {
    with_both(|ours, theirs| {
        for (name, steps) in CASES {
            assert_eq!(play(ours, steps), play(theirs, steps), "{name}");
        }
    });
}

#[test]
fn administrators_wait_for_nobody() {
    with_both(|ours, theirs| {
        for &statement in LEFT_OUT {
            let steps = [
                ('A', "select from graphile_worker.add_job('a') a, graphile_worker.add_job('b') b"),
                ('A', "begin; select timeless(j) from graphile_worker.get_job('worker-number-1') j"),
                ('B', statement),
                ('A', "commit"),
            ];
            let (our, their) = (play(ours, &steps), play(theirs, &steps));
            assert!(our[2].starts_with("2 | ") && our[2].ends_with("(1)\n"), "{statement}: {our:?}");
            assert_eq!(their[2], "waits", "{statement}");
            // What the reference does once it has waited, ours has done at once.
            assert_eq!(their[4], our[2], "{statement}");
            assert_eq!(their[5..], our[4..], "{statement}");
        }
    });
}

#[test]
fn who_adds_to_a_queue_waits_for_nobody() {
    let steps = [
        ('A', "begin; select timeless(j) from graphile_worker.add_job('a', queue_name := 'q') j"),
        ('B', "select timeless(j) from graphile_worker.add_job('b', queue_name := 'q') j"),
        ('A', "commit"),
    ];
    with_both(|ours, theirs| {
        let (our, their) = (play(ours, &steps), play(theirs, &steps));
        assert_eq!(their[1], "waits");
        // What the reference does once it has waited, ours has done at once.
        assert_eq!(their[3], our[1]);
        assert_eq!(their[4..], our[3..]);
    });
}

#[test]
fn listeners_are_notified_as_in_the_reference() {
    let steps = [
        "select graphile_worker.add_job('a')",
        "begin; select graphile_worker.add_job('a'), graphile_worker.add_job('b'); commit",
        "begin; select graphile_worker.add_job('a'); rollback",
        "select graphile_worker.add_job('a', run_at := now() + interval '1 day')",
        "select graphile_worker.add_job('a', job_key := 'k')",
        "select graphile_worker.add_job('a', job_key := 'k')",
        "select graphile_worker.add_job('a', job_key := 'k', job_key_mode := 'unsafe_dedupe')",
        "select graphile_worker.add_job('a', queue_name := 'q')",
        "insert into graphile_worker.jobs (task_identifier, queue_name) values ('a', 'q'), ('b', 'q')",
        "select graphile_worker.get_job('worker-number-1')",
        "select graphile_worker.fail_job('worker-number-1', 1, 'e')",
        "select graphile_worker.complete_job('worker-number-1', 2)",
        "select graphile_worker.reschedule_jobs('{1}', run_at := now())",
        "select graphile_worker.permanently_fail_jobs('{1}')",
        "select graphile_worker.remove_job('k')",
        "update graphile_worker.jobs set priority = 1 where id = 1",
    ];
    with_both(|ours, theirs| {
        let count = |connect: &dyn Fn() -> Client| -> Vec<String> {
            let (mut db, mut listener) = (connect(), connect());
            db.batch_execute("truncate graphile_worker.jobs; select setval('graphile_worker.jobs_id_seq', 1, false)")
                .expect("clean tables");
            listener.batch_execute("listen \"jobs:insert\"; listen \"end\"").expect("listen");
            let mut counts = Vec::new();
            for step in steps {
                db.batch_execute(step).unwrap_or_else(|e| panic!("{step}: {}", describe(&e)));
                // Notifications come in the order of commits: this one ends those of the step.
                db.batch_execute("notify \"end\"").expect("notify");
                let mut channels = Vec::new();
                let mut notifications = listener.notifications();
                let mut coming = notifications.timeout_iter(SOON);
                while let Some(notification) = coming.next().expect("a notification") {
                    if notification.channel() == "end" {
                        break;
                    }
                    channels.push(format!("{} {:?}", notification.channel(), notification.payload()));
                }
                counts.push(format!("{step}: {channels:?}"));
            }
            counts
        };
        assert_eq!(count(ours), count(theirs));
    });
}
