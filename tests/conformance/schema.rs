//! The schema as pg_dump writes it, beside the reference's.

use super::Both;
use std::collections::BTreeSet;

/// What is only in ours, or only in theirs: how it begins, and what the documentation says of it.
const DIFFERENCES: &[(&str, &str)] = &[
    ("COMMENT ON ", "every object has a COMMENT"),
    ("REVOKE ALL ON ", "nothing is granted to PUBLIC"),
    ("CREATE TABLE graphile_worker.jobs ", "`jobs.queue_name` has no random default"),
    ("CREATE TABLE graphile_worker.migrations ", "`migrations.breaking`"),
    ("CREATE POLICY workers ON ", "a policy `workers`"),
    ("CREATE TYPE graphile_worker.job_spec ", "`add_jobs`"),
    ("CREATE FUNCTION graphile_worker.add_jobs(", "`add_jobs`"),
    ("CREATE FUNCTION graphile_worker.force_unlock_workers(", "`force_unlock_workers`"),
    ("CREATE FUNCTION graphile_worker.tg_migrations__refuse(", "`tg_migrations__refuse`"),
    ("CREATE TRIGGER _100_refuse ", "`tg_migrations__refuse`"),
    ("CREATE FUNCTION graphile_worker.tg_jobs__unlock_arriving(", "`tg_jobs__unlock_arriving`"),
    ("CREATE TRIGGER _100_unlock_arriving ", "`tg_jobs__unlock_arriving`"),
    ("CREATE FUNCTION graphile_worker.tg_job_queues__released(", "`tg_job_queues__released`"),
    ("CREATE INDEX jobs_queue_name_priority_run_at_id_idx ", "index `jobs_queue_name_priority_run_at_id_idx`"),
    ("CREATE TRIGGER _900_released ", "`tg_job_queues__released`"),
    ("CREATE TRIGGER _900_released_update ", "`tg_job_queues__released`"),
    ("CREATE TABLE graphile_worker.job_queues ", "`job_queues.job_id`"),
    ("CREATE FUNCTION graphile_worker.tg_jobs__release_queue(", "`tg_jobs__release_queue`"),
    ("CREATE TRIGGER _500_release_queue ", "`tg_jobs__release_queue`"),
    ("CREATE TRIGGER _500_release_queue_update ", "`tg_jobs__release_queue`"),
    ("CREATE FUNCTION graphile_worker.jobs__increase_job_queue_count(", "`jobs__increase_job_queue_count`"),
    ("CREATE FUNCTION graphile_worker.jobs__decrease_job_queue_count(", "`jobs__decrease_job_queue_count`"),
    ("CREATE TRIGGER _500_increase_job_queue_count", "`jobs__increase_job_queue_count`"),
    ("CREATE TRIGGER _500_decrease_job_queue_count", "`jobs__decrease_job_queue_count`"),
    ("CREATE INDEX jobs_run_at_idx ", "index `jobs_run_at_idx`"),
    ("CREATE TRIGGER _900_notify_worker ", "`_900_notify_worker` is a row trigger"),
    ("CREATE TRIGGER _900_notify_worker_update ", "`_900_notify_worker` is a row trigger"),
];

/// The statements of a dump, without what does not matter: comments, owners, and the bodies of functions.
fn statements(dump: &str) -> BTreeSet<String> {
    let mut statements = BTreeSet::new();
    let lines: Vec<&str> =
        dump.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\') && !line.is_empty()).collect();
    let text = lines.join("\n");
    // A body is between dollar quotes, and may hold semicolons.
    let mut parts = text.split("$$");
    let mut bare = parts.next().unwrap_or_default().to_string();
    while let (Some(_body), Some(after)) = (parts.next(), parts.next()) {
        bare.push_str("''");
        bare.push_str(after);
    }
    for statement in bare.split(";\n") {
        let statement = statement.trim().trim_end_matches(';');
        let is_of_interest = ["CREATE ", "COMMENT ", "REVOKE ", "GRANT ", "ALTER TABLE"]
            .iter()
            .any(|beginning| statement.starts_with(beginning))
            && !statement.contains(" OWNER TO ");
        if is_of_interest {
            let signature = match statement.split_once("\n    LANGUAGE ") {
                Some((signature, rest)) if statement.starts_with("CREATE FUNCTION") => {
                    format!("{signature}{}", if rest.contains(" STRICT") { " STRICT" } else { "" })
                }
                _ => statement.to_string(),
            };
            statements.insert(signature);
        }
    }
    statements
}

#[test]
fn a_dump_differs_from_the_references_as_documented() {
    let both = Both::new();
    // Members of an extension are not dumped.
    both.cluster.sql("delete from pg_depend where deptype = 'e'; delete from pg_init_privs where privtype = 'e'");
    let dump = |database: &str| {
        let output = both.cluster.client_program("pg_dump", &["--schema-only", "-n", "graphile_worker", database]);
        statements(&String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (ours, theirs) = (dump("postgres"), dump("0.12.2"));
    assert!(ours.len() > 40 && theirs.len() > 30, "{} and {} statements", ours.len(), theirs.len());
    let documented = super::differences();
    let mut seen = BTreeSet::new();
    for statement in ours.symmetric_difference(&theirs) {
        let known = DIFFERENCES.iter().find(|(beginning, _)| statement.starts_with(beginning));
        let Some((beginning, says)) = known else { panic!("only in one of the two:\n{statement}") };
        seen.insert(*beginning);
        assert!(documented.contains(says), "the page does not say: {says}");
    }
    for (beginning, _) in DIFFERENCES {
        assert!(seen.contains(beginning), "no longer a difference: {beginning}");
    }
}
