//! Whose commands run as whom.

use crate::with_alice;
use kongtask_tests::{Cluster, JOBS, error, rows};

const COMMAND: &str = "{\"command\": \"insert into log (what) values (''hers'')\"}";
const OTHER: &str = "{\"command\": \"insert into log (what) values (''not hers'')\"}";

/// Alice has scheduled a command for some other year.
fn scheduled(cluster: &Cluster) {
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(&format!("select kongtask.schedule('hers', '0 0 29 2 *', 'kongtask.sql', '{COMMAND}')"))
        .expect("a schedule");
}

const NOT_SCHEDULED: &str = "permission denied to run a command that was not scheduled (SQLSTATE 42501)";
const FAILED: &str = "select attempts = max_attempts and locked_by is null and split_part(last_error, E'\\n', 1) = '{}' from graphile_worker.jobs";

fn has_failed_for_good(cluster: &Cluster) {
    cluster.wait_for(&FAILED.replace("{}", NOT_SCHEDULED), "t");
    cluster.sql("truncate graphile_worker.jobs");
}

#[test]
fn a_job_runs_no_command_that_its_role_has_not_scheduled() {
    let cluster = with_alice(&["kongtask.workers = 2"]);
    cluster.sql("create role bob login; select may_schedule('bob')");
    scheduled(&cluster);
    let mut bob = cluster.connect_as("bob", "postgres");
    for (payload, options) in [
        (OTHER, ""),
        ("{}", ""),
        ("[]", ""),
        ("1", ""),
        ("{\"command\": 1}", ""),
        (OTHER, ", queue_name := 'q'"),
        (OTHER, ", job_key := 'k'"),
        ("{\"command\": \"insert into log (what) values (''hers'') \"}", ""),
        // The last of two members counts, for the check as for what would run.
        ("{\"command\": \"insert into log (what) values (''hers'')\", \"command\": \"drop table log\"}", ""),
    ] {
        bob.batch_execute(&format!("select graphile_worker.add_job('kongtask.sql:alice', '{payload}'{options})"))
            .expect("a job");
        has_failed_for_good(&cluster);
    }
    assert_eq!(cluster.text("select count(*) from log"), "0");
    // What she scheduled, anybody may have run who may add jobs.
    bob.batch_execute(&format!("select graphile_worker.add_job('kongtask.sql:alice', '{COMMAND}')")).expect("a job");
    cluster.wait_for("select what || ' ' || role from log", "hers alice");
    cluster.wait_for(JOBS, "0");
    // Nor does a task with this handler run as bob what alice has scheduled, or the other way round.
    cluster.sql("grant execute on function kongtask.register_task to bob; truncate log");
    bob.batch_execute("select kongtask.register_task('mine', 'kongtask.sql(json)')").expect("a task");
    bob.batch_execute(&format!("select graphile_worker.add_job('mine', '{COMMAND}')")).expect("a job");
    has_failed_for_good(&cluster);
    bob.batch_execute(&format!("select kongtask.schedule('his', '0 0 29 2 *', 'kongtask.sql', '{OTHER}')"))
        .expect("one");
    bob.batch_execute(&format!("select graphile_worker.add_job('kongtask.sql:alice', '{OTHER}')")).expect("a job");
    has_failed_for_good(&cluster);
    bob.batch_execute("select kongtask.run_schedule('his')").expect("a job");
    cluster.wait_for("select what || ' ' || role from log", "not hers bob");
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL"]), Vec::<String>::new());
}

#[test]
fn a_command_can_be_changed_only_by_who_can_become_its_role() {
    let cluster = with_alice(&["kongtask.workers = 0"]);
    cluster.sql(
        "create role bob login; select may_schedule('bob');
         create role member login in role alice; select may_schedule('member');
         create role admin login superuser; create role inherits login; select may_schedule('inherits')",
    );
    scheduled(&cluster);
    let alter = format!("select kongtask.alter_schedule('hers', payload := '{OTHER}')");
    let denied = ("42501".to_owned(), "permission denied for schedule \"hers\"".to_owned());
    assert_eq!(error(&mut cluster.connect_as("bob", "postgres"), &alter), denied);
    // The owner of the schema may change when it runs, and stop it, but not what runs.
    cluster.sql("alter schema graphile_worker owner to bob");
    let mut bob = cluster.connect_as("bob", "postgres");
    assert_eq!(error(&mut bob, &alter), denied);
    assert_eq!(error(&mut bob, "select kongtask.alter_schedule('hers', task := 'kongtask.sql')"), denied);
    bob.batch_execute(
        "select kongtask.alter_schedule('hers', cron := '@yearly'), kongtask.alter_schedule('hers', active := false)",
    )
    .expect("an owner's changes");
    // A schedule that he replaces is his, and runs as him.
    bob.batch_execute(&format!("select kongtask.schedule('hers', '@yearly', 'kongtask.sql', '{OTHER}')")).expect("one");
    assert_eq!(cluster.text("select role from kongtask.schedules"), "bob");
    cluster.sql("select kongtask.unschedule('hers')");
    scheduled(&cluster);
    // A job of another task of hers must not become a command of hers either.
    cluster
        .sql(&format!("set role alice; select kongtask.schedule('plain', '@yearly', 'other', '{OTHER}'); reset role"));
    let denied = ("42501".to_owned(), "permission denied for schedule \"plain\"".to_owned());
    assert_eq!(error(&mut bob, "select kongtask.alter_schedule('plain', task := 'kongtask.sql')"), denied);
    for role in ["member", "postgres", "alice"] {
        cluster.connect_as(role, "postgres").batch_execute(&alter).unwrap_or_else(|error| panic!("{role}: {error:?}"));
    }
    assert_eq!(cluster.text("select role from kongtask.schedules where name = 'hers'"), "alice");
    // Who has the privileges of a role, but cannot become it (since PostgreSQL 16), has not its attributes.
    if cluster.version() >= 16 {
        cluster.sql(&format!(
            "grant admin to inherits with inherit true, set false;
             set role admin; select kongtask.schedule('s', '@yearly', 'kongtask.sql', '{COMMAND}')"
        ));
        let denied = ("42501".to_owned(), "permission denied for schedule \"s\"".to_owned());
        let alter = format!("select kongtask.alter_schedule('s', payload := '{OTHER}')");
        assert_eq!(error(&mut cluster.connect_as("inherits", "postgres"), &alter), denied);
    }
}

