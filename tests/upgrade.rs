//! The same schema, and the jobs still there, however it came about: installed, upgraded, restored, carried to a newer server.

use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::{Cluster, SOON, Server, rows, say, text, wait_until};

/// A task that notes its jobs, and jobs in every state: one is held by a worker of ours that is no more.
const LIVE: &str = "create table done (job bigint, at timestamptz default clock_timestamp());
    create index on done (job);
    create role worker;
    create function note(j graphile_worker.jobs) returns void language sql as
      $$ insert into public.done (job) values (j.id) $$;
    select kongtask.register_task('note', 'note(graphile_worker.jobs)');
    select graphile_worker.add_job('note', '{\"a\":  1}', 'q') from generate_series(1, 3);
    select graphile_worker.add_job('note', job_key := 'k', run_at := now() + interval '1 day', flags := '{f}');
    select graphile_worker.add_job('note');
    select graphile_worker.add_job('elsewhere', max_attempts := 1, queue_name := 'q');
    select graphile_worker.get_job('external-worker', '{elsewhere}');
    select graphile_worker.fail_job('external-worker', 6, 'failed');
    update graphile_worker.jobs set attempts = 25, locked_at = now(), locked_by = 'kongtask:0123456789abcdef' where id = 1;
    delete from graphile_worker.job_queues;
    insert into graphile_worker.job_queues (queue_name, job_count, locked_at, locked_by) values ('q', 4, now(), 'kongtask:0123456789abcdef');
    insert into graphile_worker.known_crontabs values ('c', '2020-01-01', '2021-01-01');";

/// What is asked of the rights that a dump takes along.
const GRANT: &str = "grant execute on function graphile_worker.add_job to worker";

/// Its rows, as they must be on the other side, but for what that worker held.
const ROWS: [&str; 5] = [
    "select * from graphile_worker.jobs where id > 1 order by id",
    "select id, queue_name, task_identifier, payload, run_at, created_at, revision from graphile_worker.jobs where id = 1",
    "select * from graphile_worker.known_crontabs",
    "select identifier, handler, role, registered_at from kongtask.tasks",
    "select last_value, is_called from graphile_worker.jobs_id_seq",
];

/// A cluster whose jobs nobody runs, with all of that in its database postgres.
fn asleep(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&[&["kongtask.databases = ''"], settings].concat());
    cluster.sql(LIVE);
    cluster
}

/// What is to run here runs at once, the job of the dead worker too, and first: it heads its queue.
fn assert_runs(cluster: &Cluster, database: &str) {
    let mut db = cluster.connect_as("postgres", database);
    let done = wait_until(SOON, || text(&mut db, "select count(*) from done") == "4");
    assert!(done, "{:?}\n{}", rows(&mut db, "select * from graphile_worker.jobs"), cluster.log());
    assert_eq!(text(&mut db, "select string_agg(job::text, ' ' order by at) from done where job < 4"), "1 2 3");
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from graphile_worker.jobs") == "2"));
    assert_eq!(
        rows(&mut db, "select id, attempts, last_error, locked_by from graphile_worker.jobs order by id"),
        ["4|0||", "6|1|failed|"]
    );
    assert_eq!(rows(&mut db, "select * from graphile_worker.job_queues"), Vec::<String>::new());
}

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
