//! Schemas that graphile-worker made, taken over with all that is in them; and the way back.

use kongtask_tests::docs::blocks;
use kongtask_tests::reference::Worker;
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::{Cluster, describe, error, kongtask, reference, rows, text};
use postgres::Client;

const VERSION: &str = "0.12.2";
const LATEST: usize = 9;

/// Jobs in every state, and people with rights, as they were when graphile-worker was at this migration.
fn populate(app: &mut Client, migration: usize) {
    let key = |key: &str| if migration >= 2 { format!(", job_key := '{key}'") } else { String::new() };
    app.batch_execute(&format!(
        "select graphile_worker.add_job('plain', '{{\"a\":  1}}');
         select graphile_worker.add_job('queued', '{{}}', 'q'{});
         select graphile_worker.add_job('future', '{{}}', 'q', now() + interval '1 day'{});
         select graphile_worker.add_job('few', '{{}}', 'r', now(), 1);
         select graphile_worker.add_job('last', '{{}}', 'other');
         update graphile_worker.jobs set priority = -1 where task_identifier in ('few', 'queued');
         select graphile_worker.get_job('an-external-worker', '{{few}}');
         select graphile_worker.fail_job('an-external-worker', 4, 'it failed');
         select graphile_worker.get_job('an-external-worker', '{{queued}}');
         delete from graphile_worker.jobs where task_identifier = 'last';
         grant usage on schema graphile_worker to web, reader;
         grant execute on function graphile_worker.add_job to web with grant option;
         grant select on graphile_worker.jobs to reader;
         grant update (priority) on graphile_worker.jobs to reader;
         create view public.overview as select task_identifier, count(*) from graphile_worker.jobs group by 1;",
        key("k"),
        key("l"),
    ))
    .unwrap_or_else(|e| panic!("{}", describe(&e)));
    if migration >= 8 {
        app.batch_execute("insert into graphile_worker.known_crontabs values ('c', now())").expect("a crontab");
    }
}

/// A database of role app's, with graphile-worker's schema in it at a migration.
fn with_reference(cluster: &Cluster, database: &str, migration: usize) -> Client {
    cluster.sql(&format!("create database {database} owner app"));
    let mut app = cluster.connect_as("app", database);
    app.batch_execute("grant create on schema public to app").expect("a grant");
    reference::install(&mut app, VERSION, migration, "graphile_worker");
    app
}

fn cluster() -> Cluster {
    let cluster = Cluster::with(&["kongtask.workers = 2"]);
    cluster.sql("create role app login; create role web login; create role reader login");
    cluster
}

/// The statement that the documentation has for it.
fn adopt() -> String {
    let [statement] = &blocks("sql adopt")[..] else { panic!("not one block of adoption") };
    statement.clone()
}

