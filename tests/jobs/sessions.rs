//! What handlers leave in their worker's session: how long it is kept, and that the next job meets none of it.

use kongtask_tests::fixtures::with_note;
use kongtask_tests::{Cluster, JOBS, SOON, describe, rows, say, text, wait_until};

const LOCKS: &str = "select count(*) from pg_locks where locktype = 'advisory'";

/// Each counts on from what the one before it has committed.
#[test]
fn a_lock_of_the_session_is_held_until_its_transaction_has_ended() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 4"]);
    cluster.sql(
        "create table counted (n int);
         create function count_on() returns void language plpgsql as $$ begin
           perform pg_advisory_lock(7);
           insert into counted select coalesce(max(n), 0) + 1 from counted;
         end $$;
         create function count_all_on(p json[]) returns void language plpgsql as $$ begin
           perform pg_advisory_lock(7);
           insert into counted select (select coalesce(max(n), 0) from counted) + i from generate_series(1, cardinality(p)) i;
         end $$;
         create function count_late() returns trigger language plpgsql as $$ begin perform count_on(); return null; end $$;
         create table late (n int);
         create constraint trigger count_late after insert on late deferrable initially deferred
           for each row execute function count_late();
         create function count_on_late() returns void language sql as 'insert into late values (1)';
         create function count_on_and_fail(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
           perform count_on(); if j.attempts = 1 then raise 'first attempt'; end if; end $$;
         select kongtask.register_task('alone', 'count_on()'), kongtask.register_task('claimed', 'count_on()', in_place := false),
           kongtask.register_task('batch', 'count_on()', max_batch := 20),
           kongtask.register_task('set', 'count_all_on(json[])', max_batch := 20),
           kongtask.register_task('late', 'count_on_late()'), kongtask.register_task('late_batch', 'count_on_late()', max_batch := 20),
           kongtask.register_task('fails', 'count_on_and_fail(json, graphile_worker.jobs)')",
    );
    let mut db = cluster.connect();
    for (task, keys) in [
        ("alone", "null"),
        ("claimed", "null"),
        ("batch", "null"),
        ("batch", "'k' || n"),
        ("set", "null"),
        ("set", "'k' || n"),
        ("late", "null"),
        ("late_batch", "null"),
        ("fails", "null"),
    ] {
        cluster.sql("truncate counted");
        cluster.sql(&format!(
            "select count(graphile_worker.add_job('{task}', '[]', job_key := {keys})) from generate_series(1, 500) n"
        ));
        if task == "fails" {
            cluster.wait_for(&format!("{JOBS} where attempts = 0 or locked_at is not null"), "0");
            cluster.sql(
                "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())",
            );
        }
        cluster.wait_for(JOBS, "0");
        assert_eq!(
            text(&mut db, "select count(*) || ' ' || count(distinct n) from counted"),
            "500 500",
            "{task}, {keys}"
        );
        // They are released in the moment after the commit.
        cluster.wait_for(LOCKS, "0");
    }
}

