//! Upgrades of the extension, and of the server by pg_upgrade.

use crate::{LIVE, ROWS, assert_runs};
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::{Cluster, SOON, Server, describe, rows, say, text, wait_until};

#[test]
fn an_upgraded_schema_is_a_fresh_one_and_is_served_before_and_after() {
    let cluster = Cluster::with(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql("create database fresh");
    let mut fresh = cluster.connect_as("postgres", "fresh");
    fresh.batch_execute("create extension kongtask").expect("create extension");
    let mut db = cluster.connect();
    db.batch_execute("create extension kongtask version '0.1.0'").expect("the first version");
    db.batch_execute(LIVE).expect("jobs");
    // The library is newer than what it finds, and works all the same.
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from done") != "0"), "{}", cluster.log());
    db.batch_execute("alter extension kongtask update").expect("an upgrade");
    assert_same("an upgrade", &snapshot(&mut db, "graphile_worker"), &snapshot(&mut fresh, "graphile_worker"));
    db.batch_execute("select graphile_worker.add_jobs(array[('note', null, null, null, null, null, null, null)]::graphile_worker.job_spec[])")
        .expect("what is new");
    let noted = "select count(*) > 0 from done join (select max(last_value) as id from graphile_worker.jobs_id_seq) s on job = id";
    assert!(wait_until(SOON, || text(&mut db, noted) == "t"), "{}", cluster.log());
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
    // What was dumped before: CREATE EXTENSION ... WITH SCHEMA public.
    cluster.sql("create database old");
    let mut old = cluster.connect_as("postgres", "old");
    old.batch_execute("create extension kongtask with schema public").expect("as 0.1.0's dump says");
    assert_same("an old dump", &snapshot(&mut old, "graphile_worker"), &snapshot(&mut fresh, "graphile_worker"));
}

#[test]
fn pg_upgrade_keeps_everything() {
    let Ok(from) = std::env::var("UPGRADE_FROM") else {
        say("SKIPPED pg_upgrade_keeps_everything: no older server to upgrade from (UPGRADE_FROM is its pg_config)");
        return;
    };
    let old = Cluster::made_by(&Server::of(&from), &[], &["kongtask.databases = ''"]);
    old.start();
    old.sql("create extension kongtask");
    old.sql(LIVE);
    old.sql("create database other");
    let mut other = old.connect_as("postgres", "other");
    other
        .batch_execute("create schema jobs_q; create extension kongtask schema jobs_q; select jobs_q.add_job('a')")
        .expect("another queue");
    // A server of a later month than the new one marks its columns in a way that the new one refuses, whatever the table
    // (seen with 15.20 and 18.6): without the marks they are as a server of the same month would have left them.
    for db in [&mut other, &mut old.connect()] {
        db.batch_execute("update pg_attribute set attoptions = null where attoptions::text like '{pg_attver=%}'")
            .expect("marks");
    }
    drop(other);
    let expected: Vec<_> = ROWS.iter().map(|query| rows(&mut old.connect(), query)).collect();
    let from = old.version();
    old.stop("fast");
    let options: &[&str] = if from < 18 { &["--no-data-checksums"] } else { &[] };
    let new = Cluster::made_by(&Server::tested(), options, &["kongtask.databases = ''"]);
    old.upgrade_to(&new);
    new.start();
    say(&format!("pg_upgrade from {from} to {}", new.version()));
    assert!(new.version() > from);
    let mut db = new.connect();
    for (query, expected) in ROWS.iter().zip(&expected) {
        assert_eq!(&rows(&mut db, query), expected, "{query}");
    }
    new.sql("create database fresh");
    let mut fresh = new.connect_as("postgres", "fresh");
    fresh.batch_execute("create extension kongtask").expect("create extension");
    assert_same("pg_upgrade", &snapshot(&mut db, "graphile_worker"), &snapshot(&mut fresh, "graphile_worker"));
    let mut other = new.connect_as("postgres", "other");
    assert_eq!(text(&mut other, "select id from jobs_q.add_job('a')"), "2");
    new.reload(&["kongtask.databases = '*'"]);
    assert_runs(&new, "postgres");
}

/// The function has more arguments in 0.3.0, so it is another one. What was granted is no part of the extension either: a dump
/// has it.
#[test]
fn whoever_could_register_tasks_still_can_after_an_upgrade_and_after_a_dump_of_that() {
    let cluster = Cluster::with(&["kongtask.databases = ''"]);
    cluster.sql(
        "create role mailer login; create role other login; create role granting login;
         create extension kongtask version '0.2.0';
         grant execute on function kongtask.register_task to mailer;
         grant execute on function kongtask.register_task to granting with grant option;
         alter extension kongtask update",
    );
    cluster.sql("create database restored");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    cluster.restore(&dump, "restored", &[]);
    for database in ["postgres", "restored"] {
        let rights = "select string_agg(acl.grantee::regrole || ' ' || acl.is_grantable, ', ' order by acl.grantee::regrole::text)
            from pg_proc, aclexplode(proacl) acl where oid = 'kongtask.register_task'::regproc";
        assert_eq!(
            text(&mut cluster.connect_as("postgres", database), rights),
            "granting true, mailer false, postgres false",
            "{database}"
        );
    }
}

#[test]
fn before_the_upgrade_the_tables_of_former_versions_are_read_as_they_are() {
    // What goes through text would read none of these.
    let settings = ["intervalstyle = 'sql_standard'", "extra_float_digits = -15"];
    let cluster = Cluster::with(&settings);
    for version in ["0.1.0", "0.2.0"] {
        let database = format!("v{}", version.replace('.', "_"));
        cluster.sql(&format!("create database {database}"));
        let mut db = cluster.connect_as("postgres", &database);
        db.batch_execute(&format!(
            "create table done (job text);
             create function note(payload json) returns void language plpgsql as
               $$ begin insert into public.done values (payload #>> '{{}}'); perform pg_sleep(payload::text::float); end $$;
             create extension kongtask version '{version}';
             select kongtask.register_task('note', 'note(json)')"
        ))
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
        let has_timeout = version != "0.1.0";
        if has_timeout {
            db.batch_execute("select kongtask.register_task('note', 'note(json)', timeout := '1.234 s')")
                .expect("options");
        }
        db.batch_execute("select graphile_worker.add_job('note', '0'), graphile_worker.add_job('note', '0')")
            .expect("jobs");
        assert!(wait_until(SOON, || text(&mut db, "select count(*) from done") == "2"), "{}", cluster.log());
        if has_timeout {
            db.batch_execute("select graphile_worker.add_job('note', '60', max_attempts := 1)").expect("a job");
            let failed = "select last_error from graphile_worker.jobs where last_error is not null";
            assert!(
                wait_until(SOON, || text(&mut db, failed).starts_with("timed out after 1.23")),
                "{}",
                cluster.log()
            );
        }
        db.batch_execute("alter extension kongtask update").expect("an upgrade");
        assert_eq!(rows(&mut db, "select identifier, role, runs_as from kongtask.tasks"), ["note|postgres|postgres"]);
        db.batch_execute("select graphile_worker.add_job('note', '0')").expect("a job");
        assert!(wait_until(SOON, || text(&mut db, "select count(*) from done") == "3"), "{}", cluster.log());
        assert_eq!(text(&mut db, "select kongtask.unregister_task('note')"), "t");
    }
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn an_update_does_not_deadlock_with_those_who_read_the_tasks() {
    for version in ["0.1.0", "0.2.0"] {
        let cluster = Cluster::with(&["kongtask.workers = 0"]);
        let mut db = cluster.connect();
        db.batch_execute(&format!("create extension kongtask version '{version}'")).expect("an extension");
        // As workers do: the table of jobs first.
        db.batch_execute("begin; lock table graphile_worker.jobs in access share mode").expect("a lock");
        std::thread::scope(|threads| {
            let update = threads.spawn(|| cluster.sql("alter extension kongtask update"));
            let mut watch = cluster.connect();
            let waits = "select count(*) > 0 from pg_stat_activity where query like 'alter extension%' and wait_event_type = 'Lock'";
            let has_waited = wait_until(SOON, || text(&mut watch, waits) == "t");
            let read = db.batch_execute("select from kongtask.tasks");
            db.batch_execute("rollback").expect("the end");
            assert!(has_waited);
            read.unwrap_or_else(|e| panic!("{version}: {}", describe(&e)));
            update.join().expect("an update");
        });
    }
}
