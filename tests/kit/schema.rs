//! What an extension consists of, to be compared.

use crate::{describe, rows};
use postgres::Client;

/// A line for each thing in this database that is the extension's; `queue` is the schema of its tables.
pub fn snapshot(db: &mut Client, queue: &str) -> Vec<String> {
    let query = include_str!("describe.sql").replace("@queue@", queue);
    let run = |db: &mut Client, statement: &str| {
        db.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
    };
    run(db, "begin; set local search_path = ''");
    let lines = rows(db, &query);
    run(db, "rollback");
    assert!(lines.len() > 150, "{} lines", lines.len());
    lines
}

/// Fails with what is in only one of the two.
pub fn assert_same(what: &str, one: &[String], other: &[String]) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let (only_one, only_other) = (only(one, other), only(other, one));
    assert!(
        only_one.is_empty() && only_other.is_empty() && one.len() == other.len(),
        "{what}: only in the one\n{}\nonly in the other\n{}",
        only_one.join("\n"),
        only_other.join("\n")
    );
}
