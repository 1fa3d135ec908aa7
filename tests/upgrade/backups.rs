//! Backups and copies of a server, as the documentation says to make and start them.

use kongtask_tests::{Cluster, error, rows, text};
use std::thread::sleep;
use std::time::Duration;

/// Three jobs of a task that notes them.
const JOBS: &str = "create table done (job bigint);
    create function note(j graphile_worker.jobs) returns void language sql as $$ insert into public.done values (j.id) $$;
    select kongtask.register_task('note', 'note(graphile_worker.jobs)');
    select graphile_worker.add_job('note') from generate_series(1, 3)";

#[test]
fn a_copy_of_a_server_runs_nothing_until_it_is_let_go() {
    // The original's jobs wait for a copy to be made of them.
    let original = Cluster::with_extension(&["kongtask.databases = ''"]);
    original.sql(JOBS);
    let copy = original.copy();
    copy.configure(&["kongtask.databases = '*'"]);
    let runs_nothing = || {
        copy.wait_for_log("kongtask launcher started");
        // A worker would have taken them in some milliseconds.
        sleep(Duration::from_secs(1));
        assert_eq!(copy.text("select count(*) from graphile_worker.jobs"), "3");
        assert_eq!(copy.text("select count(*) from kongtask.workers"), "0");
    };
    // By the command line, whatever the files say; and by postgresql.conf.
    copy.start_with_options("-c kongtask.databases=");
    runs_nothing();
    copy.stop("fast");
    copy.configure(&["kongtask.databases = ''"]);
    copy.start();
    runs_nothing();
    copy.reload(&["kongtask.databases = '*'"]);
    copy.wait_for("select count(*) from done", "3");
}

#[test]
fn a_role_that_makes_backups_needs_bypassrls() {
    let cluster = Cluster::with_extension(&["kongtask.databases = ''"]);
    cluster.sql(JOBS);
    cluster.sql("create role backup login in role pg_read_all_data");
    // As pg_dump asks.
    let asked = "set row_security = off; copy graphile_worker.jobs to stdout";
    let mut backup = cluster.connect_as("backup", "postgres");
    let (code, message) = error(&mut backup, asked);
    assert_eq!(code, "42501");
    assert_eq!(message, "query would be affected by row-level security policy for table \"jobs\"");
    // What --enable-row-security would have in the dump.
    assert_eq!(text(&mut backup, "set row_security = on; select count(*) from graphile_worker.jobs"), "0");
    cluster.sql("alter role backup bypassrls");
    let dump = cluster.client_program("pg_dump", &["-U", "backup", "-Fc", "postgres"]).stdout;
    cluster.sql("create database restored");
    cluster.restore(&dump, "restored", &[]);
    let query = "select * from graphile_worker.jobs order by id";
    let mut restored = cluster.connect_as("postgres", "restored");
    assert_eq!(rows(&mut restored, query), rows(&mut cluster.connect(), query));
    assert_eq!(text(&mut restored, "select identifier from kongtask.tasks"), "note");
}