#[test]
fn a_job_does_not_outlive_the_schedule_of_its_command() {
    let cluster = with_alice(&["kongtask.workers = 0"]);
    scheduled(&cluster);
    let mut alice = cluster.connect_as("alice", "postgres");
    for change in [
        format!("select kongtask.alter_schedule('hers', payload := '{OTHER}')"),
        "select kongtask.unschedule('hers')".into(),
    ] {
        alice.batch_execute(&format!("select kongtask.run_schedule('hers'); {change}")).expect("a change");
        cluster.reload(&["kongtask.workers = 1"]);
        has_failed_for_good(&cluster);
        cluster.reload(&["kongtask.workers = 0"]);
        cluster.wait_for("select count(*) from kongtask.workers", "0");
    }
    assert_eq!(cluster.text("select count(*) from log"), "0");
}

#[test]
fn a_role_needs_execute_to_schedule_commands_and_when_they_run() {
    let cluster = with_alice(&["kongtask.workers = 1"]);
    cluster.sql("revoke execute on procedure kongtask.sql from alice");
    let mut alice = cluster.connect_as("alice", "postgres");
    let schedule = format!("select kongtask.schedule('hers', '0 0 29 2 *', 'kongtask.sql', '{COMMAND}')");
    let denied = ("42501".to_owned(), "permission denied for handler kongtask.sql(json)".to_owned());
    assert_eq!(error(&mut alice, &schedule), denied);
    cluster.sql("grant execute on procedure kongtask.sql to alice");
    scheduled(&cluster);
    cluster.sql("revoke execute on procedure kongtask.sql from alice; revoke usage on schema kongtask from alice");
    cluster.sql("select kongtask.run_schedule('hers')");
    let failed =
        "select attempts || ' ' || split_part(last_error, E'\\n', 1) from graphile_worker.jobs where locked_by is null";
    cluster.wait_for(failed, "1 permission denied for handler kongtask.sql(json) (SQLSTATE 42501)");
    // It is tried again, and USAGE on the schema it needs only to call kongtask.schedule.
    cluster.sql("grant execute on procedure kongtask.sql to alice");
    cluster.wait_for("select what || ' ' || role from log", "hers alice");
}

#[test]
fn a_role_that_is_renamed_goes_on_and_one_that_takes_its_name_has_its_own() {
    let cluster = with_alice(&["kongtask.workers = 2", "kongtask.poll_interval = '200ms'"]);
    scheduled(&cluster);
    cluster.sql("alter role alice rename to alicia; create role alice login; select may_schedule('alice')");
    cluster.sql("select kongtask.run_schedule('hers')");
    cluster.wait_for("select what || ' ' || role from log", "hers alicia");
    cluster.wait_for("select role from kongtask.schedules", "alicia");
    // Her command is not that of the new alice, whose task has another name.
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(&format!("select kongtask.schedule('new', '0 0 29 2 *', 'kongtask.sql', '{OTHER}')"))
        .expect("a schedule");
    let mut db = cluster.connect();
    assert_eq!(
        rows(&mut db, "select identifier || ' ' || role from kongtask.tasks order by 1"),
        ["kongtask.sql:alice alicia", "kongtask.sql:alice:2 alice"]
    );
    cluster.sql("truncate log; select kongtask.run_schedule('new')");
    cluster.wait_for("select what || ' ' || role from log", "not hers alice");
    for (task, payload) in [("kongtask.sql:alice:2", COMMAND), ("kongtask.sql:alice", OTHER)] {
        cluster.sql(&format!("select graphile_worker.add_job('{task}', '{payload}')"));
        has_failed_for_good(&cluster);
    }
}

#[test]
fn a_role_that_is_dropped_runs_nothing_more() {
    let cluster = with_alice(&["kongtask.workers = 1", "kongtask.poll_interval = '200ms'"]);
    scheduled(&cluster);
    cluster.sql("drop owned by alice; drop role alice");
    assert_eq!(
        cluster.text("select problem like 'role % does not exist' from kongtask.schedules"),
        "t",
        "{}",
        cluster.text("select problem from kongtask.schedules")
    );
    cluster.sql(&format!("create role alice login; select may_schedule('alice'); select graphile_worker.add_job('kongtask.sql:alice', '{COMMAND}')"));
    cluster.wait_for_log("jobs of 1 tasks wait because the roles of these tasks do not exist");
    assert_eq!(cluster.text("select count(*) from log"), "0");
    assert_eq!(cluster.text("select attempts from graphile_worker.jobs"), "0");
}
