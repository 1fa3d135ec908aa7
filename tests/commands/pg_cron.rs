//! pg_cron beside us, and its jobs as schedules. Debian has it as postgresql-15-cron; where the server has none, there is
//! nothing to compare.

use kongtask_tests::docs::blocks;
use kongtask_tests::{Cluster, error, pg_config, rows, say, text, wait_until};
use postgres::Client;
use std::path::Path;
use std::time::Duration;

/// A cluster whose database postgres has pg_cron; `None` if the server has none.
fn with_pg_cron(settings: &[&str]) -> Option<Cluster> {
    if !Path::new(&pg_config("--pkglibdir")).join("pg_cron.so").exists() {
        say("skipped: this server has no pg_cron");
        return None;
    }
    let ours = [
        "shared_preload_libraries = 'pg_cron, kongtask'",
        "cron.use_background_workers = on",
        "max_worker_processes = 40",
    ];
    let cluster = Cluster::with_extension(&[&ours[..], settings].concat());
    cluster.sql("create extension pg_cron");
    Some(cluster)
}

/// What the server sends beside results.
fn with_notices(cluster: &Cluster, statement: &str) -> Vec<String> {
    let log = cluster.log().len();
    let mut db = cluster.connect();
    db.batch_execute("set log_min_messages = notice").expect("a superuser's session");
    db.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    let said = |line: &str| {
        let of_client = line.split_once(" client backend ")?.1;
        let said = of_client.split_once("NOTICE:  ").or(of_client.split_once("WARNING:  "))?;
        Some(said.1.to_owned())
    };
    cluster.log()[log..].lines().filter_map(said).collect()
}

#[test]
fn each_job_of_pg_cron_becomes_a_schedule_or_it_is_said_why_not() {
    let Some(cluster) = with_pg_cron(&["kongtask.workers = 0"]) else { return };
    cluster.sql(
        "create role alice login; create role bob login; create role gone login; create role nologin;
         grant usage on schema cron to alice, bob;
         grant usage on schema kongtask, graphile_worker to alice, bob, nologin;
         grant execute on function graphile_worker.add_job, kongtask.import_pg_cron to alice, bob, nologin;
         grant execute on procedure kongtask.sql to alice, nologin;
         insert into cron.job (schedule, command, nodename, nodeport, database, username, active, jobname) values
           ('*/5 * * * *',    'vacuum',   'localhost', current_setting('port')::int, 'postgres', 'postgres', true,  'clean up'),
           ('30 seconds',     'select 1', '',          current_setting('port')::int, 'postgres', 'alice',    true,  null),
           ('0 0 */2 * Mon',  'select 2', '/tmp',      current_setting('port')::int, 'postgres', 'alice',    false, 'off'),
           ('@reboot',        'select 3', 'localhost', current_setting('port')::int, 'postgres', 'postgres', true,  null),
           ('* * * * *',      'select 4', 'localhost', current_setting('port')::int, 'elsewhere', 'postgres', true, null),
           ('* * * * *',      'select 5', 'db.example', current_setting('port')::int, 'postgres', 'postgres', true, null),
           ('* * * * *',      'select 6', 'localhost', current_setting('port')::int, 'postgres', 'bob',      true,  null),
           ('* * * * *',      'select 7', 'localhost', current_setting('port')::int, 'postgres', 'gone',     true,  null),
           ('* * * * *',      'select 8', 'localhost', current_setting('port')::int, 'postgres', 'nologin',  true,  null);
         drop role gone",
    );
    let nologin = match cluster.version() {
        15 | 16 => "job 9 of pg_cron is not taken: role \"nologin\" is not permitted to log in (SQLSTATE 28000)",
        _ => "",
    };
    let mut expected = vec![
        "job 4 of pg_cron is not taken: \"@reboot\" is not a schedule (SQLSTATE 22023)".to_owned(),
        "job 5 of pg_cron is not taken: it runs in database \"elsewhere\" (SQLSTATE 0A000)".into(),
        "job 6 of pg_cron is not taken: it runs in db.example".into(),
        "job 7 of pg_cron is not taken: permission denied for handler kongtask.sql(json) (SQLSTATE 42501)".into(),
        "job 8 of pg_cron is not taken: role \"gone\" does not exist (SQLSTATE 42704)".into(),
        nologin.into(),
    ];
    expected.retain(|line| !line.is_empty());
    let said = with_notices(&cluster, "select * from kongtask.import_pg_cron()");
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (line, begins) in said.iter().zip(&expected) {
        assert!(line.starts_with(begins.as_str()), "{line}, not {begins}");
    }
    let mut db = cluster.connect();
    let schedules =
        "select concat_ws(' | ', name, cron, task, payload, timezone, overlap, missed, max_attempts, role, active)
        from kongtask.schedules where name <> 'pg_cron 9' order by name";
    let taken = [
        "clean up | */5 * * * * | kongtask.sql | {\"command\" : \"vacuum\"} | GMT | queue | skip | 1 | postgres | t",
        "off | 0 0 */2 * +Mon | kongtask.sql | {\"command\" : \"select 2\"} | GMT | queue | skip | 1 | alice | f",
        "pg_cron 2 | 30 seconds | kongtask.sql | {\"command\" : \"select 1\"} | GMT | skip | skip | 1 | alice | t",
    ];
    assert_eq!(rows(&mut db, schedules), taken);
    assert_eq!(
        rows(&mut db, "select identifier || ' ' || role from kongtask.tasks where role <> 'nologin' order by 1"),
        ["kongtask.sql:alice alice", "kongtask.sql:postgres postgres"]
    );
    // Again: what is there is left alone, changed or not; what can be taken now is.
    cluster.sql(
        "select kongtask.alter_schedule('clean up', cron := '@daily'); grant execute on procedure kongtask.sql to bob",
    );
    let said = with_notices(&cluster, "select * from kongtask.import_pg_cron()");
    assert!(
        said.contains(&"schedule \"clean up\" exists and is left alone: job 1 of pg_cron is not taken".to_owned()),
        "{said:?}"
    );
    assert_eq!(
        rows(
            &mut db,
            "select name || ' ' || cron || ' ' || role from kongtask.schedules where name in ('clean up', 'pg_cron 7') order by 1"
        ),
        ["clean up @daily postgres", "pg_cron 7 * * * * * bob"]
    );
}

