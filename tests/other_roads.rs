//! Data that arrives by other roads than add_job: dumps whose roles are missing, sections of a dump, logical replication.

use kongtask_tests::docs::blocks;
use kongtask_tests::{Cluster, SOON, describe, rows, text, wait_until};

const JOBS: &str = "select count(*) from graphile_worker.jobs";

/// Roles, each with a task that notes its jobs, and a job of each.
fn with_tasks_of(roles: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&["kongtask.databases = ''"]);
    cluster.sql(
        "create table done (who text, job text primary key); grant insert on done to public;
         create function note(payload json) returns void language sql as
           $$ insert into public.done values (current_user, payload #>> '{}') $$;
         grant usage on schema kongtask to public; grant execute on function kongtask.register_task to public",
    );
    for role in roles {
        cluster.sql(&format!("create role {role} login"));
        let task = role.trim_matches('"');
        cluster
            .connect_as(task, "postgres")
            .batch_execute(&format!("select kongtask.register_task('of {task}', 'note(json)')"))
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
        cluster.sql(&format!("select graphile_worker.add_job('of {task}', '\"{task}\"')"));
    }
    cluster
}

#[test]
fn tasks_of_a_role_that_is_missing_wait_for_it_and_others_run() {
    let source = with_tasks_of(&["alice", "\"Bob\""]);
    let dump = source.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    let target = Cluster::with(&[]);
    target.sql("create role \"Bob\" login");
    // What it says of grants to a role that is not there is for whoever reads it.
    target.restore(&dump, "postgres", &["--no-privileges"]);
    target.sql("grant insert on done to public");
    target.wait_for("select who from done", "Bob");
    assert_eq!(
        rows(&mut target.connect(), "select identifier, role, runs_as from kongtask.tasks order by 1"),
        ["of Bob|\"Bob\"|\"Bob\"", "of alice|alice|"]
    );
    target.wait_for_log("jobs of 1 tasks wait because the roles of these tasks do not exist");
    target.wait_for_log("DETAIL:  Tasks: \"of alice\" (role alice).");
    // It is registered here all the same.
    assert_eq!(text(&mut target.connect(), JOBS), "1");
    target.sql("create role alice login");
    target.wait_for("select string_agg(who, ',' order by who) from done", "Bob,alice");
    target.wait_for(JOBS, "0");
    assert_eq!(target.log().matches("jobs of 1 tasks wait").count(), 1);
    assert_eq!(target.log_lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn a_renamed_role_keeps_its_tasks_and_another_of_its_former_name_has_none() {
    let cluster = with_tasks_of(&["alice"]);
    cluster.reload(&["kongtask.databases = '*'"]);
    cluster.wait_for("select who from done", "alice");
    cluster.sql("alter role alice rename to \"Alice\"; create role alice login; truncate done");
    cluster.sql("select graphile_worker.add_job('of alice', '1')");
    cluster.wait_for("select who from done", "Alice");
    // As a dump is to have it.
    cluster.wait_for("select role || ' ' || runs_as from kongtask.tasks", "\"Alice\" \"Alice\"");
    let register = "select kongtask.register_task('of alice', 'note(json)')";
    let refused = cluster.connect_as("alice", "postgres").batch_execute(register).expect_err("another's");
    assert!(describe(&refused).starts_with("42501"), "{}", describe(&refused));
    // A role that is dropped and made again has nothing of the former one's.
    cluster.sql("drop role \"Alice\"; create role \"Alice\" login; truncate done");
    cluster.wait_for_log("jobs of 1 tasks wait because the roles of these tasks do not exist");
    cluster.wait_for("select role ~ '^[0-9]+$' and runs_as is null from kongtask.tasks", "t");
    cluster.sql("select graphile_worker.add_job('of alice', '2')");
    let mut alice = cluster.connect_as("Alice", "postgres");
    let refused = alice.batch_execute(register).expect_err("another's");
    assert!(describe(&refused).starts_with("42501"), "{}", describe(&refused));
    assert_eq!(text(&mut cluster.connect(), "select count(*) from done"), "0");
    // A superuser's word gives it away.
    cluster.sql("select kongtask.unregister_task('of alice')");
    alice.batch_execute(register).expect("nobody's");
    cluster.wait_for("select who from done", "Alice");
    assert_eq!(cluster.log_lines(&["FATAL"]), Vec::<String>::new());
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

/// A dump's source: jobs that note whether all of their table was there when they ran. Nobody runs them here.
fn with_a_watchful_task() -> Cluster {
    let cluster =
        Cluster::with_extension(&["kongtask.databases = ''", "kongtask.workers = 2", "max_worker_processes = 40"]);
    cluster.sql(
        "create table done (job text primary key, was_whole boolean);
         create function note(payload json) returns void language sql as
           $$ insert into public.done select payload #>> '{}', exists (select from pg_index where indexrelid = to_regclass('public.done_pkey')) $$;
         select kongtask.register_task('note', 'note(json)');
         select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 5) n",
    );
    cluster
}

const DONE: &str = "select count(*) || ' ' || bool_and(was_whole) from done";
const HOLDS: &str = "select reason from kongtask.holds where database = current_database()";
const LOADING: &str = "a session is loading a dump";
const WAITING: &str = "a dump has been loaded, and its indexes and constraints are still to come";

/// Waits until a query in a database answers this.
fn wait_for(cluster: &Cluster, database: &str, query: &str, expected: &str) {
    let mut db = cluster.connect_as("postgres", database);
    let mut last = String::new();
    let came = wait_until(SOON, || {
        last = text(&mut db, query);
        last == expected
    });
    assert!(came, "{query}: {last:?}, not {expected:?}\n{}", cluster.log());
}

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
