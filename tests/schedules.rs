//! Schedules: what falls due is fired once, whatever happens meanwhile.

use kongtask_tests::reference::Worker;
use kongtask_tests::schema::{assert_same, snapshot};
use kongtask_tests::shifted_clock::ShiftedClock;
use kongtask_tests::{Cluster, SOON, describe, error, rows, text, wait_until};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A task that notes when it runs and for which instant.
const PREPARE: &str =
    "create table done (name text, ts timestamptz, backfilled boolean, at timestamptz default clock_timestamp());
    create function note(p json) returns void language sql as $$
      insert into public.done (name, ts, backfilled)
      select p ->> 'name', (p -> '_cron' ->> 'ts')::timestamptz, (p -> '_cron' ->> 'backfilled')::boolean $$;
    create function nap(p json) returns void language sql as $$ select pg_sleep((p ->> 'seconds')::float8) $$;
    select kongtask.register_task('note', 'note(json)');
    select kongtask.register_task('nap', 'nap(json)');";

fn cluster(settings: &[&str]) -> Cluster {
    let cluster =
        Cluster::with_extension(&[&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"], settings].concat());
    cluster.sql(PREPARE);
    cluster
}

fn schedule(cluster: &Cluster, name: &str, cron: &str, more: &str) {
    cluster.sql(&format!(
        "select kongtask.schedule('{name}', '{cron}', 'note', json_build_object('name', '{name}') {more})"
    ));
}

/// The runs of a schedule that each second is due for are those of consecutive seconds, once each.
const CONSECUTIVE: &str =
    "select count(*) = count(distinct ts) and count(*) = extract(epoch from max(ts) - min(ts)) + 1 from done";

#[test]
fn a_schedule_fires_each_instant_once_and_on_time() {
    let cluster = cluster(&[]);
    schedule(&cluster, "each second", "* * * * * *", "");
    cluster.wait_for("select count(*) >= 4 from done", "t");
    assert_eq!(cluster.text(CONSECUTIVE), "t");
    assert_eq!(
        cluster.text("select max(at - ts) < '0.5 s' and min(at) >= min(ts) and not bool_or(backfilled) from done"),
        "t"
    );
    assert_eq!(
        cluster.text(
            "select last_run_at >= now() - interval '3 s' and next_run_at > now() and next_run_at <= now() + interval '1 s'
               and last_job_id >= 4 and missed_count = 0 and problem is null from kongtask.schedules"
        ),
        "t"
    );
    assert_eq!(cluster.text("select kongtask.unschedule('each second')"), "t");
    let fired = cluster.text("select count(*) from done");
    sleep(Duration::from_millis(1500));
    let left: i64 = cluster.text(&format!("select count(*) - {fired} from done")).parse().expect("a number");
    assert!(left <= 1, "{left}");
    assert_eq!(cluster.text("select kongtask.unschedule('each second')"), "f");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_job_is_as_the_schedule_says() {
    let cluster = cluster(&["kongtask.databases = ''"]);
    cluster.sql(
        "select kongtask.schedule('plain', '@daily', 'elsewhere');
         select kongtask.schedule('full', '@daily', 'elsewhere', '{\"a\": [1, {}], \"_cron\": 1}', queue_name := 'q', priority := 3,
           max_attempts := 4, job_key := 'k', job_key_mode := 'preserve_run_at', flags := '{f}');
         select kongtask.schedule('array', '@daily', 'elsewhere', '[1]', overlap := 'queue')",
    );
    let run = |name: &str| {
        cluster.text(&format!(
            "select concat_ws(' ', task_identifier, case when json_typeof(payload) = 'object' then payload::jsonb #- '{{_cron,ts}}' else payload::jsonb end, queue_name, priority, max_attempts, key, flags)
             from kongtask.run_schedule('{name}')"
        ))
    };
    assert_eq!(run("plain"), r#"elsewhere {"_cron": {"backfilled": false}} 0 25"#);
    assert_eq!(run("full"), r#"elsewhere {"a": [1, {}], "_cron": {"backfilled": false}} q 3 4 k {"f": true}"#);
    assert_eq!(run("array"), "elsewhere [1] cron:array 0 25");
    assert_eq!(cluster.text("select count(*) from graphile_worker.jobs"), "3");
    assert_eq!(
        cluster.text("select string_agg(last_job_id::text, ' ' order by last_job_id) from kongtask.schedules"),
        "1 2 3"
    );
    // What is scheduled again as it is stays where it is; what fires at other times is new.
    let since = "select since::text || xmin from kongtask.crontab where name = 'plain'";
    let before = cluster.text(since);
    cluster.sql("select kongtask.schedule('plain', '@daily', 'elsewhere')");
    assert_eq!(cluster.text(since), before);
    cluster.sql("select kongtask.schedule('plain', '@hourly', 'elsewhere')");
    assert_ne!(cluster.text(since), before);
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let cluster = cluster(&["kongtask.databases = ''"]);
    let mut db = cluster.connect();
    for (arguments, code) in [
        ("'', '@daily', 'note'", "22023"),
        ("repeat('n', 121), '@daily', 'note'", "22023"),
        ("null, '@daily', 'note'", "22004"),
        ("'n', null, 'note'", "22004"),
        ("'n', '60 * * * *', 'note'", "22023"),
        ("'n', '@daily', ''", "22023"),
        ("'n', '@daily', repeat('t', 129)", "GWBID"),
        ("'n', '@daily', 'note', null", "22004"),
        ("'n', '@daily', 'note', timezone := 'CEST'", "22023"),
        ("'n', '@daily', 'note', max_attempts := 0", "GWBMA"),
        ("'n', '@daily', 'note', job_key_mode := 'x'", "GWBKM"),
        ("'n', '@daily', 'note', missed := 'never'", "22023"),
        ("'n', '@daily', 'note', overlap := 'x'", "22023"),
        ("'n', '@daily', 'note', jitter := '-1 s'", "22023"),
        ("'n', '@daily', 'note', starts_at := '2030-01-01', ends_at := '2020-01-01'", "22023"),
    ] {
        assert_eq!(error(&mut db, &format!("select kongtask.schedule({arguments})")).0, code, "{arguments}");
    }
    let wrong =
        db.batch_execute("select kongtask.schedule('n', '@daily', 'note', missed := 'never')").expect_err("wrong");
    assert!(describe(&wrong).contains("'skip', 'once', 'all'"), "{}", describe(&wrong));
    for call in ["alter_schedule('n', active := false)", "run_schedule('n')"] {
        assert_eq!(error(&mut db, &format!("select kongtask.{call}")).0, "42704");
    }
    assert_eq!(text(&mut db, "select count(*) from kongtask.schedules"), "0");
}

#[test]
fn a_schedule_belongs_to_its_role() {
    let cluster = cluster(&["kongtask.databases = ''"]);
    cluster.sql(
        "create role alice login; create role bob login; create role carol login in role alice;
         grant usage on schema kongtask, graphile_worker to alice, bob, carol;
         grant execute on all functions in schema kongtask to alice, bob, carol;
         grant execute on function graphile_worker.add_job to alice",
    );
    let mut alice = cluster.connect_as("alice", "postgres");
    alice.batch_execute("select kongtask.schedule('hers', '@daily', 'note')").expect("she may add jobs");
    let mut bob = cluster.connect_as("bob", "postgres");
    assert_eq!(error(&mut bob, "select kongtask.schedule('his', '@daily', 'note')").0, "42501");
    for call in [
        "schedule('hers', '@hourly', 'note')",
        "alter_schedule('hers', active := false)",
        "unschedule('hers')",
        "run_schedule('hers')",
    ] {
        assert_eq!(error(&mut bob, &format!("select kongtask.{call}")).0, "42501", "{call}");
    }
    let mut carol = cluster.connect_as("carol", "postgres");
    carol
        .batch_execute("select kongtask.alter_schedule('hers', cron := '@weekly'), kongtask.run_schedule('hers')")
        .expect("a member may");
    cluster.sql("select kongtask.alter_schedule('hers', active := false)");
    assert_eq!(rows(&mut cluster.connect(), "select cron, active, role from kongtask.schedules"), ["@weekly|f|alice"]);
    // A search_path of theirs changes nothing.
    alice
        .batch_execute(
            "create schema if not exists alice; set search_path = alice, pg_catalog;
             create function alice.eq(text, text) returns boolean language plpgsql as $$ begin raise 'called as %', current_user; end $$;",
        )
        .expect_err("she may make no schema");
    assert_eq!(text(&mut alice, "select kongtask.unschedule('hers')"), "t");
}

#[test]
fn what_is_missed_is_skipped_made_up_for_once_or_all() {
    let cluster = cluster(&[]);
    schedule(&cluster, "skip", "* * * * * *", "");
    schedule(&cluster, "once", "* * * * * *", ", missed := 'once'");
    schedule(&cluster, "all", "* * * * * *", ", missed := 'all'");
    schedule(&cluster, "recent", "* * * * * *", ", missed := 'all', missed_within := '2 s'");
    cluster.wait_for("select count(*) from done where name = 'recent' having count(*) > 1", "2");
    cluster.stop("fast");
    sleep(Duration::from_secs(5));
    cluster.start();
    cluster.wait_for("select count(distinct name) from done where not backfilled and ts > pg_postmaster_start_time() + interval '2 s'", "4");
    let mut db = cluster.connect();
    let backfilled = "select name, count(*) from done where backfilled group by name order by name";
    let found = rows(&mut db, backfilled);
    let number = |name: &str| -> i64 {
        let of = |row: &String| row.strip_prefix(&format!("{name}|")).map(|n| n.parse().expect("a number"));
        found.iter().find_map(of).unwrap_or(0)
    };
    assert_eq!((number("skip"), number("once")), (0, 1), "{found:?}");
    assert!((4..=8).contains(&number("all")) && (1..=3).contains(&number("recent")), "{found:?}");
    let missed = rows(&mut db, "select missed_count from kongtask.schedules order by name");
    let of_all = number("all");
    assert_eq!(missed[0], "0", "{missed:?}");
    // The scheduler hears of them one after the other, and begins once.
    assert_eq!((missed[1].parse::<i64>().expect("a number") - (of_all - 1)).abs(), 0, "{missed:?} {found:?}");
    assert_eq!(text(&mut db, "select count(*) - count(distinct (name, ts)) from done"), "0");
    let gaps = "select count(*) = extract(epoch from max(ts) - min(ts)) + 1 from done where name = 'all'";
    assert_eq!(text(&mut db, gaps), "t");
}

#[test]
fn a_new_schedule_never_fires_for_the_past() {
    let cluster = cluster(&[]);
    // Committed long after it was made.
    cluster.sql(
        "begin; select kongtask.schedule('new', '* * * * * *', 'note', '{\"name\": \"new\"}', missed := 'all');
         select pg_sleep(3); commit; create table committed as select clock_timestamp() as at",
    );
    cluster.wait_for("select count(*) > 1 from done", "t");
    assert_eq!(cluster.text("select min(ts) > max(committed.at) - interval '0.1 s' from done, committed"), "t");
    // And one that was not active misses nothing.
    cluster.sql("select kongtask.alter_schedule('new', active := false); truncate done");
    sleep(Duration::from_secs(2));
    cluster.sql("truncate committed; insert into committed values (clock_timestamp()); select kongtask.alter_schedule('new', active := true)");
    cluster.wait_for("select count(*) > 1 from done", "t");
    assert_eq!(cluster.text("select min(ts) > max(committed.at) from done, committed"), "t");
}

#[test]
fn an_overlap_is_allowed_skipped_or_queued() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql("update kongtask.tasks set in_place = true");
    for overlap in ["allow", "skip", "queue"] {
        cluster.sql(&format!(
            "select kongtask.schedule('{overlap}', '* * * * * *', 'nap', '{{\"seconds\": 2.5}}', overlap := '{overlap}')"
        ));
    }
    cluster.wait_for("select skipped_count >= 4 from kongtask.schedules where name = 'skip'", "t");
    cluster.sql("select kongtask.alter_schedule(name, active := false) from kongtask.schedules");
    assert_eq!(cluster.text("select skipped_count from kongtask.schedules where name = 'allow'"), "0");
    assert_eq!(cluster.text("select count(*) > 1 from graphile_worker.jobs where queue_name = 'cron:queue'"), "t");
    assert_eq!(
        cluster.text(
            "select count(*) from graphile_worker.jobs where queue_name = 'cron:queue' and locked_at is not null"
        ),
        "1"
    );
    let added: i64 = cluster.text("select last_value from graphile_worker.jobs_id_seq").parse().expect("a number");
    assert!(added >= 2 * 5, "{added}");
}

/// A job that the schedule's own run_schedule has added counts, and nobody waits for the transaction that it was added in.
#[test]
fn a_run_by_hand_is_an_unfinished_job_too_and_is_waited_for_by_nobody() {
    let cluster = cluster(&[]);
    let mut db = cluster.connect();
    db.batch_execute("select kongtask.schedule('s', '* * * * * *', 'elsewhere', overlap := 'skip')").expect("schedule");
    db.batch_execute("begin; select kongtask.run_schedule('s')").expect("run_schedule");
    cluster.wait_for("select last_run_at > now() - interval '3 s' from kongtask.schedules", "t");
    cluster.wait_for("select skipped_count > 1 from kongtask.schedules", "t");
    db.batch_execute("commit; select graphile_worker.complete_jobs(array[id]) from graphile_worker.jobs where id > 1")
        .expect("commit");
    let skipped = cluster.text("select skipped_count from kongtask.schedules");
    cluster.wait_for(&format!("select skipped_count > {skipped} + 1 from kongtask.schedules"), "t");
    assert_eq!(cluster.text("select count(*) from graphile_worker.jobs"), "1");
    db.batch_execute("select graphile_worker.permanently_fail_jobs(array[1::bigint], 'enough')").expect("fail");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "2");
    cluster.wait_for("select count(*) from kongtask.schedule_runs", "0");
}

#[test]
fn jitter_start_and_end_are_kept_to() {
    let cluster = cluster(&[]);
    cluster.sql(
        "select kongtask.schedule('j', '* * * * * *', 'elsewhere', jitter := '1 hour');
         select kongtask.schedule('b', '* * * * * *', 'note', '{\"name\": \"b\"}',
           starts_at := date_trunc('second', now()) + interval '2 s', ends_at := date_trunc('second', now()) + interval '4 s')",
    );
    cluster.wait_for("select count(*) >= 5 from graphile_worker.jobs", "t");
    assert_eq!(
        cluster.text(
            "select bool_and(late >= '0' and late < '1 h') and count(distinct late) > 3 from
          (select run_at - (payload -> '_cron' ->> 'ts')::timestamptz as late from graphile_worker.jobs) j"
        ),
        "t"
    );
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct ts) from done"), "3 3");
    assert_eq!(
        cluster.text(
            "select count(*) from kongtask.schedules where name = 'b' and next_run_at is null and problem is null"
        ),
        "1"
    );
}

#[test]
fn what_is_broken_costs_its_own_schedule_only() {
    let cluster = cluster(&[]);
    cluster.sql(
        "create role alice; grant usage on schema kongtask, graphile_worker to alice;
         grant execute on function kongtask.schedule, graphile_worker.add_job to alice;
         set role alice; select kongtask.schedule('role', '* * * * * *', 'note'); reset role;
         select kongtask.schedule('unknown', '* * * * * *', 'unknown');
         select kongtask.schedule('zone', '* * * * * *', 'note'), kongtask.schedule('cron', '* * * * * *', 'note');
         select kongtask.schedule('raising', '* * * * * *', 'raising');
         create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;
         create trigger refuse before insert on graphile_worker.jobs for each row when (new.task_identifier = 'raising') execute function refuse();
         update kongtask.crontab set timezone = 'Mars/Olympus' where name = 'zone';
         update kongtask.crontab set cron = 'x' where name = 'cron';
         revoke execute on function graphile_worker.add_job from alice",
    );
    schedule(&cluster, "well", "* * * * * *", "");
    cluster.wait_for("select count(*) > 2 from done where name = 'well'", "t");
    assert_eq!(cluster.text("select max(at - ts) < '0.5 s' from done where name = 'well'"), "t");
    cluster.wait_for("select missed_count > 1 from kongtask.schedules where name = 'role'", "t");
    let problem = |name: &str| cluster.text(&format!("select problem from kongtask.schedules where name = '{name}'"));
    for (name, says) in [
        ("role", "role alice, which scheduled it, may not execute add_job"),
        ("unknown", "task \"unknown\" is not registered in this database"),
        ("zone", "time zone \"Mars/Olympus\" is not known"),
        ("cron", "SQLSTATE 22023"),
        ("raising", "refused (SQLSTATE P0001)"),
    ] {
        assert!(problem(name).contains(says), "{name}: {}", problem(name));
    }
    assert_eq!(problem("well"), "");
    assert_eq!(cluster.text("select count(*) > 0 from graphile_worker.jobs where task_identifier = 'unknown'"), "t");
    // What is mended fires again, and not for what it has missed.
    cluster.sql("drop owned by alice; drop role alice; drop trigger refuse on graphile_worker.jobs");
    cluster.wait_for(
        "select problem like 'role %, which scheduled it, does not exist' from kongtask.schedules where name = 'role'",
        "t",
    );
    cluster.sql("select kongtask.schedule('role', '* * * * * *', 'note', '{\"name\": \"role\"}')");
    cluster.wait_for("select count(*) > 1 from done where name = 'role'", "t");
    assert_eq!(cluster.text("select count(*) from done where name = 'role' and backfilled"), "0");
}

/// graphile-worker's process may hold such a lock for a moment, and a user for as long as he likes.
#[test]
fn a_locked_row_or_table_keeps_nothing_else_and_is_fired_once_it_is_free() {
    let cluster = cluster(&["deadlock_timeout = '100ms'"]);
    schedule(&cluster, "locked", "* * * * * *", "");
    schedule(&cluster, "free", "* * * * * *", "");
    cluster.wait_for("select count(distinct name) from done", "2");
    let mut db = cluster.connect();
    db.batch_execute(
        "begin; select from graphile_worker.known_crontabs where identifier = 'locked' for update; select pg_sleep(3)",
    )
    .expect("a lock");
    let since = "select count(*) from done where name = 'locked' and at > now() - interval '2 s'";
    assert_eq!(cluster.text(since), "0");
    assert_eq!(
        cluster
            .text("select max(at - ts) < '0.5 s' and max(ts) > now() - interval '1.5 s' from done where name = 'free'"),
        "t"
    );
    db.batch_execute("commit").expect("commit");
    let consecutive = |name| {
        format!(
            "select count(*) = extract(epoch from max(ts) - min(ts)) + 1 and max(ts) > now() - interval '2 s' from done where name = '{name}'"
        )
    };
    cluster.wait_for(&consecutive("locked"), "t");
    // A lock of the table: jobs that are due run meanwhile, all the same.
    db.batch_execute("begin; lock table graphile_worker.known_crontabs").expect("a lock");
    cluster.sql("select graphile_worker.add_job('note', '{\"name\": \"due\"}', run_at := now() + interval '1 s')");
    cluster.wait_for("select count(*) from done where name = 'due'", "1");
    db.batch_execute("commit").expect("commit");
    cluster.wait_for(&consecutive("free"), "t");
    assert_eq!(cluster.text("select count(*) - count(distinct (name, ts)) from done where name <> 'due'"), "0");
    assert_eq!(cluster.log_lines(&["WARNING"]), Vec::<String>::new());
}

#[test]
fn a_kill_at_any_step_of_a_fire_leaves_each_instant_fired_once() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 2", "restart_after_crash = on"]);
    cluster.sql(PREPARE);
    schedule(&cluster, "s", "*/3 * * * * *", ", missed := 'all'");
    schedule(&cluster, "t", "*/3 * * * * *", "");
    let fired = || -> Option<i64> {
        // The server may go down between the two.
        let mut db = cluster.try_connect_as("postgres", "postgres").ok()?;
        Some(db.query_one("select count(*) from done", &[]).ok()?.get(0))
    };
    for point in ["fire_locked", "fire_marked", "fire_added", "firing", "fired"] {
        for action in ["kill", "exit", "error"] {
            if (point, action) == ("fired", "error") {
                continue;
            }
            let before = fired();
            // Between two instants, so that nothing else comes by.
            sleep(Duration::from_millis(10));
            cluster.wait_for("select extract(epoch from now())::numeric % 3 between 1 and 2", "t");
            cluster.arm(point, action);
            assert!(wait_until(SOON, || !cluster.is_armed(point)), "{point} {action}");
            assert!(wait_until(SOON, || fired().is_some_and(|now| before.is_none_or(|before| now > before))));
        }
    }
    let settled = "select max(ts) > now() - interval '5 s' from done where name = 's'";
    assert!(wait_until(SOON, || cluster
        .try_connect_as("postgres", "postgres")
        .is_ok_and(|mut db| db.query_one(settled, &[]).is_ok_and(|row| row.get::<_, Option<bool>>(0) == Some(true)))));
    cluster.wait_for("select count(*) from graphile_worker.jobs where task_identifier = 'note'", "0");
    // What fell due while no scheduler ran is made up for, or counted; nothing else is missing, and nothing is there twice.
    for name in ["s", "t"] {
        let found = cluster.text(&format!(
            "select count(*) || ' ' || count(distinct ts) || ' ' || extract(epoch from max(ts) - min(ts))::int / 3 + 1 - missed_count
             from done join kongtask.schedules using (name) where name = '{name}' group by missed_count"
        ));
        let numbers: Vec<&str> = found.split(' ').collect();
        assert!(
            numbers.len() == 3 && numbers.iter().all(|number| *number == numbers[0]),
            "{name}: {found}\n{}",
            cluster.log()
        );
    }
}

#[test]
fn beside_graphile_worker_each_minute_fires_once() {
    let cluster = cluster(&[]);
    cluster.sql("insert into graphile_worker.known_crontabs values ('here', now() - interval '1 day', now() - interval '5 minutes')");
    let crontab = "* * * * * note ?id=here&fill=4m {\"name\": \"here\"}\n* * * * * note ?id=new {\"name\": \"new\"}\n";
    let imported = cluster.text(&format!(
        "select string_agg(concat_ws(' ', name, cron, task, payload::text, missed, missed_within), E'\\n')
         from kongtask.import_crontab($${crontab}$$)"
    ));
    assert_eq!(
        imported,
        "here * * * * * note {\"name\":\"here\"} all 00:04:00\nnew * * * * * note {\"name\":\"new\"} skip"
    );
    let worker = Worker::start(&cluster, ("postgres", "postgres"), "0.12.2", &[("other", "")], crontab, &[]);
    cluster.wait_for("select count(*) between 3 and 5 from done where name = 'here' and backfilled", "t");
    let begun = Instant::now();
    let twice = "select min(count) from (select count(distinct ts) from done where not backfilled group by name) c having count(*) = 2";
    let mut db = cluster.connect();
    assert!(
        wait_until(Duration::from_secs(130), || ["2", "3"].contains(&text(&mut db, twice).as_str())),
        "{}",
        worker.log()
    );
    assert!(begun.elapsed() > Duration::from_secs(50));
    // Whoever came second would have been by now.
    sleep(Duration::from_secs(1));
    assert_eq!(text(&mut db, "select count(*) - count(distinct (name, ts)) from done"), "0");
    assert_eq!(
        text(&mut db, "select count(*) = extract(epoch from max(ts) - min(ts)) / 60 + 1 from done where name = 'here'"),
        "t"
    );
}

#[test]
fn a_dump_holds_schedules_and_a_restore_goes_on_from_what_ran_last() {
    let cluster = cluster(&["kongtask.databases = 'postgres, restored'"]);
    schedule(&cluster, "all", "* * * * * *", ", missed := 'all'");
    cluster.wait_for("select count(*) > 1 from done", "t");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    let mut before = cluster.connect();
    let before_schema = snapshot(&mut before, "graphile_worker");
    // Time passes that nothing runs in.
    sleep(Duration::from_millis(2500));
    cluster.sql("create database restored");
    cluster.restore(&dump, "restored", &[]);
    let mut db = cluster.connect_as("postgres", "restored");
    assert_same("a dump", &snapshot(&mut db, "graphile_worker"), &before_schema);
    let whole = "select count(*) = count(distinct ts) and count(*) = extract(epoch from max(ts) - min(ts)) + 1 and max(ts) > now() - interval '2 s'
      and bool_or(backfilled) from done";
    assert!(wait_until(SOON, || text(&mut db, whole) == "t"), "{:?}", rows(&mut db, "select * from done"));
}

#[test]
fn an_upgrade_makes_schedules_and_a_drop_while_they_fire_ends_them() {
    let cluster = Cluster::with(&["kongtask.workers = 2"]);
    cluster.sql("create extension kongtask version '0.2.0'");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "1");
    cluster.sql("alter extension kongtask update");
    cluster.sql(PREPARE);
    for n in 0..50 {
        schedule(&cluster, &format!("s{n}"), "* * * * * *", "");
    }
    cluster.wait_for("select count(distinct name) from done", "50");
    cluster.sql("drop extension kongtask cascade");
    assert_eq!(cluster.text("select count(*) - count(distinct (name, ts)) from done"), "0");
    cluster.sql("create extension kongtask; drop table done; drop function note; drop function nap");
    cluster.sql(PREPARE);
    schedule(&cluster, "again", "* * * * * *", "");
    cluster.wait_for("select count(*) > 1 from done", "t");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn many_that_are_due_at_once_are_all_fired_and_idle_ones_write_nothing() {
    let cluster = cluster(&[]);
    cluster.sql(
        "select count(kongtask.schedule('idle ' || n, '0 0 1 1 *', 'note')) from generate_series(1, 1000) n;
         select count(kongtask.schedule('due ' || n, to_char(now() at time zone 'UTC' + interval '3 s', 'SS MI HH24 DD MM \"*\"'), 'note',
           json_build_object('name', n))) from generate_series(1, 1000) n",
    );
    cluster.wait_for("select count(*) || ' ' || count(distinct name) from done", "1000 1000");
    assert_eq!(cluster.text("select max(at - ts) < '3 s' from done"), "t");
    cluster.sql("checkpoint");
    let idle = || cluster.text("select pg_current_wal_insert_lsn() || ' ' || txid_current_snapshot()");
    let mut quiet = false;
    assert!(wait_until(SOON, || {
        let before = idle();
        sleep(Duration::from_secs(2));
        quiet = idle() == before;
        quiet
    }));
}

#[test]
fn a_clock_that_jumps_fires_nothing_twice_and_is_caught_up_with() {
    const HOUR: i64 = 3600;
    let cluster = Cluster::stopped(&["kongtask.workers = 2", "kongtask.poll_interval = '500ms'"]);
    let mut clock = ShiftedClock::of(&cluster);
    cluster.start_with(&clock.environment());
    cluster.sql("create extension kongtask");
    cluster.sql(PREPARE);
    schedule(&cluster, "some", "* * * * *", "");
    schedule(&cluster, "all", "* * * * *", ", missed := 'all'");
    cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'kongtask scheduler'", "1");
    let count = |name: &str| format!("select count(*) from done where name = '{name}'");
    let at_least = |name: &str, least: i64| cluster.wait_for(&format!("select ({}) >= {least}", count(name)), "t");
    clock.shift(HOUR);
    at_least("some", 60);
    at_least("all", 60);
    clock.shift(0);
    sleep(Duration::from_secs(2));
    assert!(count_of(&cluster, &count("some")) <= 61);
    clock.shift(6 * HOUR);
    at_least("all", 360);
    cluster.wait_for("select missed_count between 238 and 241 from kongtask.schedules where name = 'some'", "t");
    at_least("some", 120);
    clock.shift(HOUR);
    sleep(Duration::from_secs(2));
    assert_eq!(
        cluster.text("select count(*) - count(distinct (name, ts)) + count(*) filter (where backfilled) from done"),
        "0"
    );
    assert!(count_of(&cluster, &count("some")) <= 122 && count_of(&cluster, &count("all")) <= 362);
}

fn count_of(cluster: &Cluster, query: &str) -> i64 {
    cluster.text(query).parse().expect("a number")
}