/// Users' code runs in the commit itself, after the handler's call.
#[test]
fn what_a_deferred_trigger_leaves_behind_reaches_no_job() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    cluster.sql(
        "alter role postgres set lock_timeout = '3s';
         create table late (what text); create table seen (what jsonb); create sequence late_seq;
         create function litter() returns trigger language plpgsql as $$ begin execute new.what; return null; end $$;
         create constraint trigger litter after insert on late deferrable initially deferred
           for each row execute function litter();
         create function litter(p json) returns void language sql as $$ insert into late values (p #>> '{}') $$;
         create function look() returns void language plpgsql as $$ declare last text = 'none'; begin
           begin last := lastval(); exception when others then null; end;
           insert into seen values (jsonb_build_object(
             'last value', last, 'search_path', current_setting('search_path'), 'lock_timeout', current_setting('lock_timeout'),
             'tables', (select jsonb_agg(relname) from pg_class where relnamespace = pg_my_temp_schema()),
             'locks', (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
             'cursors', (select jsonb_agg(name) from pg_cursors), 'prepared', (select jsonb_agg(name) from pg_prepared_statements)));
         end $$;
         select kongtask.register_task('look', 'look()'), kongtask.register_task('litter', 'litter(json)'),
           kongtask.register_task('litter_batch', 'litter(json)', max_batch := 50)",
    );
    let mut db = cluster.connect();
    let mut look = |jobs: &str| {
        cluster.sql(&format!("truncate seen; begin; select {jobs}graphile_worker.add_job('look'); commit"));
        cluster.wait_for(JOBS, "0");
        rows(&mut db, "select what from seen")
    };
    let clean = look("");
    assert!(clean[0].contains(r#""lock_timeout": "3s""#), "{clean:?}");
    let mut left = Vec::new();
    for litter in [
        "set search_path = nowhere",
        "set lock_timeout = '7s'",
        "set local lock_timeout = '7s'",
        "create temporary table litter as select 1 as n",
        "select pg_advisory_lock(1)",
        "declare litter cursor with hold for select generate_series(1, 3)",
        "prepare litter as select 1",
        "select nextval('public.late_seq')",
    ] {
        for task in ["litter", "litter_batch"] {
            let job = format!("graphile_worker.add_job('{task}', to_json($litter${litter}$litter$::text)), ");
            let seen = look(&job.repeat(2));
            if seen != clean {
                left.push(format!("{task}: {litter}: {seen:?}"));
            }
        }
    }
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn how_random_goes_on_is_not_for_another_job_to_say() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table drawn (n float8);
         create function seed() returns void language plpgsql as $$ begin perform setseed(0.5); end $$;
         create function draw() returns void language sql as 'insert into drawn values (random())';
         create function seed_late() returns trigger language plpgsql as $$ begin perform setseed(0.5); return null; end $$;
         create table late (n int);
         create constraint trigger seed_late after insert on late deferrable initially deferred
           for each row execute function seed_late();
         create function late() returns void language sql as 'insert into late values (1)';
         create function seed_or_draw(p json) returns void language plpgsql as $$ begin
           if p::text = '1' then perform seed(); else perform draw(); end if; end $$;
         select kongtask.register_task('seed', 'seed()'), kongtask.register_task('draw', 'draw()'),
           kongtask.register_task('late', 'late()'), kongtask.register_task('batch', 'seed_or_draw(json)', max_batch := 10)",
    );
    for _ in 0..3 {
        for (first, second) in [("seed", "draw"), ("late", "draw"), ("batch", "batch")] {
            cluster.sql(&format!(
                "begin; select graphile_worker.add_job('{first}', '1'), graphile_worker.add_job('{second}', '2'); commit"
            ));
            cluster.wait_for(JOBS, "0");
        }
    }
    let mut db = cluster.connect();
    let foretold = text(&mut db, "select random() from (select setseed(0.5)) seeded");
    assert_eq!(text(&mut db, &format!("select count(*) from drawn where n = {foretold}")), "0");
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from drawn"), "9 9");
}

#[test]
fn connections_of_dblink_and_temporary_slots_reach_no_other_job() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1", "log_connections = on"]);
    let there = format!("'host={} user=postgres dbname=postgres'", cluster.host());
    let has_dblink = cluster.text("select count(*) from pg_available_extensions where name = 'dblink'") == "1";
    let (connects, connects_late) = if has_dblink {
        cluster.sql("create extension dblink");
        let connects = format!(
            "perform dblink_connect('one', {there}), dblink_connect('an other', {there}), dblink_connect({there});
             perform dblink_exec('one', 'begin; insert into done values (''not committed'')');"
        );
        (connects, format!("perform dblink_connect('one', {there});"))
    } else {
        assert_ne!(cluster.version(), 15, "dblink is not installed: run make setup");
        say(&format!("dblink is not tested on PostgreSQL {}: this server was built without it", cluster.version()));
        Default::default()
    };
    cluster.sql(&format!(
        "create table done (what text);
         create function connects(p json) returns void language plpgsql as $$ begin
           {connects}
           perform pg_create_physical_replication_slot('litter', temporary := true);
           insert into done values ('done');
           if p ->> 'fail' is not null then raise 'as told'; end if; end $$;
         create function connects_late() returns trigger language plpgsql as $$ begin
           {connects_late}
           if new.fails then raise 'as told'; end if; return null; end $$;
         create table late (fails boolean);
         create constraint trigger connects_late after insert on late deferrable initially deferred
           for each row execute function connects_late();
         create function late(p json) returns void language sql as $$ insert into late values (p ->> 'fail' is not null) $$;
         select kongtask.register_task('alone', 'connects(json)'), kongtask.register_task('batch', 'connects(json)', max_batch := 10),
           kongtask.register_task('late', 'late(json)')",
    ));
    let mut done = 0;
    for task in ["alone", "batch", "late", "alone"] {
        cluster.sql(&format!(
            "begin; select graphile_worker.add_job('{task}', '{{}}', max_attempts := 1),
               graphile_worker.add_job('{task}', '{{\"fail\": 1}}', max_attempts := 1),
               graphile_worker.add_job('{task}', '{{}}', max_attempts := 1); commit"
        ));
        cluster.wait_for(&format!("{JOBS} where attempts = 0"), "0");
        let mut db = cluster.connect();
        let said = "select string_agg(split_part(last_error, E'\n', 1), ', ') from graphile_worker.jobs";
        assert_eq!(text(&mut db, said), "as told (SQLSTATE P0001)", "{task}");
        cluster.sql("delete from graphile_worker.jobs");
        done += if task == "late" { 0 } else { 2 };
        assert_eq!(rows(&mut db, "select what, count(*) from done group by what"), [format!("done|{done}")], "{task}");
        // Those of a client are for that to close; the one that asks is one.
        cluster.wait_for("select count(*) from pg_stat_activity where backend_type = 'client backend'", "2");
        assert_eq!(text(&mut db, "select count(*) from pg_replication_slots"), "0");
    }
    assert_eq!(cluster.text("select count(*) from kongtask.workers"), "1");
    assert_eq!(cluster.log_lines(&["ERROR", "PANIC"]), Vec::<String>::new());
}

/// What a handler may do to its session that outlives its transaction, or what it set with it.
const LITTER: &[&str] = &[
    "set search_path = pg_catalog",
    "select set_config('work_mem', '123kB', false), set_config('my.litter', 'left', false)",
    "set local work_mem = '123kB'",
    "set statement_timeout = '1ms'",
    "set lock_timeout = '7s'",
    "set role bob",
    "set session authorization bob",
    "set session_replication_role = replica",
    "set transaction read only",
    "reset all",
    "create temporary table litter as select 1 as n",
    "create temporary table seen (what jsonb)",
    "create function pg_temp.litter() returns int language sql as 'select 1'",
    "select pg_advisory_lock(1), pg_advisory_lock_shared(2)",
    "listen litter",
    "declare litter cursor with hold for select generate_series(1, 3)",
    "prepare litter as select 1",
    "deallocate all",
    "discard plans",
    "discard sequences",
    "select nextval('public.litter_seq')",
    "do $do$ begin insert into public.half values ('done'); commit; end $do$",
    "call public.commits()",
    "discard all",
];

/// `litter` does as it is told, and looks around if it is told nothing, as `look` does, which is another task.
const LITTERERS: &str = "
    create function look() returns void language plpgsql as $$ declare last text = 'none'; begin
      begin last := lastval(); exception when others then null; end;
      insert into seen values (jsonb_build_object(
        'user', current_user, 'session user', session_user, 'last value', last, 'my', nullif(current_setting('my.litter', true), ''),
        'settings', (select jsonb_object_agg(name, setting) from pg_settings where source = 'session'),
        'search_path', current_setting('search_path'), 'replication', current_setting('session_replication_role'),
        'tables', (select jsonb_agg(relname) from pg_class where relnamespace = pg_my_temp_schema()),
        'functions', (select jsonb_agg(proname) from pg_proc where pronamespace = pg_my_temp_schema()),
        'locks', (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
        'channels', (select jsonb_agg(channel) from pg_listening_channels() channel),
        'cursors', (select jsonb_agg(name) from pg_cursors), 'prepared', (select jsonb_agg(name) from pg_prepared_statements)));
    end $$;
    create function litter(p json) returns void language plpgsql as $$ begin
      if p ->> 'do' is null then perform look(); else execute p ->> 'do'; end if;
      if p ->> 'fail' is not null then raise 'as told'; end if; end $$;
    create procedure commits() language plpgsql as $$ begin insert into public.half values ('done'); commit; end $$;
    select kongtask.register_task('look', 'look()'), kongtask.register_task('litter', 'litter(json)'),
      kongtask.register_task('litter_batch', 'litter(json)', max_batch := 50);";

/// Has a role run jobs that leave things behind, and tells what the next job met of them.
fn what_is_left(cluster: &Cluster, role: &str) -> Vec<String> {
    cluster.connect_as(role, "postgres").batch_execute(LITTERERS).unwrap_or_else(|e| panic!("{}", describe(&e)));
    let mut db = cluster.connect();
    let mut look = |jobs: &str, looks: usize| {
        db.batch_execute(&format!("truncate seen; begin; {jobs}; commit")).expect(jobs);
        let looked = wait_until(SOON, || {
            // What failed has; what waits behind a failure that time is given to is of no interest.
            text(&mut db, "select count(*) from graphile_worker.jobs where attempts < max_attempts") == "0"
        });
        assert!(looked, "{role}: {jobs}\n{}", cluster.log());
        db.batch_execute("delete from graphile_worker.jobs").expect("delete");
        let seen = rows(&mut db, "select what from seen");
        if seen.len() == looks { seen } else { vec![format!("{} of {looks} looks", seen.len())] }
    };
    let clean = look("select graphile_worker.add_job('look')", 1);
    let mut left = Vec::new();
    for &litter in LITTER {
        for (how, jobs, looks) in [
            ("in place", "add_job('litter', {done}, max_attempts := 1)", 1),
            ("claimed", "add_job('litter', {done}, max_attempts := 1, job_key := 'k')", 1),
            ("and fails", "add_job('litter', {failed}, max_attempts := 1)", 1),
            (
                "in a batch",
                "add_job('litter_batch', {done}, max_attempts := 1), graphile_worker.add_job('litter_batch'),
                 graphile_worker.add_job('litter_batch', {failed}, max_attempts := 1), graphile_worker.add_job('litter_batch')",
                3,
            ),
        ] {
            let payload = |fail: &str| format!("json_build_object('do', $litter${litter}$litter${fail})");
            let jobs = jobs.replace("{done}", &payload("")).replace("{failed}", &payload(", 'fail', true"));
            let seen = look(&format!("select graphile_worker.{jobs}, graphile_worker.add_job('look')"), looks);
            // What shares a transaction shares its locks.
            let shared = if how == "in a batch" { r#""locks": 2"# } else { "" };
            let unlocked = |seen: &String| if shared.is_empty() { seen.clone() } else { seen.replace(shared, r#""locks": 0"#) };
            left.extend(seen.iter().find(|seen| unlocked(seen) != clean[0]).map(|seen| format!("{role}: {litter}, {how}: {seen}")));
        }
    }
    left
}

#[test]
fn nothing_that_a_handler_leaves_behind_reaches_the_next_job() {
    let mut left = Vec::new();
    for role in ["alice", "postgres"] {
        let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
        cluster.sql(
            "create role alice login; create role bob; grant bob to alice; grant create on schema public to alice;
             grant usage on schema kongtask to alice; grant execute on function kongtask.register_task to alice;
             create table seen (what jsonb); create table half (what text); create sequence litter_seq;
             grant all on seen, half, litter_seq to alice",
        );
        left.extend(what_is_left(&cluster, role));
        assert_eq!(cluster.text("select count(*) from half"), "0", "a handler has committed");
        assert_eq!(cluster.text("select count(*) from kongtask.workers"), "1");
        assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC"]), Vec::<String>::new());
    }
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn nothing_of_one_handler_s_settings_reaches_the_next() {
    let cluster = with_note(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function dirty() returns void language plpgsql as $$ begin
           set search_path = nowhere; set work_mem = '77MB'; perform set_config('my.setting', 'left over', false);
         end $$;
         create function clean() returns void language sql as $$ insert into public.done (what) values
           (current_setting('search_path') || '|' || current_setting('work_mem') || '|' ||
            coalesce(current_setting('my.setting', true), '')) $$;
         select kongtask.register_task('dirty', 'dirty()'), kongtask.register_task('clean', 'clean()');
         select graphile_worker.add_job('dirty'), graphile_worker.add_job('clean');",
    );
    cluster.wait_for("select what from done", "\"$user\", public|4MB|");
}
