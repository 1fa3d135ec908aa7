//! Dumps: what is restored is the same, and nothing runs before all of it is there.

use crate::{DONE, GRANT, HOLDS, ROWS, asleep, assert_runs, wait_for, with_a_watchful_task};
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::{Cluster, JOBS, rows, text};

#[test]
fn a_restored_dump_is_the_same_and_its_jobs_run_once_it_is_whole() {
    let cluster = asleep(&["kongtask.workers = 2", "max_worker_processes = 40"]);
    let mut db = cluster.connect();
    db.batch_execute(GRANT).expect("a grant");
    let expected: Vec<_> = ROWS.iter().map(|query| rows(&mut db, query)).collect();
    let expected_schema = snapshot(&mut db, "graphile_worker");
    let custom = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    // Into a database that nobody serves, to see what is in it.
    cluster.sql("create database quiet");
    cluster.restore(&custom, "quiet", &[]);
    let mut quiet = cluster.connect_as("postgres", "quiet");
    for (query, expected) in ROWS.iter().zip(&expected) {
        assert_eq!(&rows(&mut quiet, query), expected, "{query}");
    }
    assert_same("a dump", &snapshot(&mut quiet, "graphile_worker"), &expected_schema);
    // Anybody can take that job, and not only where workers of ours are; its last attempt is given again.
    let first = "select attempts, locked_at, locked_by from graphile_worker.jobs where id = 1";
    assert_eq!(rows(&mut quiet, first), ["24||"]);
    assert_eq!(
        text(
            &mut quiet,
            "select has_function_privilege('worker', oid, 'execute') from pg_proc where proname = 'add_job'"
        ),
        "t"
    );

    // Into databases that are served: at once and in parallel, by pg_restore and by psql.
    cluster.sql("update graphile_worker.jobs set run_at = 'infinity'");
    cluster.reload(&["kongtask.databases = 'at_once, in_one, in_parallel, by_psql, by_inserts, by_pool'"]);
    for (database, options) in
        [("at_once", &[][..]), ("in_one", &["--single-transaction"]), ("in_parallel", &["--jobs", "3"])]
    {
        cluster.sql(&format!("create database {database}"));
        cluster.restore(&custom, database, options);
        assert_runs(&cluster, database);
    }
    cluster.sql("create database by_psql");
    let plain = String::from_utf8(cluster.client_program("pg_dump", &["quiet"]).stdout).expect("UTF-8");
    // Long after its jobs were loaded and committed, none has run.
    let plain = format!("{plain}\nselect pg_sleep(1);\ncreate table public.early as select * from public.done;\n");
    cluster.run_file(&plain, "by_psql");
    assert_eq!(text(&mut cluster.connect_as("postgres", "by_psql"), "select count(*) from early"), "0");
    assert_runs(&cluster, "by_psql");
    // INSERTs don't look like a dump, so that jobs run as they come.
    cluster.sql("create database by_inserts");
    let inserts = cluster.client_program("pg_dump", &["--inserts", "quiet"]).stdout;
    cluster.run_file(&String::from_utf8(inserts).expect("UTF-8"), "by_inserts");
    assert_runs(&cluster, "by_inserts");
    // A session that stays, as a pool's do, lets go as soon as it is itself again.
    cluster.sql("create database by_pool");
    let mut pooled = cluster.psql("by_pool");
    pooled.send(&format!("{plain}\nselect 'loaded';\n"));
    pooled.wait_for("loaded");
    assert_eq!(text(&mut cluster.connect_as("postgres", "by_pool"), "select count(*) from early"), "0");
    pooled.send("discard all;\n");
    assert_runs(&cluster, "by_pool");
    cluster.wait_for_log("LOG:  a dump is being restored: kongtask runs no job in this database until");
}

#[test]
fn a_dump_of_another_schema_is_restored_under_its_name() {
    let cluster = Cluster::with(&["kongtask.databases = ''"]);
    cluster.sql("create schema \"Jobs\"; create extension kongtask schema \"Jobs\"; select \"Jobs\".add_job('a', queue_name := 'q')");
    cluster.sql("create database restored");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    cluster.restore(&dump, "restored", &[]);
    let mut restored = cluster.connect_as("postgres", "restored");
    let mut db = cluster.connect();
    assert_same("a dump", &snapshot(&mut restored, "\"Jobs\""), &snapshot(&mut db, "\"Jobs\""));
    assert_eq!(text(&mut restored, "select id from \"Jobs\".add_job('a')"), "2");
}

const LOADING: &str = "a session is loading a dump";
const WAITING: &str = "a dump has been loaded, and its indexes and constraints are still to come";

