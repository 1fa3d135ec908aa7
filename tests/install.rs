//! What CREATE EXTENSION leaves behind, and what it refuses.

use kongtask_tests::{Cluster, describe, error, rows, text};

#[test]
fn creates_the_reference_tables_and_nothing_for_public() {
    let cluster = Cluster::with_extension(&[]);
    let mut db = cluster.connect();
    let columns = rows(
        &mut db,
        "select column_name from information_schema.columns
         where table_schema = 'graphile_worker' and table_name = 'jobs' order by ordinal_position",
    );
    let expected = "id queue_name task_identifier payload priority run_at attempts max_attempts last_error created_at \
                    updated_at key locked_at locked_by revision flags";
    assert_eq!(columns.join(" "), expected);
    assert_eq!(
        text(&mut db, "select string_agg(id::text, ',' order by id) from graphile_worker.migrations"),
        "1,2,3,4,5,6,7,8,9"
    );
    assert_eq!(
        text(
            &mut db,
            "select pg_get_expr(indpred, indrelid) from pg_index where indexrelid =
             'graphile_worker.jobs_priority_run_at_id_locked_at_without_failures_idx'::regclass"
        ),
        "(attempts < max_attempts)"
    );
    // Nothing for PUBLIC: neither by a grant nor, for functions, by the lack of one.
    let open = rows(
        &mut db,
        "select proname from pg_proc where pronamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace)
           and (proacl is null or proacl::text ~ '[{,]=')
         union all
         select relname from pg_class where relnamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace)
           and relacl::text ~ '[{,]='
         union all
         select nspname from pg_namespace where nspname in ('graphile_worker', 'kongtask') and nspacl::text ~ '[{,]='",
    );
    assert_eq!(open, Vec::<String>::new());
    let undescribed = rows(
        &mut db,
        "select objid::regproc::text from pg_depend where deptype = 'e' and classid = 'pg_proc'::regclass
           and refobjid = (select oid from pg_extension where extname = 'kongtask')
           and obj_description(objid, 'pg_proc') is null
         union all
         select objid::regclass::text from pg_depend join pg_class on objid = pg_class.oid
         where deptype = 'e' and classid = 'pg_class'::regclass and relkind in ('r', 'v')
           and refobjid = (select oid from pg_extension where extname = 'kongtask')
           and obj_description(objid, 'pg_class') is null and relname <> 'migrations'",
    );
    assert_eq!(undescribed, Vec::<String>::new());
}

#[test]
fn refuses_a_schema_that_exists_and_says_what_to_do() {
    let cluster = Cluster::with(&[]);
    for schema in ["graphile_worker", "kongtask"] {
        let mut db = cluster.connect();
        db.batch_execute(&format!("create schema {schema}")).expect("create schema");
        let failure = db.batch_execute("create extension kongtask").expect_err("the schema exists");
        let failure = failure.as_db_error().expect("an error of the server's");
        assert_eq!(failure.code().code(), "42P06");
        assert_eq!(failure.message(), format!("schema {schema} already exists"));
        assert!(failure.hint().is_some_and(|hint| hint.contains("RENAME TO")), "{:?}", failure.hint());
        db.batch_execute(&format!("drop schema {schema}")).expect("drop schema");
    }
    cluster.sql("create extension kongtask");
}

#[test]
fn temporary_objects_of_the_session_are_not_taken_for_ours() {
    let cluster = Cluster::with(&[]);
    cluster.sql(
        "create temporary table jobs (id int); create temporary table job_queues (id int);
         create temporary table migrations (id int); create temporary table known_crontabs (id int);
         create extension kongtask;",
    );
    assert_eq!(cluster.text("select count(*) from pg_trigger where tgrelid = 'graphile_worker.jobs'::regclass"), "7");
    assert_eq!(cluster.text("select count(*) from graphile_worker.migrations"), "9");
}

#[test]
fn without_the_preload_functions_work_and_a_notice_says_the_rest() {
    let cluster = Cluster::with(&["shared_preload_libraries = ''"]);
    let said = cluster.client_program("psql", &["-c", "create extension kongtask"]).stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("NOTICE:  kongtask is not in shared_preload_libraries"), "{said}");
    assert_eq!(cluster.text("select (graphile_worker.add_job('a')).id"), "1");
    assert_eq!(cluster.text("select id from graphile_worker.get_job('a-worker-id')"), "1");
    assert_eq!(cluster.text("select count(*) from kongtask.workers"), "0");
}

#[test]
fn a_dump_takes_jobs_tasks_and_sequences_along() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 0"]);
    cluster.sql(
        "create function public.handle() returns void language sql as '';
         select kongtask.register_task('t', 'public.handle()');
         select graphile_worker.add_job('t', '{\"n\": 1}', queue_name := 'q');
         select graphile_worker.add_job('t', '{\"n\": 2}', queue_name := 'q', job_key := 'k');
         insert into graphile_worker.known_crontabs values ('c', now());",
    );
    cluster.sql("create database restored");
    let dump = cluster.client_program("pg_dump", &["postgres"]).stdout;
    let mut restored = cluster.connect_as("postgres", "restored");
    let file = tempfile_with(&dump);
    cluster.client_program(
        "psql",
        &["-v", "ON_ERROR_STOP=1", "-q", "-d", "restored", "-f", file.path().to_str().expect("a path")],
    );
    let mut original = cluster.connect();
    for query in [
        "select * from graphile_worker.jobs order by id",
        "select * from graphile_worker.job_queues",
        "select identifier, handler, role from kongtask.tasks",
        "select identifier from graphile_worker.known_crontabs",
        "select last_value, is_called from graphile_worker.jobs_id_seq",
        "select id from graphile_worker.migrations order by id",
    ] {
        assert_eq!(rows(&mut restored, query), rows(&mut original, query), "{query}");
        assert!(!rows(&mut restored, query).is_empty(), "{query}");
    }
}

fn tempfile_with(bytes: &[u8]) -> tempfile::NamedTempFile {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
    file.write_all(bytes).expect("write");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("chmod");
    file
}

#[test]
fn settings_are_checked() {
    let cluster = Cluster::with_extension(&[]);
    let mut db = cluster.connect();
    let settings =
        rows(&mut db, "select name || '=' || setting from pg_settings where name like 'kongtask.%' order by name");
    assert_eq!(
        settings,
        [
            "kongtask.databases=*",
            "kongtask.forbidden_flags=",
            "kongtask.forbidden_flags_function=",
            "kongtask.job_expiry=14400",
            "kongtask.poll_interval=2000",
            "kongtask.shutdown_timeout=5000",
            "kongtask.synchronous_commit=",
            "kongtask.workers=4",
        ]
    );
    for (setting, code) in [
        ("kongtask.synchronous_commit = 'sometimes'", "22023"),
        ("kongtask.workers = -1", "22023"),
        ("kongtask.worker = 1", "42704"),
    ] {
        let failure = db.batch_execute(&format!("alter system set {setting}")).expect_err(setting);
        assert_eq!(failure.as_db_error().map(|e| e.code().code()), Some(code), "{setting}: {}", describe(&failure));
    }
    let (code, _) = error(&mut db, "set kongtask.workers = 2");
    assert_eq!(code, "55P02");
}
