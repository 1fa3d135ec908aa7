//! CREATE EXTENSION and ALTER EXTENSION UPDATE, where people have prepared for them.

use crate::outcome;
use crate::settings::hostile_objects;
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::{Cluster, describe, reference, rows, text};
use postgres::Client;

/// A cluster with mallory, who may create things in the database and in public, and has prepared a schema of hers.
fn cluster() -> Cluster {
    let cluster = Cluster::with(&["kongtask.workers = 0"]);
    cluster.sql(
        "create role mallory login; grant create on database postgres to mallory;
         grant all on schema public to mallory;
         create schema hostile authorization mallory; grant usage on schema hostile to public;",
    );
    run(&mut cluster.connect_as("mallory", "postgres"), &hostile_objects());
    // The same in public, and a cast.
    run(&mut cluster.connect_as("mallory", "postgres"), &hostile_objects().replace("hostile.", "public."));
    run(
        &mut cluster.connect_as("mallory", "postgres"),
        "create function public.cast(public.jobs) returns bigint language plpgsql as
           $$ begin raise exception 'hijacked as %', current_user; end $$;
         create cast (public.jobs as bigint) with function public.cast as implicit;
         create collation public.\"default\" (locale = 'C');",
    );
    cluster
}

fn run(db: &mut Client, statements: &str) {
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{statements}: {}", describe(&e)));
}

/// What a superuser has set, or somebody has set for the superuser.
const HOSTILE_PATHS: [&str; 3] =
    ["hostile, pg_catalog", "hostile, public, pg_catalog", "hostile, pg_temp, public, pg_catalog"];

/// A database of its own, as it should be.
fn fresh(cluster: &Cluster) -> Vec<String> {
    cluster.sql("create database fresh");
    let mut fresh = cluster.connect_as("postgres", "fresh");
    run(&mut fresh, "create extension kongtask");
    snapshot(&mut fresh, "graphile_worker")
}

#[test]
fn no_search_path_and_nothing_that_is_there_changes_what_is_installed() {
    let cluster = cluster();
    let fresh = fresh(&cluster);
    for path in HOSTILE_PATHS {
        for statements in
            ["create extension kongtask", "create extension kongtask version '0.1.0'; alter extension kongtask update"]
        {
            let mut db = cluster.connect();
            run(
                &mut db,
                "create temporary table jobs (id int); create temporary table migrations (id int);
                 create function pg_temp.now() returns int language sql as 'select 1 / 0';
                 create type pg_temp.text as (x int)",
            );
            run(&mut db, &format!("set search_path = {path}"));
            run(&mut db, statements);
            // It is what it is for everybody, not by what this session has.
            drop(db);
            assert_same(path, &snapshot(&mut cluster.connect(), "graphile_worker"), &fresh);
            let made = "select (graphile_worker.add_job('a', queue_name := 'q', job_key := 'k')).id > 0";
            assert_eq!(text(&mut cluster.connect(), made), "t");
            cluster.sql("drop extension kongtask; drop schema if exists graphile_worker");
        }
    }
    assert!(!cluster.log().contains("hijacked"), "{}", cluster.log());
}

/// What ALTER DEFAULT PRIVILEGES speaks of.
const PRIVILEGES: [&str; 5] = ["tables", "sequences", "functions", "types", "schemas"];

/// What nobody but the owner may have after an installation: rights to anything of the extension's.
const RIGHTS_OF_OTHERS: &str = "
    select object || ' ' || acl.privilege_type || ' to ' || acl.grantee::regrole from (
      select relname as object, relacl as acl from pg_class
        where relnamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace)
      union all
      select proname, proacl from pg_proc
        where pronamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace)
      union all
      select nspname, nspacl from pg_namespace where nspname in ('graphile_worker', 'kongtask')
      union all
      select typname, typacl from pg_type
        where typnamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace)
    ) as objects cross join lateral aclexplode(acl) as acl
    where acl.grantee not in (0, (select oid from pg_roles where rolname = 'postgres')) order by 1";

#[test]
fn default_privileges_give_nobody_rights_to_the_extension() {
    let cluster = cluster();
    let mut db = cluster.connect();
    for (first, then) in [
        ("select", "create extension kongtask"),
        ("create extension kongtask version '0.1.0'", "alter extension kongtask update"),
    ] {
        for privileges in PRIVILEGES {
            run(&mut db, &format!("alter default privileges revoke all on {privileges} from mallory"));
        }
        run(&mut db, first);
        for privileges in PRIVILEGES {
            run(&mut db, &format!("alter default privileges grant all on {privileges} to mallory"));
        }
        run(&mut db, then);
        assert_eq!(rows(&mut db, RIGHTS_OF_OTHERS), Vec::<String>::new(), "{then}");
        run(&mut db, "drop extension kongtask; drop schema if exists graphile_worker");
    }
}

