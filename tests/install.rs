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

/// What CREATE EXTENSION says: SQLSTATE, message, hint.
fn refusal(db: &mut postgres::Client, statement: &str) -> (String, String, String) {
    let failure = db.batch_execute(statement).expect_err(statement);
    let failure = failure.as_db_error().expect("an error of the server's");
    assert!(failure.detail().is_some(), "{failure}");
    (failure.code().code().into(), failure.message().into(), failure.hint().unwrap_or_default().into())
}

#[test]
fn refuses_schemas_that_are_in_use_and_says_what_to_do() {
    let cluster = Cluster::with(&[]);
    let mut db = cluster.connect();
    db.batch_execute("create schema kongtask").expect("create schema");
    let (code, message, hint) = refusal(&mut db, "create extension kongtask");
    assert_eq!((code.as_str(), message.as_str()), ("42P06", "schema kongtask already exists"));
    assert!(hint.contains("Rename"), "{hint}");
    db.batch_execute("drop schema kongtask").expect("drop schema");

    db.batch_execute("create schema graphile_worker; create view graphile_worker.v as select 1").expect("a view");
    let (code, message, hint) = refusal(&mut db, "create extension kongtask");
    assert_eq!((code.as_str(), message.as_str()), ("55000", "schema graphile_worker is not empty"));
    assert!(hint.contains("CREATE EXTENSION kongtask SCHEMA graphile_worker"), "{hint}");
    let (code, message, _) = refusal(&mut db, "create extension kongtask schema graphile_worker");
    assert_eq!((code.as_str(), message.as_str()), ("55000", "schema graphile_worker is not empty"));
    db.batch_execute("drop view graphile_worker.v").expect("drop view");

    // Somebody else's empty schema is no place to put things in unasked.
    db.batch_execute("create role squatter; alter schema graphile_worker owner to squatter").expect("a role");
    let (code, message, hint) = refusal(&mut db, "create extension kongtask");
    assert_eq!((code.as_str(), message.as_str()), ("42501", "schema graphile_worker is owned by role squatter"));
    assert!(hint.contains("CREATE EXTENSION kongtask SCHEMA graphile_worker"), "{hint}");
    db.batch_execute("create extension kongtask schema graphile_worker").expect("asked to");
    db.batch_execute("drop extension kongtask; drop schema graphile_worker").expect("drop");
    db.batch_execute("create extension kongtask").expect("create extension");
}

/// Where the queue is, by the extension and by its table.
const WHERE: &str = "select extnamespace::regnamespace || ' ' || (
      select string_agg(relnamespace::regnamespace::text, ',') from pg_class where relname = 'jobs' and relkind = 'r')
    from pg_extension where extname = 'kongtask'";

#[test]
fn the_queue_is_where_create_extension_says_or_in_graphile_worker() {
    let cluster = Cluster::with(&[]);
    for preloaded in [true, false] {
        for (statements, schema) in [
            ("create extension kongtask", "graphile_worker"),
            ("create extension kongtask schema public", "graphile_worker"),
            ("create schema app; set search_path = app, public; create extension kongtask", "graphile_worker"),
            ("create schema app; set search_path = app; create extension kongtask schema app", "app"),
            ("create schema \"A Queue\"; create extension kongtask with schema \"A Queue\"", "\"A Queue\""),
            ("do $$ begin create extension kongtask; end $$", "graphile_worker"),
            ("create schema app; do $$ begin create extension kongtask schema app; end $$", "app"),
        ] {
            cluster.sql("drop database if exists d");
            cluster.sql("create database d");
            let mut db = cluster.connect_as("postgres", "d");
            db.batch_execute(statements).unwrap_or_else(|e| panic!("{statements}: {}", describe(&e)));
            assert_eq!(text(&mut db, WHERE), format!("{schema} {schema}"), "{statements}");
            assert_eq!(text(&mut db, &format!("select id from {schema}.add_job('a')")), "1", "{statements}");
            assert_eq!(text(&mut db, &format!("select id from {schema}.get_job('a-worker-id')")), "1", "{statements}");
            // What is dropped takes nothing else along.
            db.batch_execute("drop extension kongtask").expect("drop extension");
            assert_eq!(text(&mut db, "select count(*) from pg_class where relname ~ 'jobs'"), "0", "{statements}");
            db.batch_execute(&format!("create extension kongtask schema {schema}")).expect("once more");
            assert_eq!(text(&mut db, WHERE), format!("{schema} {schema}"), "{statements}");
        }
        if preloaded {
            cluster.configure(&["shared_preload_libraries = ''"]);
            cluster.stop("fast");
            cluster.start();
        }
    }
}

