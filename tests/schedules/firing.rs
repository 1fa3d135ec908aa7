//! When schedules fire, and what of.

use crate::{CONSECUTIVE, cluster, schedule};
use kongtask_tests::{describe, error, rows, text};
use std::thread::sleep;
use std::time::Duration;

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
