//! Call by call, what graphile-worker's own SQL does, and what ours does: every result, error and row afterwards.
//!
//! A case is a list of statements, run in one transaction on either side, so that now() stands still and times can be
//! compared exactly, as distances from it. Each statement is in a savepoint of its own: an error is a result like any other.

mod concurrent;
mod directed;
mod later;
mod random;
mod schema;

use kongtask_tests::{Cluster, describe, reference, say};
use postgres::{Client, SimpleQueryMessage};

/// The versions compared with, and the last of their migrations.
const VERSIONS: [(&str, usize); 3] = [("0.12.2", 9), ("0.9.0", 8), ("0.8.1", 5)];

/// Where ours and a version's are known to differ, and the documentation says so in these words.
struct Difference {
    says: &'static str,
    /// Whether it explains what a statement of the case does on a side of this version: what it answers, and the tables after it.
    explains: fn(version: &str, statement: &str, ours: Outcome, theirs: Outcome) -> bool,
}

/// What a statement answers, and the tables after it.
#[derive(Clone, Copy, PartialEq)]
struct Outcome<'a> {
    answer: &'a str,
    tables: &'a str,
}

impl Outcome<'_> {
    /// The tables without the locks of queues.
    fn without_queues(&self) -> Vec<&str> {
        self.tables.lines().filter(|line| !line.starts_with("queue ") && !line.starts_with('(')).collect()
    }

    fn locked_queues(&self) -> usize {
        self.tables.lines().filter(|line| line.starts_with("queue ")).count()
    }
}

const DIFFERENCES: [Difference; 5] = [
    Difference {
        says: "`jobs.queue_name` has no random default",
        explains: |_, statement, _, _| statement.starts_with("insert into graphile_worker.jobs (task_identifier) "),
    },
    Difference {
        says: "`remove_job` of a running job takes its key and further attempts away (since 0.9)",
        explains: |version, statement, _, theirs| {
            version == "0.8.1" && statement.contains("remove_job") && theirs.answer.trim_start() == "(1)\n"
        },
    },
    Difference {
        says: "what a constraint refuses is refused with the same SQLSTATE, in the names of 0.12's tables",
        explains: |version, _, ours, theirs| {
            version == later::VERSION
                && ours.answer.as_bytes().get(5) == Some(&b':')
                && ours.answer.get(..6) == theirs.answer.get(..6)
        },
    },
    Difference {
        says: "the message of GWBMA ends in a full stop (since 0.9)",
        explains: |version, _, ours, theirs| version == "0.8.1" && ours.answer == format!("{}.", theirs.answer),
    },
    Difference {
        says: "the lock of a queue goes with the job that it was taken for",
        explains: |_, _, ours, theirs| {
            ours.answer == theirs.answer
                && ours.without_queues() == theirs.without_queues()
                && ours.locked_queues() != theirs.locked_queues()
        },
    },
];

/// A time near now() as its distance from it.
fn distance(time: &str) -> String {
    format!(
        "case when {time} between now() - interval '9 years' and now() + interval '9 years'
           then ({time} - now())::text else {time}::text end"
    )
}

/// `shown(jobs)`: what a job's row says.
fn define_shown(db: &mut Client) {
    let columns: Vec<String> = [
        ("id", false),
        ("queue_name", false),
        ("task_identifier", false),
        ("payload", false),
        ("priority", false),
        ("run_at", true),
        ("attempts", false),
        ("max_attempts", false),
        ("last_error", false),
        ("created_at", true),
        ("updated_at", true),
        ("key", false),
        ("locked_at", true),
        ("locked_by", false),
        ("revision", false),
        ("flags", false),
    ]
    .into_iter()
    .map(|(column, is_time)| {
        let value = format!("($1).{column}");
        let text = if is_time { distance(&value) } else { format!("{value}::text") };
        format!("'{column} ' || {text}")
    })
    .collect();
    let definition = format!(
        "create function shown(graphile_worker.jobs) returns text language sql as $$
           select concat_ws(' | ', {}) $$",
        columns.join(", ")
    );
    db.batch_execute(&definition).unwrap_or_else(|e| panic!("{}", describe(&e)));
}

/// A statement that shows the rows that a function returns.
fn show(call: &str) -> String {
    format!("select shown(r) from graphile_worker.{call} as r order by r.id")
}

/// One of the two that are compared.
struct Side {
    db: Client,
    /// Shows its tables.
    state: String,
    /// What {jobs} means.
    jobs: &'static str,
}

