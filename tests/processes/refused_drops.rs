//! Drops without CASCADE that something of a user's refuses: no worker stops for them. And those that must go through.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{Cluster, IDLE, RUNNING, describe, text};
use postgres::Client;

/// Objects that refuse a drop, each with what drops it.
const DEPENDENTS: [(&str, &str); 6] = [
    ("create view waiting as select id from graphile_worker.jobs", "drop view waiting"),
    ("create materialized view held as select identifier from kongtask.tasks", "drop materialized view held"),
    ("create function takes(graphile_worker.jobs) returns void language sql as ''", "drop function takes"),
    ("create table kept (id int, job graphile_worker.jobs)", "drop table kept"),
    ("create table kongtask.mine (id int)", "drop table kongtask.mine"),
    (
        "create view a as select id from graphile_worker.jobs; create view b as select queue_name from graphile_worker.jobs",
        "drop view a, b",
    ),
];

/// All of the extension's processes.
const PIDS: &str =
    "select string_agg(pid::text, ',' order by pid) from pg_stat_activity where backend_type ~ '^kongtask'";

fn refusal(db: &mut Client, statement: &str) -> String {
    describe(&db.batch_execute(statement).expect_err(statement))
}

#[test]
fn a_drop_that_is_refused_stops_no_worker_and_says_what_postgres_says() {
    let cluster = with_note_and_nap(&["kongtask.shutdown_timeout = '0'"]);
    // Without the library's hooks, Postgres alone refuses.
    let plain = Cluster::with(&["shared_preload_libraries = ''"]);
    let (mut db, mut other) = (cluster.connect(), plain.connect());
    for db in [&mut db, &mut other] {
        db.batch_execute(
            "create role owner superuser; create role stranger; grant create on schema public to stranger",
        )
        .expect("roles");
    }
    other.batch_execute("create extension kongtask").expect("create extension");
    cluster.sql("select graphile_worker.add_job('nap', '60')");
    cluster.wait_for(RUNNING, "1");
    cluster.wait_for(IDLE, "3");
    let before = text(&mut db, PIDS);
    for (create, drop) in DEPENDENTS {
        let [said, expected] = [&mut db, &mut other].map(|db| {
            db.batch_execute(create).expect(create);
            refusal(db, "drop extension kongtask")
        });
        assert!(said.starts_with("2BP01"), "{said}");
        assert_eq!(said, expected, "{create}");
        assert_eq!(text(&mut db, PIDS), before, "{create}");
        for db in [&mut db, &mut other] {
            db.batch_execute(drop).expect(drop);
        }
    }
    // A search finds a job in place too, and another worker may just look at it.
    cluster.wait_for(RUNNING, "1");
}

#[test]
fn a_drop_owned_that_is_refused_stops_no_worker() {
    let cluster = Cluster::with(&["kongtask.shutdown_timeout = '0'"]);
    let plain = Cluster::with(&["shared_preload_libraries = ''"]);
    let [said, expected] = [(&cluster, "1"), (&plain, "0")].map(|(cluster, schedulers)| {
        let mut db = cluster.connect();
        db.batch_execute(
            "create role owner superuser; set role owner; create extension kongtask; reset role;
             create view waiting as select id from graphile_worker.jobs",
        )
        .expect("create");
        cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", schedulers);
        let before = text(&mut db, PIDS);
        let said = refusal(&mut db, "drop owned by owner");
        assert_eq!(text(&mut db, PIDS), before);
        // What the role owns itself goes with the extension.
        db.batch_execute("alter view waiting owner to owner; drop owned by owner").expect("drop owned");
        assert_eq!(text(&mut db, "select count(*) from pg_extension where extname = 'kongtask'"), "0");
        said
    });
    assert_eq!(said, expected);
}

#[test]
fn a_drop_goes_through_where_what_depends_on_the_extension_goes_too() {
    let cluster = Cluster::with(&["kongtask.shutdown_timeout = '0'"]);
    let mut db = cluster.connect();
    let mut goes = |before: &str, drop: &str| {
        db.batch_execute("create extension kongtask").expect("create extension");
        db.batch_execute(before).expect(before);
        db.batch_execute(drop).expect(drop);
        assert_eq!(text(&mut db, "select count(*) from pg_extension where extname = 'kongtask'"), "0", "{before}");
        db.batch_execute("drop schema if exists graphile_worker cascade").expect("drop schema");
    };
    // Postgres drops these without being told to.
    goes(
        "create index more on graphile_worker.jobs (created_at);
         create function see() returns trigger language plpgsql as 'begin return new; end';
         create trigger see after insert on graphile_worker.jobs for each row execute function see();
         create policy all_see on graphile_worker.jobs using (true)",
        "drop extension kongtask",
    );
    for (create, drop) in DEPENDENTS {
        goes(create, &format!("begin; {drop}; drop extension kongtask; commit"));
        goes(&format!("begin; {create}; rollback"), "drop extension kongtask");
        goes(create, "drop extension kongtask cascade");
    }
    // A function that goes with the extension because it was told to.
    goes(
        "create function follows(graphile_worker.jobs) returns void language sql as '';
         alter function follows depends on extension kongtask",
        "drop extension kongtask",
    );
    // Something drops what refuses before Postgres looks.
    goes(
        "create view waiting as select id from graphile_worker.jobs;
         create function clear() returns event_trigger language plpgsql as 'begin drop view if exists waiting; end';
         create event trigger clear on ddl_command_start when tag in ('DROP EXTENSION') execute function clear()",
        "drop extension kongtask",
    );
}

#[test]
fn a_drop_waits_for_the_session_that_is_dropping_what_refuses_it() {
    let cluster = Cluster::with_extension(&[]);
    let mut first = cluster.connect();
    for (create, drop) in &DEPENDENTS[..4] {
        first.batch_execute(create).expect("create");
        first.batch_execute(&format!("begin; {drop}")).expect("drop");
        let mut second = cluster.connect();
        let pid = text(&mut second, "select pg_backend_pid()");
        std::thread::scope(|scope| {
            let dropping =
                scope.spawn(move || second.batch_execute("drop extension kongtask; create extension kongtask"));
            cluster.wait_for(&format!("select count(*) from pg_locks where pid = {pid} and not granted"), "1");
            first.batch_execute("commit").expect("commit");
            dropping.join().expect("no panic").expect(create);
        });
    }
}