#[test]
fn a_chosen_schema_works_as_the_usual_one_and_can_be_renamed() {
    let cluster = Cluster::with(&["kongtask.workers = 2"]);
    cluster.sql(
        "create schema jobs_q; create extension kongtask schema jobs_q;
         create table done (job bigint);
         create function note(j jobs_q.jobs) returns void language sql as $$ insert into public.done values (j.id) $$;
         create function bad() returns void language sql as $$ select 1 / 0 $$;
         select kongtask.register_task('note', 'note(jobs_q.jobs)'), kongtask.register_task('bad', 'bad()');
         select jobs_q.add_job('note', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from done", "1");
    cluster.wait_for("select count(*) from jobs_q.jobs", "0");
    // Sessions and workers that have been at it go on under the new name.
    let mut db = cluster.connect();
    db.batch_execute("select jobs_q.add_job('note')").expect("add_job");
    cluster.wait_for("select count(*) from done", "2");
    cluster.sql("alter schema jobs_q rename to \"Jobs\"");
    db.batch_execute("select \"Jobs\".add_job('note', queue_name := 'q')").expect("add_job");
    db.batch_execute("select \"Jobs\".add_job('note', run_at := now() + interval '300 ms')").expect("add_job");
    cluster.wait_for("select count(*) from done", "4");
    db.batch_execute("select \"Jobs\".add_job('bad', max_attempts := 1)").expect("add_job");
    cluster.wait_for("select last_error like 'division by zero (SQLSTATE 22012)%' from \"Jobs\".jobs", "t");
    cluster.wait_for_log("HINT:  The job stays in the table. \"Jobs\".reschedule_jobs gives it");
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
    // The schema goes with everything, workers first.
    cluster.sql("drop schema \"Jobs\" cascade");
    assert_eq!(cluster.text("select count(*) from pg_extension where extname = 'kongtask'"), "0");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type ~ 'kongtask (worker|scheduler)'", "0");
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn temporary_objects_of_the_session_are_not_taken_for_ours() {
    let cluster = Cluster::with(&[]);
    cluster.sql(
        "create temporary table jobs (id int); create temporary table job_queues (id int);
         create temporary table migrations (id int); create temporary table known_crontabs (id int);
         create extension kongtask;",
    );
    assert_eq!(cluster.text("select count(*) from pg_trigger where tgrelid = 'graphile_worker.jobs'::regclass"), "6");
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
fn the_script_of_an_extension_is_not_taken_for_a_dump() {
    let cluster = Cluster::with(&[]);
    let mut db = cluster.connect();
    // Scripts run with check_function_bodies off, as dumps do, and make tables with indexes.
    db.batch_execute("create extension kongtask version '0.2.0'; alter extension kongtask update")
        .expect("the extension");
    let holds: i64 = db.query_one("select count(*) from kongtask.holds", &[]).expect("the holds").get(0);
    assert_eq!(holds, 0);
    assert!(!cluster.log().contains("a dump is being restored"), "{}", cluster.log());
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
            "kongtask.log_min_duration=-1",
            "kongtask.max_databases=1000",
            "kongtask.max_limit_keys=10000",
            "kongtask.max_tracked_tasks=1000",
            "kongtask.max_workers=0",
            "kongtask.poll_interval=2000",
            "kongtask.scheduler_idle_timeout=-1",
            "kongtask.shutdown_timeout=5000",
            "kongtask.synchronous_commit=",
            "kongtask.worker_idle_timeout=-1",
            "kongtask.worker_max_jobs=0",
            "kongtask.workers=4",
        ]
    );
    for (setting, code) in [
        ("kongtask.synchronous_commit = 'sometimes'", "22023"),
        ("kongtask.workers = -1", "22023"),
        ("kongtask.worker = 1", if cluster.version() < 16 { "42704" } else { "42602" }),
    ] {
        let failure = db.batch_execute(&format!("alter system set {setting}")).expect_err(setting);
        assert_eq!(failure.as_db_error().map(|e| e.code().code()), Some(code), "{setting}: {}", describe(&failure));
    }
    let refused = db.batch_execute("alter system set kongtask.synchronous_commit = 'sometimes'").expect_err("refused");
    let hint = refused.as_db_error().and_then(|e| e.hint()).unwrap_or_default();
    assert!(hint.starts_with("Use on, off, local"), "{hint}");
    let (code, _) = error(&mut db, "set kongtask.workers = 2");
    assert_eq!(code, "55P02");
}

/// A queue runs dry again and again, and to truncate its table VACUUM would lock it exclusively, also on standbys.
#[test]
fn vacuum_leaves_the_queue_s_tables_as_large_as_they_are() {
    let cluster = Cluster::with(&["kongtask.databases = ''"]);
    let mut db = cluster.connect();
    db.batch_execute("create extension kongtask").expect("create extension");
    let options = "select string_agg(concat_ws(' ', class.relname, class.reloptions, toast.reloptions), ', ' order by class.relname)
        from pg_class class left join pg_class toast on class.reltoastrelid = toast.oid
        where class.relnamespace = 'graphile_worker'::regnamespace and class.relkind = 'r' and class.reloptions is not null";
    assert_eq!(
        text(&mut db, options),
        "job_queues {vacuum_truncate=off}, \
         jobs {vacuum_truncate=off,autovacuum_vacuum_scale_factor=0.01} {vacuum_truncate=off,autovacuum_vacuum_scale_factor=0.01}"
    );
    db.batch_execute(
        "select count(graphile_worker.add_job('a', json_build_object('text', (select string_agg(md5(n::text || m), '') from generate_series(1, 200) m)))) from generate_series(1, 500) n;
         insert into graphile_worker.job_queues select n::text, 1 from generate_series(1, 500) n;
         delete from graphile_worker.jobs; delete from graphile_worker.job_queues",
    )
    .expect("jobs");
    let sizes = "select string_agg(pg_relation_size(oid)::text, ' ' order by oid) from pg_class
        where oid in ('graphile_worker.jobs'::regclass, 'graphile_worker.job_queues'::regclass)
          or oid = (select reltoastrelid from pg_class where oid = 'graphile_worker.jobs'::regclass)";
    let before = text(&mut db, sizes);
    assert!(before.split(' ').all(|size| size != "0"), "{before}");
    db.batch_execute("vacuum graphile_worker.jobs").expect("vacuum");
    db.batch_execute("vacuum graphile_worker.job_queues").expect("vacuum");
    assert_eq!(text(&mut db, sizes), before);
}