#[test]
fn a_role_imports_its_own_jobs_and_a_table_of_that_name_is_not_pg_cron() {
    let Some(cluster) = with_pg_cron(&["kongtask.workers = 0"]) else { return };
    cluster.sql(
        "create role alice login; create role bob login; grant usage on schema cron to alice, bob;
         grant usage on schema kongtask, graphile_worker to alice, bob;
         grant execute on function graphile_worker.add_job, kongtask.import_pg_cron to alice, bob;
         grant execute on procedure kongtask.sql to alice, bob;
         select cron.schedule('hers', '@daily', 'select 1');
         update cron.job set username = 'alice';
         select cron.schedule('his', '@daily', 'select 2');
         update cron.job set username = 'bob' where jobname = 'his'",
    );
    let mut alice = cluster.connect_as("alice", "postgres");
    assert_eq!(
        text(&mut alice, "select string_agg(name || ' ' || role, ',') from kongtask.import_pg_cron()"),
        "hers alice"
    );
    // Anybody could make such a table, to have a superuser schedule what it says.
    cluster.sql("create database other");
    cluster.sql("create role mallory login; grant create on database other to mallory");
    let mut other = cluster.connect_as("postgres", "other");
    other.batch_execute("create extension kongtask").expect("the extension");
    cluster
        .connect_as("mallory", "other")
        .batch_execute(
            "create schema cron;
             create table cron.job (jobid bigint, schedule text, command text, nodename text, nodeport int, database text, username text,
               active boolean, jobname text);
             insert into cron.job values (1, '* * * * *', 'alter role mallory superuser', '', current_setting('port')::int, 'other',
               'postgres', true, 'hers'); grant all on schema cron to public; grant all on cron.job to public",
        )
        .expect("a table");
    assert_eq!(
        error(&mut other, "select kongtask.import_pg_cron()"),
        ("55000".into(), "pg_cron is not installed in this database".into())
    );
}