#[test]
fn every_migration_ends_as_a_fresh_installation_and_keeps_everything() {
    let cluster = cluster();
    cluster.sql("create database fresh");
    cluster.reload(&["kongtask.databases = ''"]);
    let mut fresh = cluster.connect_as("postgres", "fresh");
    fresh.batch_execute("create extension kongtask").expect("create extension");
    let fresh = snapshot(&mut fresh, "graphile_worker");
    for migration in 1..=LATEST {
        // Beside it, the same jobs go through the migrations of graphile-worker's own.
        let mut app = with_reference(&cluster, &format!("d{migration}"), migration);
        populate(&mut app, migration);
        let beside = format!("m{migration}");
        drop(app);
        cluster.sql(&format!("create database {beside} template d{migration}"));
        let mut theirs = cluster.connect_as("postgres", &beside);
        reference::migrate(&mut theirs, VERSION, migration + 1..=LATEST, "graphile_worker");
        let mut db = cluster.connect_as("postgres", &format!("d{migration}"));
        db.batch_execute(&adopt()).unwrap_or_else(|e| panic!("{migration}: {}", describe(&e)));

        for query in [
            // Not updated_at, which tells when their migration 2 was.
            "select id, queue_name, task_identifier, payload, priority, run_at, attempts, max_attempts, last_error,
               created_at, key, locked_at, locked_by, revision, flags from graphile_worker.jobs order by id",
            "select * from graphile_worker.known_crontabs",
            "select last_value, is_called from graphile_worker.jobs_id_seq",
            "select id from graphile_worker.migrations order by id",
            "select * from public.overview order by 1",
        ] {
            assert_eq!(rows(&mut db, query), rows(&mut theirs, query), "{migration}: {query}");
        }
        // A row of theirs that is no lock says nothing here.
        let held =
            "select queue_name, 1, locked_at, locked_by from graphile_worker.job_queues where locked_at is not null";
        let queues = "select queue_name, job_count, locked_at, locked_by from graphile_worker.job_queues";
        assert_eq!(rows(&mut db, queues), rows(&mut theirs, held), "{migration}");
        let adopted = snapshot(&mut db, "graphile_worker");
        let but_rights = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !line.starts_with("rights ")).cloned().collect()
        };
        assert_same(&format!("migration {migration}"), &but_rights(&adopted), &but_rights(&fresh));

        // Who had the tables reads and changes them, and calls the functions; who had rights has them.
        let mut app = cluster.connect_as("app", &format!("d{migration}"));
        app.batch_execute(
            "select count(*) from graphile_worker.jobs; select graphile_worker.add_job('by app');
             update graphile_worker.jobs set priority = 5 where task_identifier = 'by app';
             delete from graphile_worker.jobs where task_identifier = 'by app';
             select * from graphile_worker.get_job('an-external-worker', '{plain}');
             insert into graphile_worker.known_crontabs values ('new', now());
             select id from graphile_worker.migrations; select * from overview",
        )
        .unwrap_or_else(|e| panic!("{migration}: {}", describe(&e)));
        assert_eq!(text(&mut app, "select count(*) from graphile_worker.jobs"), "4", "{migration}");
        let mut web = cluster.connect_as("web", &format!("d{migration}"));
        web.batch_execute("select graphile_worker.add_job('by web')").expect("web adds jobs");
        assert_eq!(error(&mut web, "select from graphile_worker.jobs").0, "42501");
        for right in [
            "has_function_privilege('web', 'graphile_worker.add_job', 'execute with grant option')",
            "has_table_privilege('reader', 'graphile_worker.jobs', 'select')",
            "has_column_privilege('reader', 'graphile_worker.jobs', 'priority', 'update')",
            "not has_column_privilege('reader', 'graphile_worker.jobs', 'attempts', 'update')",
            "not has_function_privilege('reader', 'graphile_worker.add_job', 'execute')",
            "not has_table_privilege('app', 'graphile_worker.jobs', 'trigger')",
        ] {
            let right = right.replace(
                "'graphile_worker.add_job'",
                "(select oid from pg_proc where proname = 'add_job' and pronamespace = 'graphile_worker'::regnamespace)",
            );
            assert_eq!(text(&mut db, &format!("select {right}")), "t", "{migration}: {right}");
        }
    }
}

#[test]
fn what_only_kongtask_made_is_gone_too() {
    let cluster = cluster();
    cluster.reload(&["kongtask.databases = ''"]);
    cluster.sql("create database fresh");
    let mut fresh = cluster.connect_as("postgres", "fresh");
    fresh.batch_execute("create extension kongtask").expect("create extension");
    let but_rights = |db: &mut Client| -> Vec<String> {
        snapshot(db, "graphile_worker").into_iter().filter(|line| !line.starts_with("rights ")).collect()
    };
    let fresh = but_rights(&mut fresh);
    for (state, migration) in [("without_flags", 5), ("at_8", 8), ("at_9", 9)] {
        cluster.sql(&format!("create database {state} owner app"));
        let mut app = cluster.connect_as("app", state);
        app.batch_execute("grant create on schema public to app").expect("a grant");
        if migration == 5 {
            kongtask::install_without_flags(&mut app);
        } else {
            kongtask::install(&mut app, migration);
        }
        populate(&mut app, migration);
        app.batch_execute("comment on column graphile_worker.jobs.id is 'by somebody'").expect("a comment");
        let jobs =
            "select id, queue_name, task_identifier, payload, priority, run_at, attempts, max_attempts, last_error,
          created_at, updated_at, key, locked_at, locked_by, revision from graphile_worker.jobs order by id";
        let before = rows(&mut app, jobs);
        let mut db = cluster.connect_as("postgres", state);
        db.batch_execute(&adopt()).unwrap_or_else(|e| panic!("{state}: {}", describe(&e)));
        assert_eq!(rows(&mut db, jobs), before, "{state}");
        if migration >= 8 {
            assert_eq!(text(&mut db, "select identifier from graphile_worker.known_crontabs"), "c");
        }
        assert_same(state, &but_rights(&mut db), &fresh);
    }
}

