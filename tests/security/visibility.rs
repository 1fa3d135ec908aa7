//! Who sees what.

use crate::{cluster, outcome, run_as};
use kongtask_tests::{rows, text};

#[test]
fn the_view_of_workers_hides_what_others_run() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "create role member login; create role statistics login; create role monitor login; create role watcher login;
         grant alice to member; grant pg_read_all_stats to statistics; grant pg_monitor to monitor;
         grant usage on schema kongtask to public; grant select on kongtask.workers to public;
         grant execute on function kongtask.live_workers to public;",
    );
    run_as(
        &cluster,
        "alice",
        "create function app.nap() returns void language sql as 'select pg_sleep(600)';
         select kongtask.register_task('nap', 'app.nap()')",
    );
    run_as(
        &cluster,
        "bob",
        "create function app.do() returns void language sql as ''; select kongtask.register_task('do', 'app.do()')",
    );
    cluster.sql("select graphile_worker.add_job('nap')");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    let query = "select role, state, pid is not null, since is not null, job_id, task_identifier from kongtask.workers
        where role = 'alice'";
    for role in ["postgres", "alice", "member", "statistics", "monitor"] {
        let mut db = cluster.connect_as(role, "postgres");
        assert_eq!(rows(&mut db, query), ["alice|running|t|t|1|nap"], "{role}");
    }
    for role in ["watcher", "bob", "web", "mallory", "node"] {
        let mut db = cluster.connect_as(role, "postgres");
        assert_eq!(rows(&mut db, query), ["alice|running|t|t||"], "{role}");
        let activity =
            "select query from pg_stat_activity where pid = (select pid from kongtask.workers where role = 'alice')";
        assert_eq!(text(&mut db, activity), "<insufficient privilege>", "{role}");
    }
}

#[test]
fn nobody_but_workers_sees_payloads() {
    let cluster = cluster(&["kongtask.workers = 0"]);
    cluster.sql(
        "select graphile_worker.add_job('t', '{\"secret\": 1}', job_key := 'k') from generate_series(1, 3);
         update graphile_worker.jobs set last_error = 'secret';
         analyze graphile_worker.jobs;
         create role reader login; grant usage on schema graphile_worker to reader;
         grant select on graphile_worker.jobs to reader;
         create role half login; grant usage on schema graphile_worker to half;
         grant select (id, task_identifier) on graphile_worker.jobs to half;",
    );
    for (role, statement, expected) in [
        ("node", "select count(*) from graphile_worker.jobs where payload::text ~ 'secret'", "1"),
        // Who was granted too much sees no row: row level security shows them to those who may call get_job.
        ("reader", "select count(*) from graphile_worker.jobs", "0"),
        ("reader", "select count(*) from pg_stats where tablename = 'jobs'", "0"),
        ("half", "select count(id) from graphile_worker.jobs", "0"),
    ] {
        assert_eq!(text(&mut cluster.connect_as(role, "postgres"), statement), expected, "{role}: {statement}");
    }
    for (role, statement) in [
        ("half", "select payload from graphile_worker.jobs"),
        ("half", "select jobs from graphile_worker.jobs"),
        ("half", "select id from graphile_worker.jobs where payload::text ~ 'secret'"),
        ("reader", "insert into graphile_worker.jobs (task_identifier) values ('t')"),
        ("web", "select id from graphile_worker.jobs"),
        ("mallory", "select id from graphile_worker.jobs"),
        ("alice", "select id from graphile_worker.jobs"),
    ] {
        assert_eq!(outcome(&mut cluster.connect_as(role, "postgres"), statement), "42501", "{role}: {statement}");
    }
    // Who asks for rows without the policies is refused, rather than shown them.
    let mut reader = cluster.connect_as("reader", "postgres");
    assert_eq!(outcome(&mut reader, "set row_security = off; select count(*) from graphile_worker.jobs"), "42501");
    for role in ["web", "alice", "mallory"] {
        let mut db = cluster.connect_as(role, "postgres");
        assert_eq!(text(&mut db, "select count(*) from pg_stats where schemaname ~ 'graphile_worker|kongtask'"), "0");
    }
}

#[test]
fn replacing_a_job_does_not_show_what_it_was() {
    let cluster = cluster(&["kongtask.workers = 0"]);
    cluster.sql(
        "select graphile_worker.add_job('t', '{\"secret\": 1}', job_key := 'k');
         update graphile_worker.jobs set last_error = 'secret'",
    );
    let mut web = cluster.connect_as("web", "postgres");
    for mode in ["replace", "preserve_run_at"] {
        let add = format!(
            "select graphile_worker.add_job('t', '[]', job_key := 'k', job_key_mode := '{mode}')::text ~ 'secret'"
        );
        assert_eq!(text(&mut web, &add), "f", "{mode}");
    }
}
