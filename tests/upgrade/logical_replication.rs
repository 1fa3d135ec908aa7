//! Jobs that arrive by logical replication.

use crate::HOLDS;
use kongtask_tests::docs::blocks;
use kongtask_tests::{Cluster, JOBS, SOON, rows, text, wait_until};

const FED: &str = "an enabled subscription feeds jobs";

/// A cluster that others can follow.
fn with_logical_wal(name: &str) -> Cluster {
    Cluster::with(&["wal_level = logical", "kongtask.workers = 2", &format!("cluster_name = '{name}'")])
}

/// What the page on upgrades without downtime says is to be run here.
fn documented(step: &str) -> String {
    let [block] = &blocks(&format!("sql {step}"))[..] else { panic!("not one block {step}") };
    block.clone()
}

/// Waits until a query has no row.
fn wait_for_no_row(cluster: &Cluster, query: &str) {
    let mut db = cluster.connect();
    let came = wait_until(SOON, || rows(&mut db, query).is_empty());
    assert!(came, "{query}: {:?}\n{}", rows(&mut db, query), cluster.log());
}

#[test]
fn an_upgrade_by_logical_replication_runs_each_job_once() {
    let old = with_logical_wal("old");
    let new = with_logical_wal("new");
    // Twenty jobs of every kind: with a key, in a queue, with neither.
    let add = |from: i32| {
        format!(
            "select graphile_worker.add_job('note', to_json(n), job_key := case when n % 3 > 0 then 'k' || n end,
                queue_name := case when n % 3 = 2 then 'q' || n % 2 end)
             from generate_series({from}, {}) n",
            from + 19
        )
    };
    old.sql(
        "create extension kongtask;
         create table done (job int, at text, id int generated always as identity primary key);
         create function note(payload json) returns void language sql as
           $$ insert into public.done (job, at) values ((payload #>> '{}')::int, current_setting('cluster_name')) $$;
         select kongtask.register_task('note', 'note(json)')",
    );
    old.sql(&add(1));
    let schema = old.client_program("pg_dump", &["--schema-only", "postgres"]).stdout;
    new.run_file(&String::from_utf8(schema).expect("UTF-8"), "postgres");
    old.sql(&documented("publisher"));
    let follow = documented("subscriber");
    assert!(follow.contains("host=old.example.com dbname=app"), "{follow}");
    let address = format!("host={} user=postgres dbname=postgres", old.host());
    for statement in follow.replace("host=old.example.com dbname=app", &address).split(';') {
        new.sql(statement);
    }
    new.wait_for(HOLDS, FED);
    wait_for_no_row(&new, &documented("subscriber-waits"));
    for from in [21, 41, 61] {
        old.sql(&add(from));
    }
    let done =
        "select count(*) || ' ' || count(distinct job) || ' ' || string_agg(distinct at, ' ' order by at) from done";
    old.wait_for(done, "80 80 old");
    new.wait_for(done, "80 80 old");
    new.wait_for(JOBS, "0");
    assert_eq!(text(&mut new.connect(), "select count(*) from kongtask.workers"), "0");
    new.wait_for_log("LOG:  no jobs run in database \"postgres\": subscription \"upgrade\" feeds jobs");

    for statement in documented("publisher-stops").split_inclusive(';') {
        old.sql(statement);
    }
    old.wait_for("select count(*) from kongtask.workers", "0");
    // What waits when that is done, and what a worker of the old server has not let go of.
    old.sql(&add(81));
    old.sql("update graphile_worker.jobs set attempts = 1, locked_at = now(), locked_by = 'kongtask:0123456789abcdef' where id % 7 = 0");
    let last = text(&mut old.connect(), "select last_value from graphile_worker.jobs_id_seq");
    wait_for_no_row(&old, &documented("publisher-waits"));
    assert_eq!(text(&mut new.connect(), JOBS), "20");
    for statement in rows(&mut old.connect(), &documented("publisher-prints")) {
        new.sql(&statement);
    }
    new.sql(&documented("subscriber-switches"));
    new.wait_for(done, "100 100 new old");
    new.wait_for("select count(*) from done where (at = 'new') <> (job > 80)", "0");
    new.wait_for(JOBS, "0");
    new.wait_for(HOLDS, "");
    let next = format!("select id > {last} from graphile_worker.add_job('note', '101')");
    assert_eq!(text(&mut new.connect(), &next), "t");
    new.wait_for(done, "101 101 new old");
    assert_eq!(text(&mut old.connect(), done), "80 80 old");
    assert_eq!(new.log_lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn a_subscription_that_is_disabled_and_enabled_has_jobs_run_and_not() {
    let old = with_logical_wal("old");
    let new = with_logical_wal("new");
    old.sql("create extension kongtask; create publication jobs for table graphile_worker.jobs");
    // Rows of the other tables can be changed where all tables are published.
    old.sql(
        "create publication everything for all tables;
         select kongtask.pause('elsewhere', until := now() + interval '1 hour');
         select kongtask.pause('elsewhere', until := now() + interval '1 second');
         select kongtask.schedule('hourly', '0 * * * *', 'elsewhere'), kongtask.alter_schedule('hourly', cron := '1 * * * *');
         select kongtask.unschedule('hourly')",
    );
    old.wait_for("select count(*) from kongtask.pauses", "0");
    old.sql("drop publication everything");
    assert_eq!(old.log_lines(&["ERROR"]), Vec::<String>::new());
    new.sql(
        "create extension kongtask;
         create table done (job int primary key);
         create function note(payload json) returns void language sql as $$ insert into public.done values ((payload #>> '{}')::int) $$;
         select kongtask.register_task('note', 'note(json)');
         alter sequence graphile_worker.jobs_id_seq restart 1000",
    );
    new.wait_for("select count(*) from kongtask.workers where state = 'idle'", "2");
    new.sql(&format!(
        "create subscription jobs connection 'host={} user=postgres dbname=postgres' publication jobs",
        old.host()
    ));
    // Workers that were there already take nothing either.
    new.sql("select graphile_worker.add_job('note', '1')");
    old.sql("select graphile_worker.add_job('note', '2', job_key := 'k')");
    new.wait_for("select count(*) from kongtask.workers", "0");
    new.wait_for(JOBS, "2");
    new.wait_for(HOLDS, FED);
    assert_eq!(text(&mut new.connect(), "select count(*) from done"), "0");
    new.sql("alter subscription jobs disable");
    new.wait_for("select count(*) from done", "2");
    new.wait_for(HOLDS, "");
    new.sql("alter subscription jobs enable");
    new.wait_for(HOLDS, FED);
    new.sql("select graphile_worker.add_job('note', '3')");
    new.wait_for("select count(*) from kongtask.workers", "0");
    new.sql("drop subscription jobs");
    new.wait_for("select count(*) from done", "3");
}