#[test]
fn what_is_taken_over_is_run_at_once_and_survives_a_dump_with_its_rights() {
    let cluster = cluster();
    let mut app = with_reference(&cluster, "shop", LATEST);
    populate(&mut app, LATEST);
    app.batch_execute(
        "create table done (task text);
         create function note(j graphile_worker.jobs) returns void language sql as
           $$ insert into public.done values (j.task_identifier) $$;",
    )
    .expect("a handler");
    let said = cluster.client_program("psql", &["-d", "shop", "-c", &adopt()]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains(
            "NOTICE:  took over schema graphile_worker (graphile-worker's migration 9) with 4 jobs in 2 queues"
        ),
        "{said}"
    );
    let mut db = cluster.connect_as("postgres", "shop");
    // The function took rows of what is still the same table.
    db.batch_execute("select kongtask.register_task('plain', 'note(graphile_worker.jobs)')").expect("register");
    let done = kongtask_tests::wait_until(kongtask_tests::SOON, || text(&mut db, "select task from done") == "plain");
    assert!(done, "{}", cluster.log());

    cluster.sql("create database copy");
    let dump = cluster.client_program("pg_dump", &["-Fc", "shop"]).stdout;
    cluster.restore(&dump, "copy", &[]);
    let mut copy = cluster.connect_as("postgres", "copy");
    assert_same("a dump", &snapshot(&mut copy, "graphile_worker"), &snapshot(&mut db, "graphile_worker"));
    let mut app = cluster.connect_as("app", "copy");
    assert_eq!(text(&mut app, "select count(*) from graphile_worker.jobs"), "3");
}

#[test]
fn a_worker_that_runs_meanwhile_goes_on() {
    let cluster = cluster();
    let mut app = with_reference(&cluster, "shop", LATEST);
    app.batch_execute("create table done (job bigint)").expect("a table");
    let worker = Worker::start(
        &cluster,
        ("app", "shop"),
        VERSION,
        &[("there", "await helpers.query('insert into done values ($1)', [helpers.job.id]);")],
        "",
        &[],
    );
    worker.wait_until_it_listens(&cluster);
    let mut done = |jobs: &str| {
        app.batch_execute("select graphile_worker.add_job('there')").expect("add_job");
        let came = kongtask_tests::wait_until(kongtask_tests::SOON, || {
            text(&mut app, "select string_agg(job::text, ' ' order by job) from done") == jobs
        });
        assert!(came, "{jobs}\n{}", worker.log());
    };
    done("1");
    done("1 2");
    cluster.connect_as("postgres", "shop").batch_execute(&adopt()).unwrap_or_else(|e| panic!("{}", describe(&e)));
    done("1 2 3");
    done("1 2 3 4");
}

