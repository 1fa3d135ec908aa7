//! Settings of the server, a database or a role.

use kongtask_tests::every_kind::{self, drains_once};
use kongtask_tests::fixtures::{with_every_kind, with_note};
use kongtask_tests::{Cluster, IDLE, RUNNING, rows};

/// What a server, a database or a role may have set that would break statements that do not expect it.
const HOSTILE: &[&str] = &[
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "idle_session_timeout = '1ms'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "search_path = 'pg_temp'",
    "row_security = off",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "array_nulls = off",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "work_mem = '64kB'",
    "enable_indexscan = off",
    "enable_bitmapscan = off",
    // Such plans are dear enough to be compiled, which takes longer than all else.
    "jit = off",
    "plan_cache_mode = force_generic_plan",
    "check_function_bodies = off",
    "synchronous_commit = off",
];

fn hostile(cluster: &Cluster) -> Vec<&'static str> {
    // One that is shorter lets nobody log in.
    let newer = (cluster.version() >= 17).then_some("transaction_timeout = '300ms'");
    HOSTILE.iter().copied().chain(newer).collect()
}

/// Tests go on as this superuser, whatever is set for others.
const EXCEPT_FOR_US: &str = "alter role postgres set statement_timeout = 0; alter role postgres set lock_timeout = 0;
    alter role postgres set idle_in_transaction_session_timeout = 0; alter role postgres set idle_session_timeout = 0;
    alter role postgres set search_path = public;
    alter role postgres set default_transaction_isolation = 'read committed'; alter role postgres set row_security = on;
    alter role postgres set datestyle = 'ISO'";

#[test]
fn no_setting_of_the_server_the_database_or_the_role_breaks_workers_or_the_scheduler() {
    let cluster = with_every_kind(&[]);
    cluster.sql(EXCEPT_FOR_US);
    if cluster.version() >= 17 {
        cluster.sql("alter role postgres set transaction_timeout = 0");
    }
    cluster.sql("update naps set seconds = 0.6");
    let hostile = hostile(&cluster);
    let mut count = 0;
    for place in ["server", "database", "role"] {
        match place {
            "server" => cluster.configure(&hostile),
            "database" => {
                hostile.iter().for_each(|setting| cluster.sql(&format!("alter database postgres set {setting}")));
            }
            _ => hostile.iter().for_each(|setting| cluster.sql(&format!("alter role alice set {setting}"))),
        }
        cluster.stop("fast");
        cluster.start();
        cluster.wait_for("select count(*) from kongtask.workers where role = 'alice' and state = 'idle'", "4");
        let mut db = cluster.connect();
        let workers = rows(&mut db, "select pid from kongtask.workers order by 1");
        let complaints = || cluster.log_lines(&["ERROR", "WARNING", "FATAL", "PANIC"]);
        // A worker that was being started when the server stopped says so.
        let before = complaints().len();
        for _ in 0..5 {
            count += every_kind::add(&mut db, count + 1).expect("add_job");
        }
        count += 1;
        db.batch_execute(&format!("select graphile_worker.add_job('rest', '{count}')")).expect("add_job");
        drains_once(&cluster, count);
        assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers, "{place}\n{}", cluster.log());
        let ours = complaints().split_off(before);
        assert!(!ours.iter().any(|line| line.contains(" kongtask ")), "{place}: {ours:?}");
    }
}

/// The handler is not to blame for what the queue's own statements wait for.
#[test]
fn lock_timeout_does_not_fail_a_job_whose_queue_somebody_adds_to() {
    let cluster = with_every_kind(&["kongtask.workers = 1"]);
    cluster.sql("alter role alice set lock_timeout = '1ms'; update naps set seconds = 0.5");
    cluster.wait_for(IDLE, "1");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers");
    cluster.sql("select graphile_worker.add_job('rest', '1', queue_name := 'q')");
    cluster.wait_for(RUNNING, "1");
    let mut db = cluster.connect();
    db.batch_execute(
        "begin; select graphile_worker.add_job('note', '2', queue_name := 'q'); select pg_sleep(1); commit",
    )
    .expect("add_job");
    cluster.wait_for("select string_agg(n::text, ',' order by at) from done", "1,2");
    // Nor is the worker.
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
    assert!(!cluster.log().contains("failed on attempt"), "{}", cluster.log());
}

#[test]
fn hostile_defaults_of_a_role_do_not_stop_its_worker() {
    let cluster = with_note(&["kongtask.workers = 1"]);
    cluster.sql(
        "alter role postgres set default_transaction_isolation = serializable;
         alter role postgres set search_path = nowhere;
         alter role postgres set default_transaction_deferrable = on;
         create function quiet() returns void language sql as 'select 1';",
    );
    cluster.sql("set search_path = public; select kongtask.register_task('quiet', 'public.quiet()')");
    cluster.sql("alter role postgres set default_transaction_read_only = on");
    cluster.sql("set default_transaction_read_only = off; select pg_terminate_backend(pid) from kongtask.workers");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "1");
    cluster.sql("begin read write; select graphile_worker.add_job('quiet'); commit");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}