#[test]
fn sections_of_a_dump_are_waited_for_and_jobs_run_once_all_are_there() {
    let cluster = with_a_watchful_task();
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    cluster.reload(&["kongtask.databases = 'sections, released, data, parallel'"]);
    for database in ["sections", "released", "data", "parallel"] {
        cluster.sql(&format!("create database {database}"));
    }
    // Each in a session of its own.
    for section in ["--section=pre-data", "--section=data"] {
        cluster.restore(&dump, "sections", &[section]);
    }
    wait_for(&cluster, "sections", HOLDS, WAITING);
    cluster.wait_for_log(&format!("LOG:  no jobs run in database \"sections\": {WAITING}"));
    assert_eq!(text(&mut cluster.connect_as("postgres", "sections"), JOBS), "5");
    cluster.restore(&dump, "sections", &["--section=post-data"]);
    wait_for(&cluster, "sections", DONE, "5 true");
    wait_for(&cluster, "sections", HOLDS, "");
    // The way out, for who has no such section.
    for section in ["--section=pre-data", "--section=data"] {
        cluster.restore(&dump, "released", &[section]);
    }
    wait_for(&cluster, "released", HOLDS, WAITING);
    wait_for(&cluster, "released", "select kongtask.release_holds()", "t");
    wait_for(&cluster, "released", DONE, "5 false");
    // Data that comes into a schema that is whole is not waited with.
    for sections in [&["--section=pre-data", "--section=post-data"][..], &["--data-only", "--disable-triggers"]] {
        cluster.restore(&dump, "data", sections);
    }
    wait_for(&cluster, "data", DONE, "5 true");
    cluster.restore(&dump, "parallel", &["--jobs=3"]);
    wait_for(&cluster, "parallel", DONE, "5 true");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_load_is_noticed_although_it_turns_the_triggers_off() {
    let cluster = with_a_watchful_task();
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    let data = cluster.client_program("pg_dump", &["--data-only", "--disable-triggers", "postgres"]).stdout;
    cluster.sql("create database data");
    cluster.restore(&dump, "data", &["--schema-only"]);
    cluster.reload(&["kongtask.databases = 'data'", "kongtask.poll_interval = '100ms'"]);
    // Its scheduler has looked before the jobs come.
    cluster.wait_for_log("kongtask scheduler (data) started");
    let data = String::from_utf8(data).expect("UTF-8");
    let early = "select pg_sleep(1); create table public.early as select * from public.done;";
    cluster.run_file(&format!("{data}\n{early}"), "data");
    assert_eq!(text(&mut cluster.connect_as("postgres", "data"), "select count(*) from early"), "0");
    wait_for(&cluster, "data", DONE, "5 true");
}

#[test]
fn a_session_that_stays_after_a_load_is_named_and_need_not_end() {
    let cluster = with_a_watchful_task();
    let dump = String::from_utf8(cluster.client_program("pg_dump", &["postgres"]).stdout).expect("UTF-8");
    cluster.sql("create database pooled");
    cluster.sql("create database ended");
    cluster.reload(&["kongtask.databases = 'pooled, ended'"]);
    let load = |database: &str| {
        let mut psql = cluster.psql(database);
        psql.send(&format!("{dump}\nselect 'loaded by ' || pg_backend_pid();\n"));
        psql.wait_for("loaded by");
        psql
    };
    let holder = "select pid from kongtask.holds where database = current_database()";
    let first = load("pooled");
    wait_for(&cluster, "pooled", HOLDS, LOADING);
    let mut db = cluster.connect_as("postgres", "pooled");
    assert_eq!(
        text(
            &mut db,
            "select application_name from kongtask.holds join pg_stat_activity using (pid) where since < now()"
        ),
        "psql"
    );
    assert_eq!(text(&mut db, JOBS), "5");
    assert_eq!(text(&mut db, "select kongtask.release_holds()"), "t");
    wait_for(&cluster, "pooled", DONE, "5 true");
    // What it lets go of by ending is nothing any more: another's hold stays.
    let mut second = cluster.psql("pooled");
    second.send(
        "set check_function_bodies = off;
         copy graphile_worker.jobs (id, task_identifier, payload) from stdin;\n100\tnote\t100\n\\.\nselect 'loaded';\n",
    );
    second.wait_for("loaded");
    let pid = text(&mut db, holder);
    drop(first);
    wait_for(
        &cluster,
        "pooled",
        "select count(*) from pg_stat_activity where datname = 'pooled' and application_name = 'psql'",
        "1",
    );
    assert_eq!(text(&mut db, holder), pid);
    assert_eq!(text(&mut db, JOBS), "1");
    second.send("discard all;\n");
    wait_for(&cluster, "pooled", JOBS, "0");
    assert_eq!(text(&mut db, "select kongtask.release_holds()"), "f");
    // The other way out.
    let _stays = load("ended");
    wait_for(&cluster, "ended", &format!("select pg_terminate_backend(({holder}))"), "t");
    wait_for(&cluster, "ended", DONE, "5 true");
}
