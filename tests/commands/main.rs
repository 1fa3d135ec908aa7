//! The task `kongtask.sql`: commands of schedules, and jobs of pg_cron that become such.

mod pg_cron;
mod rights;

use kongtask_tests::{Cluster, JOBS, error, rows, text};

/// A cluster with a table `log` that anybody may write to, and a role alice that may schedule commands.
pub fn with_alice(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&[&["kongtask.poll_interval = '1h'"], settings].concat());
    cluster.sql(
        "create table log (at bigserial, what text, role text default current_user, xid xid8 default pg_current_xact_id());
         grant all on log, log_at_seq to public;
         create role alice login;
         create function may_schedule(who regrole) returns void language plpgsql as $$ begin
           execute format('grant usage on schema kongtask, graphile_worker to %s', who);
           execute format('grant execute on function graphile_worker.add_job, kongtask.schedule, kongtask.alter_schedule,
             kongtask.unschedule, kongtask.run_schedule to %s', who);
           execute format('grant execute on procedure kongtask.sql to %s', who);
         end $$;
         select may_schedule('alice')",
    );
    cluster
}

/// Has alice schedule a command for some other year, and runs it now. Returns when its job is done or has failed for good.
fn run(cluster: &Cluster, command: &str) {
    let mut alice = cluster.connect_as("alice", "postgres");
    let schedule = format!(
        "select kongtask.schedule('now', '0 0 29 2 *', 'kongtask.sql', json_build_object('command', $command${command}$command$), max_attempts := 1);
         select kongtask.run_schedule('now')"
    );
    alice.batch_execute(&schedule).unwrap_or_else(|error| panic!("{command}: {error:?}"));
    cluster.wait_for(
        "select count(*) from graphile_worker.jobs where attempts < max_attempts or locked_by is not null",
        "0",
    );
}

/// The headlines of what failed.
fn failed(cluster: &Cluster) -> String {
    cluster.text("select string_agg(split_part(last_error, E'\\n', 1), '; ') from graphile_worker.jobs")
}