/// As docs/how-to/move-from-pg-cron.md has it.
#[test]
fn the_move_from_pg_cron_leaves_each_job_with_one_of_both() {
    let Some(cluster) = with_pg_cron(&["kongtask.workers = 0"]) else { return };
    cluster.sql(
        "select cron.schedule('named', '@daily', 'select 1'), cron.schedule('@daily', 'select 2'), cron.schedule('reboot', '@reboot', 'select 3'),
           cron.schedule('taken', '@daily', 'select 4'), kongtask.schedule('taken', '@daily', 'another')",
    );
    cluster.sql(&blocks("sql pg-cron")[0]);
    let mut db = cluster.connect();
    assert_eq!(rows(&mut db, "select name from kongtask.schedules order by 1"), ["named", "pg_cron 2", "taken"]);
    assert_eq!(rows(&mut db, "select jobname from cron.job order by 1"), ["reboot", "taken"]);
}

/// The entries that a process of ours (or another: pg_cron's) fired for a minute.
fn fired(db: &mut Client, minute: &str, is_ours: bool) -> Vec<String> {
    rows(
        db,
        &format!(
            "select entry from fired where minute = '{minute}' and (who = 'kongtask worker') = {is_ours} order by entry"
        ),
    )
}

/// At the next full minute.
#[test]
fn pg_cron_and_imported_schedules_fire_the_same_entries_and_one_takes_over_from_the_other() {
    let Some(cluster) = with_pg_cron(&["timezone = 'UTC'"]) else { return };
    cluster.sql(
        "create function who() returns text language sql as 'select backend_type from pg_stat_activity where pid = pg_backend_pid()';
         create table fired (minute timestamptz default date_trunc('minute', now()), entry text, who text default who());
         create view next_minute as
           select m, extract(minute from m)::int as minute, extract(hour from m)::int as hour, extract(day from m)::int as day,
             to_char(m, 'Mon') as month, extract(dow from m)::int as dow, extract(dow from m + interval '1 day')::int as other
           from date_trunc('minute', now() + interval '1 minute') as m",
    );
    let mut db = cluster.connect();
    // pg_cron looks at its jobs once a second.
    let is_early = || cluster.text("select extract(second from now()) < 55") == "t";
    assert!(wait_until(Duration::from_secs(10), is_early));
    let minute = text(&mut db, "select m from next_minute");
    db.batch_execute(
        "select cron.schedule(entry, format(schedule, minute, hour, day, month, dow, other), format('insert into fired values (default, %L)', entry))
         from next_minute, (values
           ('each minute', '* * * * *'), ('even minutes', '*/2 * * * *'), ('odd minutes', '1-59/2 * * * *'),
           ('this minute', '%1$s %2$s %3$s %4$s *'), ('two minutes', '%1$s,0-2 * * * *'), ('this hour', '0-59 %2$s * * *'), ('this month', '* * * %4$s *'),
           ('the weekday', '* * * * %5$s'), ('another weekday', '* * * * %6$s'), ('the day or another weekday', '* * %3$s * %6$s'),
           ('odd days and the weekday', '* * */2 * %5$s'), ('odd days and another weekday', '* * */2 * %6$s'),
           ('any day or another weekday', '* * 1-31 * %6$s'), ('hourly', '@hourly'), ('to be taken over', '* * * * *'))
           as entries (entry, schedule)",
    )
    .expect("jobs of pg_cron");
    let count = text(&mut db, "select count(*) from cron.job");
    assert_eq!(text(&mut db, "select count(*) from kongtask.import_pg_cron()"), count);
    db.batch_execute("select cron.unschedule('to be taken over')").expect("a job");
    let at_rest = "select now() > $$MINUTE$$::timestamptz + interval '2 seconds'
          and not exists (select 1 from graphile_worker.jobs where run_at <= now())
          and not exists (select 1 from cron.job_run_details where status not in ('succeeded', 'failed'))"
        .replace("MINUTE", &minute);
    let came = wait_until(Duration::from_secs(80), || text(&mut db, &at_rest) == "t");
    assert!(
        came,
        "{:?}\n{}",
        rows(&mut db, "select cron.job_run_details::text from cron.job_run_details"),
        cluster.log()
    );
    let (theirs, mut ours) = (fired(&mut db, &minute, false), fired(&mut db, &minute, true));
    assert!(ours.contains(&"to be taken over".to_owned()), "{ours:?}");
    ours.retain(|entry| entry != "to be taken over");
    assert_eq!(ours, theirs);
    for (entry, is_fired) in
        [("each minute", true), ("this minute", true), ("the day or another weekday", true), ("another weekday", false)]
    {
        assert_eq!(ours.contains(&entry.to_owned()), is_fired, "{entry}: {ours:?}");
    }
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.jobs where last_error is not null"), "0");
}