#[test]
fn what_cannot_be_taken_over_is_refused_and_left_as_it_was() {
    let cluster = cluster();
    with_reference(&cluster, "template", LATEST);
    let hint_to_move = "To have both";
    for (number, (change, message, detail, hint)) in [
        (
            "insert into graphile_worker.migrations values (10)",
            "schema graphile_worker cannot be taken over: its latest migration is 10",
            "migrations 1 to 9",
            hint_to_move,
        ),
        (
            "delete from graphile_worker.migrations",
            "schema graphile_worker cannot be taken over: its latest migration is none",
            "migrations 1 to 9",
            hint_to_move,
        ),
        ("create table graphile_worker.mine (id int)", "graphile-worker did not make", "table mine", "Drop them"),
        ("create view graphile_worker.v as select 1", "graphile-worker did not make", "view v", "Drop them"),
        (
            "create function graphile_worker.add_job(int) returns int language sql as 'select 1'",
            "graphile-worker did not make",
            "function add_job(integer)",
            "Drop them",
        ),
        (
            "create function public.f() returns trigger language plpgsql as $$ begin return new; end $$;
             create trigger _900_notify_worker_too before insert on graphile_worker.jobs for each row execute function f()",
            "graphile-worker did not make",
            "trigger _900_notify_worker_too on table jobs",
            "Drop them",
        ),
        (
            "create function public.f() returns trigger language plpgsql as $$ begin return new; end $$;
             drop trigger _100_timestamps on graphile_worker.jobs;
             create trigger _100_timestamps before update on graphile_worker.jobs for each row execute function f()",
            "graphile-worker did not make",
            "trigger _100_timestamps on table jobs",
            "Drop them",
        ),
        (
            "create rule r as on insert to graphile_worker.jobs do also notify x",
            "graphile-worker did not make",
            "rule r on table jobs",
            "Drop them",
        ),
        (
            "create policy p on graphile_worker.jobs using (true)",
            "graphile-worker did not make",
            "policy p on table jobs",
            "Drop them",
        ),
        (
            "create table public.child () inherits (graphile_worker.jobs)",
            "graphile-worker did not make",
            "inheritance of public.child",
            "Drop them",
        ),
        (
            "alter table graphile_worker.job_queues set unlogged",
            "graphile-worker did not make",
            "table job_queues, which is not permanent",
            "Drop them",
        ),
        (
            "alter table graphile_worker.jobs add column tenant int",
            "not as graphile-worker made them",
            "jobs 17 tenant integer is not graphile-worker's",
            "Undo",
        ),
        (
            "alter table graphile_worker.jobs alter column max_attempts set default 3",
            "not as graphile-worker made them",
            "jobs 8 max_attempts integer not null default 25 is missing; jobs 8 max_attempts integer not null default 3 is not",
            "Undo",
        ),
        (
            "alter table graphile_worker.known_crontabs alter column known_since set default '2020-01-01'",
            "not as graphile-worker made them",
            "known_crontabs 2 known_since timestamp with time zone not null default '2020-01-01",
            "Undo",
        ),
        (
            "create index idx_known_crontabs_last_execution on graphile_worker.known_crontabs (last_execution desc)",
            "not as graphile-worker made them",
            "CREATE INDEX idx_known_crontabs_last_execution ON",
            "Undo",
        ),
        (
            "set default_transaction_isolation = 'repeatable read'",
            "cannot be taken over in a transaction at isolation level repeatable read",
            "does not see what other transactions commit",
            "READ COMMITTED",
        ),
        (
            "create index mine on graphile_worker.jobs (task_identifier)",
            "not as graphile-worker made them",
            "CREATE INDEX mine ON",
            "Undo",
        ),
        (
            "alter table graphile_worker.jobs add check (priority < 100)",
            "not as graphile-worker made them",
            "jobs: CHECK (priority < 100)",
            "Undo",
        ),
        (
            "create function public.f() returns text begin atomic select last_error from graphile_worker.remove_job('k'); end",
            "something depends on a function that is replaced",
            "function public.f() depends on function remove_job(text)",
            "Drop what depends",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let database = format!("d{number}");
        cluster.sql(&format!("create database {database} template template"));
        let mut db = cluster.connect_as("postgres", &database);
        db.batch_execute(change).unwrap_or_else(|e| panic!("{change}: {}", describe(&e)));
        // Without what is random in it.
        let dump = || {
            let dump = cluster.client_program("pg_dump", &[&database]).stdout;
            let dump = String::from_utf8(dump).expect("UTF-8");
            dump.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
        };
        let before = dump();
        let failure = db.batch_execute(&adopt()).expect_err(change);
        let failure = failure.as_db_error().expect("an error of the server's");
        assert!(["55000", "2BP01"].contains(&failure.code().code()), "{change}: {failure}");
        assert!(failure.message().contains(message), "{change}: {}", failure.message());
        assert!(failure.detail().unwrap_or_default().contains(detail), "{change}: {:?}", failure.detail());
        assert!(failure.hint().unwrap_or_default().contains(hint), "{change}: {:?}", failure.hint());
        assert_eq!(text(&mut db, "select count(*) from pg_extension where extname = 'kongtask'"), "0");
        assert!(dump() == before, "{change}: the database has changed");
    }
    // By default nothing is taken over.
    cluster.sql("create database unasked template template");
    let (code, message) = error(&mut cluster.connect_as("postgres", "unasked"), "create extension kongtask");
    assert_eq!((code.as_str(), message.as_str()), ("55000", "schema graphile_worker is not empty"));
}

#[test]
fn the_way_back_keeps_the_jobs() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 2", "kongtask.shutdown_timeout = '500ms'"]);
    cluster.sql(
        "create table done (job bigint);
         create function nap(p json) returns void language plpgsql as $$ begin
           insert into public.done values ((kongtask.current_job()).id); perform pg_sleep(60); end $$;
         select kongtask.register_task('nap', 'nap(json)');
         select graphile_worker.add_job('nap', '{\"a\":  1}', 'q');
         select graphile_worker.add_job('there', '{}', 'q', now() + interval '1 day', job_key := 'k');
         select graphile_worker.add_job('there', '{}', 'r');
         select graphile_worker.get_job('an-external-worker', '{there}');
         insert into graphile_worker.known_crontabs values ('c', '2020-01-01')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    let queries = [
        "select id, queue_name, task_identifier, payload, priority, run_at, max_attempts, created_at, key, revision, flags
         from graphile_worker.jobs order by id",
        "select id, locked_by, locked_at from graphile_worker.jobs where id = 3",
        "select queue_name, count(*) from graphile_worker.jobs where queue_name is not null group by 1 order by 1",
        "select locked_by, locked_at from graphile_worker.job_queues where queue_name = 'r'",
        "select * from graphile_worker.known_crontabs",
        "select last_value, is_called from graphile_worker.jobs_id_seq",
    ];
    let mut db = cluster.connect();
    let before: Vec<_> = queries.iter().map(|query| rows(&mut db, query)).collect();
    db.batch_execute(&blocks("sql before")[0]).unwrap_or_else(|e| panic!("{}", describe(&e)));
    if text(&mut db, "select count(*) from pg_available_extensions where name = 'pgcrypto'") == "1" {
        let mut install = Worker::start(&cluster, ("postgres", "postgres"), VERSION, &[], "", &["--schema-only"]);
        assert!(install.end(), "{}", install.log());
    } else {
        // Its own installation asks for pgcrypto.
        reference::install(&mut db, VERSION, LATEST, "graphile_worker");
    }
    db.batch_execute(&blocks("sql after")[0]).unwrap_or_else(|e| panic!("{}", describe(&e)));
    for (query, before) in queries.iter().zip(&before) {
        assert_eq!(&rows(&mut db, query), before, "{query}");
    }
    assert_eq!(
        rows(&mut db, "select queue_name, job_count from graphile_worker.job_queues order by 1"),
        ["q|2", "r|1"]
    );
    // What ran here did nothing, and is free.
    assert_eq!(text(&mut db, "select count(*) from done"), "0");
    assert_eq!(
        text(&mut db, "select locked_by is null and locked_at is null from graphile_worker.jobs where id = 1"),
        "t"
    );
    assert_eq!(text(&mut db, "select count(*) from pg_namespace where nspname in ('kept', 'kongtask')"), "0");
    let _worker = Worker::start(
        &cluster,
        ("postgres", "postgres"),
        VERSION,
        &[("nap", "await helpers.query('insert into done values ($1)', [helpers.job.id]);")],
        "",
        &[],
    );
    cluster.wait_for("select job from done", "1");
}