#[test]
fn a_schedule_runs_its_command_as_the_role_that_scheduled_it() {
    let cluster = with_alice(&["kongtask.workers = 2"]);
    let mut alice = cluster.connect_as("alice", "postgres");
    alice
        .batch_execute(
            "select kongtask.schedule('beat', '1 second', 'kongtask.sql', '{\"command\": \"insert into log (what) values (''beat'')\"}')",
        )
        .expect("a schedule");
    cluster.wait_for("select count(*) >= 2 from log", "t");
    assert_eq!(cluster.text("select string_agg(distinct what || ' ' || role, ',') from log"), "beat alice");
    assert_eq!(
        cluster.text("select identifier || ' ' || handler || ' ' || role || ' ' || in_place from kongtask.tasks"),
        "kongtask.sql:alice kongtask.sql(json) alice false"
    );
    assert_eq!(
        cluster.text("select task || ' ' || coalesce(problem, 'fine') from kongtask.schedules"),
        "kongtask.sql fine"
    );
    alice.batch_execute("select kongtask.unschedule('beat')").expect("one");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn a_command_may_be_what_cannot_run_in_a_transaction() {
    let cluster = with_alice(&["kongtask.workers = 1"]);
    cluster.sql(
        "create schema app authorization alice;
         set role alice;
         create table app.t as select generate_series(1, 1000) n;
         create procedure app.steps() language plpgsql as $$ begin
           for n in 1..3 loop insert into public.log (what) values (n); commit; end loop; end $$",
    );
    run(&cluster, "vacuum (analyze) app.t");
    cluster.wait_for("select vacuum_count > 0 from pg_stat_user_tables where relname = 't'", "t");
    run(&cluster, "create index concurrently t_n on app.t (n)");
    assert_eq!(cluster.text("select indisvalid from pg_index where indexrelid = 'app.t_n'::regclass"), "t");
    run(&cluster, "call app.steps()");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct xid) from log"), "3 3");
    run(&cluster, "select count(*) from app.t -- a result that nobody gets");
    run(&cluster, "reindex table concurrently app.t");
    run(
        &cluster,
        "do $$ begin insert into log (what) values ('do'); commit; insert into log (what) values ('did'); end $$",
    );
    assert_eq!(cluster.text("select count(*) from log"), "5");
    assert_eq!(cluster.text(JOBS), "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

/// As a client's simple query does.
#[test]
fn several_statements_are_one_transaction_unless_they_end_it() {
    let cluster = with_alice(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let insert = |what: &str| format!("insert into log (what) values ('{what}');");
    for (command, logged, error) in [
        (format!("{} {}", insert("1"), insert("2")), "1 2 in 1", ""),
        (format!("{} select 1/0;", insert("1")), " in 0", "division by zero (SQLSTATE 22012)"),
        (
            format!("begin; {} commit; {} select 1/0", insert("1"), insert("2")),
            "1 in 1",
            "division by zero (SQLSTATE 22012)",
        ),
        (format!("{} commit; {}", insert("1"), insert("2")), "1 2 in 2", ""),
        (format!("begin; {} rollback; {}", insert("1"), insert("2")), "2 in 1", ""),
        (format!("begin; {} savepoint a; {} rollback to a; commit", insert("1"), insert("2")), "1 in 1", ""),
        (
            format!("{} begin; {}", insert("1"), insert("2")),
            " in 0",
            "the command leaves a transaction open (SQLSTATE 25001)",
        ),
        (
            "copy log to stdout".into(),
            " in 0",
            "a job cannot copy from standard input or to standard output (SQLSTATE 0A000)",
        ),
        (
            "copy log (what) from stdin".into(),
            " in 0",
            "a job cannot copy from standard input or to standard output (SQLSTATE 0A000)",
        ),
        (
            format!("{} commit; copy log (what) from stdin", insert("1")),
            " in 0",
            "a job cannot copy from standard input or to standard output (SQLSTATE 0A000)",
        ),
        ("selec 1".into(), " in 0", "syntax error at or near \"selec\" (SQLSTATE 42601)"),
        (
            format!("{} vacuum log", insert("1")),
            " in 0",
            "VACUUM cannot run inside a transaction block (SQLSTATE 25001)",
        ),
        (";".into(), " in 0", ""),
        ("select * from nowhere".into(), " in 0", "relation \"nowhere\" does not exist (SQLSTATE 42P01)"),
        ("set search_path = nowhere; set role alice".into(), " in 0", ""),
        (format!("set transaction isolation level serializable; {}", insert("1")), "1 in 1", ""),
        // What a command leaves in its session is gone.
        (insert("1"), "1 in 1", ""),
    ] {
        cluster.sql("truncate log, graphile_worker.jobs");
        run(&cluster, &command);
        let log = "select coalesce(string_agg(what, ' ' order by at), '') || ' in ' || count(distinct xid) from log";
        assert_eq!((text(&mut db, log).as_str(), failed(&cluster).as_str()), (logged, error), "{command}");
    }
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "1");
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC"]), Vec::<String>::new());
}

#[test]
fn a_command_is_shown_as_the_query_that_runs_and_its_job_as_the_current_one() {
    let cluster = with_alice(&["kongtask.workers = 1"]);
    cluster.sql("grant execute on function kongtask.current_job to alice");
    run(&cluster, "insert into log (what) select query from pg_stat_activity where pid = pg_backend_pid()");
    assert_eq!(
        cluster.text("select regexp_replace(what, 'job [0-9]+', 'job N') from log"),
        "insert into log (what) select query from pg_stat_activity where pid = pg_backend_pid() /* job N, task kongtask.sql:alice, attempt 1 */"
    );
    cluster.sql("truncate log");
    run(
        &cluster,
        "insert into log (what) select (kongtask.current_job()).task_identifier; insert into log (what) values (current_query())",
    );
    assert_eq!(cluster.text("select what from log limit 1"), "kongtask.sql:alice");
    assert_eq!(cluster.text("select what like '%current_query()%' from log order by at desc limit 1"), "t");
}

#[test]
fn a_role_limits_the_time_of_its_commands_by_registering_their_task() {
    let cluster = with_alice(&["kongtask.workers = 1"]);
    cluster.sql(
        "grant execute on function kongtask.register_task to alice; set role alice;
         select kongtask.register_task('kongtask.sql:alice', 'kongtask.sql(json)', timeout := '200 ms')",
    );
    run(&cluster, "select pg_sleep(60)");
    assert_eq!(failed(&cluster), "timed out after 200ms (SQLSTATE 57014)");
    assert_eq!(cluster.text("select count(*) from kongtask.tasks where timeout is not null"), "1");
}

#[test]
fn what_is_not_a_command_is_refused() {
    let cluster = with_alice(&["kongtask.workers = 0"]);
    let mut db = cluster.connect();
    for payload in ["{}", "[]", "\"vacuum\"", "{\"command\": null}", "{\"command\": 1}", "{\"command\": \" \"}"] {
        let schedule = format!("select kongtask.schedule('s', '@daily', 'kongtask.sql', '{payload}')");
        assert_eq!(error(&mut db, &schedule), ("22023".into(), "the payload has no command".into()), "{payload}");
    }
    db.batch_execute("select kongtask.schedule('s', '@daily', 'kongtask.sql', '{\"command\": \"vacuum\"}')")
        .expect("one");
    for change in ["payload := '{}'", "task := 'kongtask.sql', payload := '{\"commands\": \"x\"}'"] {
        let alter = format!("select kongtask.alter_schedule('s', {change})");
        assert_eq!(error(&mut db, &alter), ("22023".into(), "the payload has no command".into()), "{change}");
    }
    assert_eq!(
        error(&mut db, "call kongtask.sql('{\"command\": \"vacuum\"}')"),
        ("0A000".into(), "kongtask.sql cannot be called".into())
    );
    assert_eq!(
        error(&mut db, "select kongtask.register_task('kongtask.sql', 'kongtask.sql(json)')"),
        ("22023".into(), "task identifier kongtask.sql is reserved".into())
    );
    // A crontab may have it too.
    db.batch_execute("select kongtask.import_crontab('0 0 * * * kongtask.sql ?id=c {\"command\": \"vacuum\"}')")
        .expect("one");
    assert_eq!(
        rows(&mut db, "select name || ' ' || task from kongtask.schedules order by 1"),
        ["c kongtask.sql", "s kongtask.sql"]
    );
    assert_eq!(rows(&mut db, "select identifier from kongtask.tasks"), ["kongtask.sql:postgres"]);
}