#[test]
fn a_schema_in_which_others_create_things_is_not_taken_unasked() {
    let cluster = cluster();
    cluster.sql("create schema graphile_worker; grant all on schema graphile_worker to mallory");
    let mut mallory = cluster.connect_as("mallory", "postgres");
    for (what, make, drop) in [
        (
            "a function",
            "function graphile_worker.add_job(text, text) returns int language sql as 'select 1'",
            "function graphile_worker.add_job",
        ),
        ("a type", "type graphile_worker.job_spec as (x int)", "type graphile_worker.job_spec"),
        ("a domain", "domain graphile_worker.timestamptz as int", "domain graphile_worker.timestamptz"),
        ("a table", "table graphile_worker.theirs ()", "table graphile_worker.theirs"),
        ("a sequence", "sequence graphile_worker.jobs_id_seq", "sequence graphile_worker.jobs_id_seq"),
        (
            "an operator",
            "operator graphile_worker.< (leftarg = int, rightarg = int, function = int4lt)",
            "operator graphile_worker.< (int, int)",
        ),
        (
            "an aggregate",
            "aggregate graphile_worker.length(text) (sfunc = textcat, stype = text)",
            "aggregate graphile_worker.length(text)",
        ),
        ("a collation", "collation graphile_worker.\"C\" (locale = 'C')", "collation graphile_worker.\"C\""),
        (
            "a conversion",
            "conversion graphile_worker.theirs for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8",
            "conversion graphile_worker.theirs",
        ),
        (
            "a dictionary",
            "text search dictionary graphile_worker.theirs (template = simple)",
            "text search dictionary graphile_worker.theirs",
        ),
    ] {
        run(&mut mallory, &format!("create {make}"));
        let mut db = cluster.connect();
        for statement in ["create extension kongtask", "create extension kongtask schema graphile_worker"] {
            assert_eq!(outcome(&mut db, statement), "55000", "{what}: {statement}");
        }
        run(&mut mallory, &format!("drop {drop}"));
    }
    // It is empty, and she may go on as soon as it is taken.
    let taken = outcome(&mut cluster.connect(), "create extension kongtask");
    let beside = outcome(
        &mut mallory,
        "create function graphile_worker.add_job(text, text) returns int language sql as 'select 1'",
    );
    assert!(taken == "42501" || beside == "42501", "CREATE EXTENSION: {taken}; a function beside add_job: {beside}");
}

#[test]
fn a_schema_that_is_taken_over_gives_nobody_a_way_to_its_new_owner() {
    let cluster = Cluster::with(&["kongtask.workers = 0"]);
    cluster.sql("create role app login; create role friend login");
    cluster.sql("create database theirs owner app");
    let mut app = cluster.connect_as("app", "theirs");
    run(&mut app, "grant create on schema public to app; create schema friends; grant all on schema friends to friend");
    reference::install(&mut app, "0.12.2", 9, "graphile_worker");
    // What people say where they mean that a role may read and write all there is.
    run(
        &mut app,
        "grant usage on schema graphile_worker, friends to public;
         grant all on all tables in schema graphile_worker to friend; grant all on all sequences in schema graphile_worker to friend;
         grant execute on all functions in schema graphile_worker to friend;",
    );
    let mut db = cluster.connect_as("postgres", "theirs");
    run(&mut db, "create extension kongtask schema graphile_worker");
    assert_eq!(
        rows(
            &mut db,
            "select role || ' ' || relname || ' ' || privilege from pg_class, unnest(array['app', 'friend', 'public']) as role,
               unnest(array['trigger', 'references']) as privilege
             where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r' and has_table_privilege(role, oid, privilege)
             order by 1"
        ),
        Vec::<String>::new()
    );
    let mut friend = cluster.connect_as("friend", "theirs");
    run(
        &mut friend,
        "create table friends.ran (who name); grant insert on friends.ran to public;
         create function friends.note() returns trigger language plpgsql as
           $$ begin insert into friends.ran values (current_user); return new; end $$;",
    );
    outcome(
        &mut friend,
        "create trigger theirs before insert on graphile_worker.jobs for each row execute function friends.note()",
    );
    run(&mut friend, "insert into graphile_worker.jobs (task_identifier) values ('a')");
    run(&mut app, "select graphile_worker.add_job('a')");
    assert_eq!(
        rows(&mut db, "select distinct who from friends.ran where who not in ('app', 'friend')"),
        Vec::<String>::new()
    );
}

#[test]
fn the_superuser_who_installs_it_may_have_any_name() {
    let cluster = Cluster::with(&["kongtask.workers = 0"]);
    // As an identifier without its quotes, its name is that of another role, who owns the schema.
    cluster.sql("create role \"Squatter\" superuser login; create role squatter login; grant create on database postgres to squatter");
    let mut installer = cluster.connect_as("Squatter", "postgres");
    run(&mut cluster.connect_as("squatter", "postgres"), "create schema graphile_worker");
    assert_eq!(outcome(&mut installer, "create extension kongtask"), "42501");
    run(
        &mut installer,
        "alter schema graphile_worker owner to \"Squatter\"; create extension kongtask; drop extension kongtask",
    );
    run(
        &mut cluster.connect(),
        "create role \"An Installer\" superuser; alter schema graphile_worker owner to \"An Installer\";
         set session authorization \"An Installer\"; create extension kongtask",
    );
}