impl Side {
    fn new(db: Client, migration: usize) -> Side {
        let queues = format!(
            "select 'queue ' || queue_name, {}, locked_by from graphile_worker.job_queues
             where locked_at is not null order by queue_name",
            distance("locked_at")
        );
        let crontabs = format!(
            "select identifier, {}, {} from graphile_worker.known_crontabs order by identifier",
            distance("known_since"),
            distance("last_execution")
        );
        let mut state = format!("select shown(jobs) from graphile_worker.jobs order by id; {queues}");
        if migration >= 8 {
            state.push_str(&format!("; {crontabs}"));
        }
        Side { db, state, jobs: "graphile_worker.jobs" }
    }

    fn begin(&mut self) {
        let jobs = self.jobs;
        self.run(&format!("rollback; begin; select setval(pg_get_serial_sequence('{jobs}', 'id'), 1, false)"));
    }

    fn end(&mut self) {
        self.run("rollback");
    }

    fn run(&mut self, statements: &str) {
        self.db.batch_execute(statements).unwrap_or_else(|e| panic!("{}\n{statements}", describe(&e)));
    }

    /// What a statement answers: its rows, or its SQLSTATE and message.
    fn answer(&mut self, statement: &str) -> String {
        self.run("savepoint s");
        match self.db.simple_query(&statement.replace("{jobs}", self.jobs)) {
            Ok(messages) => {
                self.run("release s");
                rows(&messages)
            }
            Err(error) => {
                self.run("rollback to s; release s");
                let error = error.as_db_error().expect("an error of the server's");
                format!("{}: {}", error.code().code(), error.message())
            }
        }
    }

    fn state(&mut self) -> String {
        rows(&self.db.simple_query(&self.state).expect("the tables can be read"))
    }
}

fn rows(messages: &[SimpleQueryMessage]) -> String {
    let mut text = String::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let fields: Vec<_> = (0..row.len()).map(|i| row.get(i).unwrap_or("∅")).collect();
                text.push_str(&fields.join(" | "));
                text.push('\n');
            }
            SimpleQueryMessage::CommandComplete(count) => text.push_str(&format!("({count})\n")),
            _ => (),
        }
    }
    text
}

/// Runs a case on both sides; the first difference that is not documented.
fn compare(version: &str, ours: &mut Side, theirs: &mut Side, case: &[String]) -> Result<(), String> {
    ours.begin();
    theirs.begin();
    let mut result = Ok(());
    for (number, statement) in case.iter().enumerate() {
        let (our, their) = (ours.answer(statement), theirs.answer(statement));
        let (our_state, their_state) = (ours.state(), theirs.state());
        let (our_outcome, their_outcome) =
            (Outcome { answer: &our, tables: &our_state }, Outcome { answer: &their, tables: &their_state });
        if our_outcome == their_outcome {
            continue;
        }
        let explains = |difference: &Difference| (difference.explains)(version, statement, our_outcome, their_outcome);
        if !DIFFERENCES.iter().any(explains) {
            let so_far = case[..=number].join(";\n  ");
            result = Err(format!(
                "against {version}, after\n  {so_far};\nours says\n{our}theirs\n{their}and the tables are, ours\n{our_state}theirs\n{their_state}"
            ));
        }
        // From here on the sides differ, as documented or not.
        break;
    }
    ours.end();
    theirs.end();
    result
}

/// A cluster with ours in one database, and a version's in another.
struct Both {
    cluster: Cluster,
}

impl Both {
    fn new() -> Both {
        let cluster = Cluster::with_extension(&["kongtask.databases = ''"]);
        define_shown(&mut cluster.connect());
        for (version, migration) in VERSIONS {
            cluster.sql(&format!("create database \"{version}\""));
            let mut db = cluster.connect_as("postgres", version);
            reference::install(&mut db, version, migration, "graphile_worker");
            define_shown(&mut db);
        }
        Both { cluster }
    }

    fn sides(&self, version: &str, migration: usize) -> (Side, Side) {
        let ours = Side::new(self.cluster.connect(), migration);
        (ours, Side::new(self.cluster.connect_as("postgres", version), migration))
    }
}

/// Whether a version has what a statement uses.
fn is_known_to(version: &str, statement: &str) -> bool {
    match version {
        "0.8.1" => !["job_key_mode", "now :=", "known_crontabs", "positional now", "positional mode"]
            .iter()
            .any(|new| statement.contains(new)),
        "0.9.0" => !["now :=", "positional now"].iter().any(|new| statement.contains(new)),
        _ => true,
    }
}

/// Where random cases begin: SEED in the environment, or always the same.
fn seed() -> [u8; 32] {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_250_101);
    say(&format!("SEED={seed}"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// The page of the documentation that lists the differences.
fn differences() -> String {
    kongtask_tests::docs::page("docs/explanation/differences.md").words()
}

#[test]
fn each_difference_is_documented() {
    for difference in DIFFERENCES {
        assert!(differences().contains(difference.says), "the page does not say: {}", difference.says);
    }
}
