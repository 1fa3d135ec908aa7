//! Queues and their locks: nobody waits for who adds to one, no lock outlives its job, and no number of jobs makes one slow.

use kongtask_tests::fixtures::with_note;
use kongtask_tests::programs::cpu_time;
use kongtask_tests::{Cluster, IDLE, JOBS, LOCKED, SOON, describe, text, wait_until};
use postgres::Client;
use std::time::Instant;

/// A cluster whose task `run` runs its payload as SQL, and notes the job and the time in `done` before it.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(
        "create table done (job bigint, at timestamptz default clock_timestamp());
         create function run(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
           insert into done values (j.id); execute p ->> 'do'; end $$;
         select kongtask.register_task('run', 'run(json, graphile_worker.jobs)')",
    );
    cluster
}

fn add(db: &mut Client, what: &str, arguments: &str) -> i64 {
    let statement =
        format!("select id from graphile_worker.add_job('run', json_build_object('do', $do${what}$do$){arguments})");
    text(db, &statement).parse().expect("an id")
}

/// What each job has done, once, in the order of the jobs' ids.
fn done(cluster: &Cluster) -> String {
    cluster.text("select string_agg(job::text, ' ' order by at) from done")
}

#[test]
fn handlers_that_add_to_each_others_queues_do_not_wait_for_each_other() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "create function cross_over(queue text) returns void language plpgsql as $$ begin
           perform graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := queue); perform pg_sleep(0.1); end $$",
    );
    let mut db = cluster.connect();
    // So that the ids are 1 to 20, the odd ones in queue a.
    db.batch_execute("begin").expect("begin");
    for _ in 0..10 {
        add(&mut db, "select cross_over('b')", ", queue_name := 'a'");
        add(&mut db, "select cross_over('a')", ", queue_name := 'b'");
    }
    db.batch_execute("commit").expect("commit");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct job) from done"), "40 40");
    let in_order = "select bool_and(job > before) from (
        select job, lag(job) over (partition by job % 2 order by at) as before from done where job <= 20) d where before is not null";
    assert_eq!(cluster.text(in_order), "t");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
    assert!(!cluster.log().contains("failed on attempt"), "{}", cluster.log());
    assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
}

/// A worker takes many jobs of such a task at once, but one queue.
#[test]
fn every_queue_has_its_turn_though_jobs_of_its_task_may_share_a_transaction() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql("select kongtask.alter_task('run', max_batch := 10)");
    cluster.wait_for(IDLE, "2");
    cluster.sql(
        "select count(graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := 'q' || n % 20))
         from generate_series(1, 60) n",
    );
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct job) from done"), "60 60");
}

/// Each takes the key of the other: one of the two has to wait, and Postgres ends a deadlock by failing one.
#[test]
fn a_deadlock_of_two_jobs_that_add_each_others_keys_is_nobodys_failure() {
    let cluster = cluster(&["kongtask.workers = 2", "deadlock_timeout = '100ms'"]);
    cluster.sql(
        "create function take_over(key text) returns void language plpgsql as $$ begin
           -- Once both run; where one runs again, it does so alone.
           for n in 1..100 loop
             exit when (select count(*) from graphile_worker.jobs where locked_at is not null) = 2;
             perform pg_sleep(0.01);
           end loop;
           perform graphile_worker.add_job('run', '{\"do\": \"select 1\"}', job_key := key); perform pg_sleep(0.5); end $$",
    );
    let mut db = cluster.connect();
    // So that both run at once.
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "2");
    db.batch_execute("begin").expect("begin");
    let first = add(&mut db, "select take_over('l')", ", job_key := 'k', max_attempts := 1");
    let second = add(&mut db, "select take_over('k')", ", job_key := 'l', max_attempts := 1");
    db.batch_execute("commit").expect("commit");
    cluster.wait_for(JOBS, "0");
    cluster.wait_for_log("is run again: it and another transaction waited for each other to change jobs");
    let mut jobs: Vec<i64> = done(&cluster).split(' ').map(|job| job.parse().expect("a job")).collect();
    jobs.sort_unstable();
    assert_eq!(jobs.len(), 4, "{jobs:?}");
    assert_eq!(jobs[..2], [first, second]);
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
}

#[test]
fn who_settles_the_running_job_of_a_queue_leaves_no_lock_behind() {
    for (statement, comes_back) in [
        ("delete from graphile_worker.jobs where id = 1", false),
        ("select graphile_worker.complete_job('somebody', 1)", false),
        ("truncate graphile_worker.jobs", false),
        ("set session_replication_role = replica; delete from graphile_worker.jobs where id = 1", false),
        ("update graphile_worker.jobs set locked_at = null, locked_by = null where id = 1", true),
        (
            "select graphile_worker.force_unlock_workers(array(select locked_by from graphile_worker.jobs where id = 1))",
            true,
        ),
    ] {
        let cluster = cluster(&["kongtask.workers = 3", "kongtask.poll_interval = '1h'"]);
        cluster.sql("create table gate (open boolean); insert into gate values (false)");
        let mut db = cluster.connect();
        let waits = "do $$ begin while not (select open from gate) loop perform pg_sleep(0.01); end loop; end $$";
        add(&mut db, waits, ", queue_name := 'q'");
        // A worker that runs has not claimed the job yet.
        cluster.wait_for("select count(*) from graphile_worker.jobs where locked_at is not null", "1");
        cluster.sql(statement);
        add(&mut db, "select 1", ", queue_name := 'q'");
        // One at a time: what runs still runs, whoever has let go of its row.
        add(&mut db, "select 1", "");
        cluster.wait_for("select count(*) from done where job = 3", "1");
        assert_eq!(cluster.text("select count(*) from done where job = 2"), "0", "{statement}");
        cluster.sql("update gate set open = true");
        cluster.wait_for("select count(*) from done where job = 2", "1");
        cluster.wait_for(JOBS, "0");
        assert_eq!(
            cluster.text("select count(*) from done where job = 1"),
            if comes_back { "1" } else { "0" },
            "{statement}"
        );
        assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0", "{statement}");
        assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new(), "{statement}");
    }
}

/// The same for an external worker, of which nobody knows whether it lives: whoever deletes its job says that it does not.
#[test]
fn a_queue_that_is_locked_for_a_job_that_is_gone_is_found_and_released() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '200ms'"]);
    for statement in [
        "delete from graphile_worker.jobs where task_identifier = 'elsewhere'",
        "truncate graphile_worker.jobs",
        "set session_replication_role = replica; delete from graphile_worker.jobs where task_identifier = 'elsewhere'",
        "set session_replication_role = replica;
         update graphile_worker.jobs set locked_by = null, locked_at = null, attempts = max_attempts where task_identifier = 'elsewhere'",
    ] {
        cluster.sql("select graphile_worker.add_job('elsewhere', queue_name := 'q')");
        assert_eq!(cluster.text("select task_identifier from graphile_worker.get_job('external-worker')"), "elsewhere");
        cluster.sql(statement);
        let job = add(&mut cluster.connect(), "select 1", ", queue_name := 'q'");
        cluster.wait_for(&format!("select count(*) from done where job = {job}"), "1");
        cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
        cluster.sql("delete from graphile_worker.jobs");
    }
}

/// What a handler does to its own job in its own transaction stands.
#[test]
fn a_handler_may_settle_its_own_job() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let me = "(kongtask.current_job()).id";
    for arguments in ["", ", queue_name := 'q'", ", job_key := 'k'", ", queue_name := 'q', job_key := 'k'"] {
        for completes in [
            format!("select graphile_worker.complete_job('x', {me})"),
            format!("delete from graphile_worker.jobs where id = {me}"),
        ] {
            let job = add(&mut db, &completes, arguments);
            cluster.wait_for(JOBS, "0");
            assert_eq!(
                cluster.text(&format!("select count(*) from done where job = {job}")),
                "1",
                "{arguments}: {completes}"
            );
        }
    }
    for arguments in [", queue_name := 'q'", ", job_key := 'k'"] {
        let fails = format!("select graphile_worker.fail_job((kongtask.current_job()).locked_by, {me}, 'by itself')");
        let job = add(&mut db, &fails, arguments);
        let says = "select attempts || ' ' || last_error || ' ' || (run_at > now()) from graphile_worker.jobs";
        cluster.wait_for(says, "1 by itself true");
        assert_eq!(cluster.text(&format!("select count(*) from done where job = {job}")), "1", "{arguments}");
        assert_eq!(cluster.text(LOCKED), "0", "{arguments}");
        assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0", "{arguments}");
        cluster.sql("delete from graphile_worker.jobs");
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// It is in nobody's way where it was.
#[test]
fn a_running_job_that_is_moved_out_of_a_queue_releases_it() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    add(&mut db, "select pg_sleep(1)", ", queue_name := 'q'");
    cluster.wait_for(LOCKED, "2");
    cluster.sql("update graphile_worker.jobs set queue_name = 'other' where id = 1");
    add(&mut db, "select 1", ", queue_name := 'q'");
    cluster.wait_for("select count(*) from done where job = 2", "1");
    assert_eq!(cluster.text("select count(*) from done where job = 1"), "0");
    cluster.wait_for(JOBS, "0");
    assert_eq!(done(&cluster), "1 2");
    assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
}

#[test]
fn an_application_that_is_idle_in_a_transaction_holds_nobodys_queue_up() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    let mut idle = cluster.connect();
    let mut db = cluster.connect();
    add(&mut db, "select pg_sleep(0.3)", ", queue_name := 'q'");
    idle.batch_execute("begin").expect("begin");
    let last = add(&mut idle, "select 1", ", queue_name := 'q'");
    db.batch_execute("set lock_timeout = '1s'").expect("set");
    add(&mut db, "select 1", ", queue_name := 'q'");
    add(&mut db, "select 1", "");
    cluster.wait_for(JOBS, "0");
    idle.batch_execute("commit").expect("commit");
    cluster.wait_for(&format!("select count(*) from done where job = {last}"), "1");
}

/// What a handler that adds to a queue, and goes on for long, has added is nobody's business until it commits.
#[test]
fn who_adds_to_a_queue_does_not_wait_for_a_handler_that_has_done_so() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    let mut db = cluster.connect();
    let adds = "do $$ begin perform graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := 'q');
                perform pg_sleep(60); end $$";
    add(&mut db, adds, "");
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    db.batch_execute("set lock_timeout = '1s'").expect("set");
    let job = add(&mut db, "select 1", ", queue_name := 'q'");
    cluster.wait_for(&format!("select count(*) from done where job = {job}"), "1");
}

/// Logical replication, and dumps that are restored with --disable-triggers, fire no trigger.
#[test]
fn jobs_that_come_while_triggers_are_off_run() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '200ms'"]);
    let mut db = cluster.connect();
    db.batch_execute(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, queue_name, payload, attempts, locked_at, locked_by)
           values ('run', 'q', '{\"do\": \"select 1\"}', 0, null, null), ('run', 'q', '{\"do\": \"select 1\"}', 0, null, null),
             ('run', null, '{\"do\": \"select 1\"}', 1, now(), 'kongtask:00'), ('run', 'r', '{\"do\": \"select 1\"}', 25, now(), 'kongtask:00');
         insert into graphile_worker.job_queues (queue_name, job_count, locked_at, locked_by) values ('r', 1, now(), 'kongtask:00');
         set session_replication_role = origin",
    )
    .unwrap_or_else(|e| panic!("{}", describe(&e)));
    let last = add(&mut db, "select 1", ", queue_name := 'q'");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) || ' ' || max(job) from done"), format!("5 {last}"));
    assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
}

/// Whether a worker of ours lives is known without clocks: a lock that looks five hours old is no dead one.
#[test]
fn a_clock_that_jumps_forward_lets_nobody_take_what_a_worker_runs() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '100ms'"]);
    let mut db = cluster.connect();
    add(&mut db, "select pg_sleep(1.5)", ", queue_name := 'q', job_key := 'k'");
    cluster.wait_for(LOCKED, "2");
    // As a clock that has been set forward sees it.
    db.batch_execute(
        "update graphile_worker.jobs set locked_at = locked_at - interval '5 hours';
         update graphile_worker.job_queues set locked_at = locked_at - interval '5 hours'",
    )
    .expect("update");
    add(&mut db, "select 1", ", queue_name := 'q'");
    for call in [
        "graphile_worker.get_job('external-worker', '{run}')",
        "graphile_worker.complete_jobs('{1}')",
        "graphile_worker.permanently_fail_jobs('{1}')",
        "graphile_worker.reschedule_jobs('{1}', run_at := now())",
    ] {
        assert_eq!(text(&mut db, &format!("select count(*) from {call} j where j.id is not null")), "0", "{call}");
    }
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select string_agg(job::text, ' ' order by at) from done"), "1 2");
    assert_eq!(cluster.log_lines(&["WARNING"]), Vec::<String>::new());
}

#[test]
fn no_setting_of_how_numbers_are_written_keeps_failures_from_being_recorded() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "alter database postgres set extra_float_digits = -15; alter database postgres set intervalstyle = 'sql_standard';
         select pg_terminate_backend(pid) from kongtask.workers",
    );
    let mut db = cluster.connect();
    db.batch_execute("set extra_float_digits = 0").expect("set");
    for arguments in ["", ", queue_name := 'q'", ", job_key := 'k'"] {
        add(&mut db, "select 1 / 0", arguments);
    }
    let recorded =
        "select count(*) from graphile_worker.jobs where attempts = 1 and last_error like 'division by zero%'
                      and locked_at is null and run_at - updated_at between '2.7 s' and '2.72 s'";
    cluster.wait_for(recorded, "3");
    let mut quiet = cluster.connect();
    assert_eq!(text(&mut quiet, "show extra_float_digits"), "-15");
    quiet
        .batch_execute(
            "select graphile_worker.add_job('elsewhere'), graphile_worker.get_job('external-worker', '{elsewhere}');
             select graphile_worker.fail_job('external-worker', id, 'e') from graphile_worker.jobs where task_identifier = 'elsewhere'",
        )
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
}

/// How many seconds of its CPU a session needs to add so many jobs in one transaction.
fn seconds_of_cpu(db: &mut Client, counts: &[usize], statement: &str) -> Vec<f64> {
    let session = text(db, "select pg_backend_pid()").parse().expect("a pid");
    let mut seconds = Vec::new();
    for count in counts {
        // The best of three: others use this machine too.
        let best = (0..3).map(|_| {
            let before = cpu_time(session);
            db.batch_execute(&statement.replace("{count}", &count.to_string()))
                .unwrap_or_else(|e| panic!("{}", describe(&e)));
            (cpu_time(session) - before).as_secs_f64()
        });
        seconds.push(best.fold(f64::MAX, f64::min));
        db.batch_execute("truncate graphile_worker.jobs, graphile_worker.job_queues").expect("truncate");
    }
    seconds
}

#[test]
fn adding_many_jobs_to_a_queue_takes_time_in_proportion() {
    let cluster = cluster(&["kongtask.databases = ''"]);
    let mut db = cluster.connect();
    for statement in [
        "select count(*) from graphile_worker.add_jobs(array(select ('run', null, 'q', null, null, null, null, null)::graphile_worker.job_spec
           from generate_series(1, {count})))",
        "select count(graphile_worker.add_job('run', queue_name := 'q')) from generate_series(1, {count})",
        "insert into graphile_worker.jobs (task_identifier, queue_name) select 'run', 'q' from generate_series(1, {count})",
        "select count(graphile_worker.add_job('run', queue_name := 'q', job_key := 'k' || n)) from generate_series(1, {count}) n",
        "select count(*) from graphile_worker.add_jobs(array(select ('run', null, 'q', null, null, 'k' || n, null, null)::graphile_worker.job_spec
           from generate_series(1, {count}) n))",
    ] {
        let seconds = seconds_of_cpu(&mut db, &[5_000, 20_000], statement);
        // Four times as many: what grows with the square takes sixteen times as long.
        assert!(seconds[1] < seconds[0] * 8.0 + 0.1, "{statement}: {seconds:?}");
    }
}

/// Each job of a queue looks for the next one, and needs no list of all tasks for that.
#[test]
fn how_many_tasks_are_registered_does_not_matter_to_a_queue() {
    let cluster = cluster(&["kongtask.workers = 1", "synchronous_commit = off"]);
    cluster.sql("create function nothing(p json) returns void language sql as 'select'");
    let mut db = cluster.connect();
    let mut seconds = |tasks: usize| {
        db.batch_execute(&format!(
            "select count(kongtask.register_task('t' || n, 'nothing(json)')) from generate_series(1, {tasks}) n;
             truncate done"
        ))
        .expect("register");
        // The worker has read them.
        let first = add(&mut db, "select 1", ", queue_name := 'q'");
        cluster.wait_for(&format!("select count(*) from done where job = {first}"), "1");
        let begun = Instant::now();
        db.batch_execute(
            "select count(graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := 'q')) from generate_series(1, 1000)",
        )
        .expect("add_job");
        cluster.wait_for(JOBS, "0");
        begun.elapsed().as_secs_f64()
    };
    let (few, many) = (seconds(1), seconds(5_000));
    assert!(many < few * 2.0 + 0.3, "{few} and {many} s");
}

/// Jobs that external workers handle hold nobody up, and are passed in pages.
#[test]
fn a_queue_s_next_job_is_found_behind_those_of_external_workers() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    for elsewhere in [1, 99, 100, 101, 250] {
        db.batch_execute(&format!(
            "select count(graphile_worker.add_job('elsewhere', queue_name := 'q')) from generate_series(1, {elsewhere})"
        ))
        .expect("add_job");
        let job = add(&mut db, "select 1", ", queue_name := 'q'");
        cluster.wait_for(&format!("select count(*) from done where job = {job}"), "1");
    }
    cluster.wait_for(JOBS, "551");
}

/// The search for what falls due is not one of each priority in turn.
#[test]
fn what_falls_due_is_not_late_however_many_priorities_are_in_use() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql("create table lateness (late interval)");
    let mut db = cluster.connect();
    db.batch_execute(
        "insert into graphile_worker.jobs (task_identifier, priority, run_at) select 'run', n, now() + interval '1 day'
           from generate_series(1, 100000) n; analyze graphile_worker.jobs",
    )
    .expect("insert");
    let notes = "insert into lateness select clock_timestamp() - (kongtask.current_job()).run_at";
    for _ in 0..5 {
        // Behind all of them.
        let job = add(&mut db, notes, ", run_at := clock_timestamp() + interval '50 ms', priority := 200000");
        cluster.wait_for(&format!("select count(*) from done where job = {job}"), "1");
    }
    let median = "select percentile_cont(0.5) within group (order by late) from lateness";
    assert_eq!(cluster.text(&format!("select ({median}) < interval '100 ms'")), "t", "{}", cluster.text(median));
}

#[test]
fn a_queue_runs_one_job_at_a_time_in_order_while_others_go_on() {
    let cluster = with_note(&["kongtask.workers = 4"]);
    cluster.sql(
        "create function slow(p json) returns void language plpgsql as $$ begin
           if not pg_try_advisory_xact_lock(42) then raise exception 'two at once'; end if;
           perform pg_sleep(0.01);
           insert into done (job, what) values ((kongtask.current_job()).id, 'q');
         end $$;
         select kongtask.register_task('slow', 'slow(json)');
         select graphile_worker.add_job('slow', queue_name := 'q') from generate_series(1, 40);
         select graphile_worker.add_job('note', '1') from generate_series(1, 40);",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let mut db = cluster.connect();
    assert_eq!(text(&mut db, "select count(*) from done"), "80");
    assert_eq!(
        text(
            &mut db,
            "select bool_and(job > before) from (select job, lag(job) over (order by at) as before from done where what = 'q') d where before is not null"
        ),
        "t"
    );
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues"), "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
    assert!(!cluster.log().contains("two at once"));
}

/// An old snapshot keeps the entries of finished jobs in the indexes: no job passes those of all before it.
#[test]
fn a_queue_is_worked_down_in_proportion_while_an_old_snapshot_is_held() {
    let cluster = cluster(&["kongtask.workers = 1", "synchronous_commit = off", "autovacuum = off"]);
    let mut holder = cluster.connect();
    holder.batch_execute("begin isolation level repeatable read; select").expect("a snapshot");
    text(&mut holder, "select count(*) from done");
    let mut db = cluster.connect();
    let entries = "select sum(idx_tup_read) from pg_stat_user_indexes
        where indexrelname in ('jobs_queue_name_priority_run_at_id_idx', 'job_queues_pkey')";
    let mut read = |jobs: i64| {
        cluster.wait_for(IDLE, "1");
        let before: i64 = text(&mut db, entries).parse().expect("a number");
        db.batch_execute(&format!(
            "select count(graphile_worker.add_job('run', '{{\"do\": \"select 1\"}}', queue_name := 'q')) from generate_series(1, {jobs})"
        ))
        .expect("jobs");
        cluster.wait_for(JOBS, "0");
        // It reports as it goes to sleep.
        cluster.wait_for(IDLE, "1");
        text(&mut db, entries).parse::<i64>().expect("a number") - before
    };
    let (few, many) = (read(500), read(1000));
    assert!(few < 500 * 40 && many < 1000 * 40, "{few} entries for 500 jobs, {many} for 1000");
    let locks: i64 = cluster
        .text("select n_tup_ins + n_tup_upd from pg_stat_user_tables where relname = 'job_queues'")
        .parse()
        .expect("a number");
    assert!((1..300).contains(&locks), "{locks} writes of locks for 1500 jobs");
    let in_order = "select bool_and(job > before) from (select job, lag(job) over (order by at) as before from done) d where before is not null";
    assert_eq!(cluster.text(in_order), "t");
}

/// A worker that goes on with its queue's next job looks from the latest one on, but for what comes before that.
#[test]
fn what_comes_before_the_next_job_of_a_queue_runs_before_it() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    let ran = "select count(*) from done";
    for how in [
        "select id from graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := 'q', priority := -1)",
        "select id from graphile_worker.add_job('run', '{\"do\": \"select 1\"}', priority := -1)",
        "select id from graphile_worker.reschedule_jobs(array(select max(id) from graphile_worker.jobs), priority := -1)",
        "update graphile_worker.jobs set priority = -1 where id = (select max(id) from graphile_worker.jobs) returning id",
        "select id from graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := 'q', priority := -1,
           run_at := clock_timestamp() + interval '200 ms')",
    ] {
        db.batch_execute(
            "truncate done;
             select count(graphile_worker.add_job('run', '{\"do\": \"select pg_sleep(0.02)\"}', queue_name := 'q')) from generate_series(1, 60)",
        )
        .expect("jobs");
        assert!(wait_until(SOON, || text(&mut db, ran).parse::<i64>().expect("a number") > 5), "{}", cluster.log());
        let id = text(&mut db, how);
        let due = if how.contains("interval") { "'200 ms'" } else { "'0 s'" };
        let since = text(&mut db, "select clock_timestamp()");
        cluster.wait_for(JOBS, "0");
        let later = format!(
            "select count(*) from done where at > '{since}'::timestamptz + interval {due}
               and at < (select at from done where job = {id})"
        );
        let passed: i64 = cluster.text(&later).parse().expect("a number");
        assert!(passed <= 1, "{how}: {passed} jobs ran before it");
        assert_eq!(cluster.text(ran), if how.contains("add_job") { "61" } else { "60" });
    }
    // One that a handler adds.
    db.batch_execute(
        "truncate done;
         begin;
         select graphile_worker.add_job('run', json_build_object('do', $$select graphile_worker.add_job('run', '{\"do\": \"select 1\"}',
           queue_name := 'q', priority := -1)$$), queue_name := 'q');
         select count(graphile_worker.add_job('run', '{\"do\": \"select 1\"}', queue_name := 'q')) from generate_series(1, 20);
         commit",
    )
    .expect("jobs");
    cluster.wait_for(JOBS, "0");
    assert_eq!(
        cluster.text("select rank from (select job, rank() over (order by at) from done) d order by job desc limit 1"),
        "2"
    );
}

/// What has been read of some indexes, by all sessions that have reported it.
fn read_of(db: &mut Client, what: &str, indexes: &[&str]) -> i64 {
    let indexes = indexes.iter().map(|index| format!("'{index}'")).collect::<Vec<_>>().join(", ");
    let query = format!(
        "select sum({what}) from pg_stat_user_indexes join pg_statio_user_indexes using (indexrelid) where pg_stat_user_indexes.indexrelname in ({indexes})"
    );
    text(db, &query).parse().expect("a number")
}

/// Each taking of a lock would pass the entries of all before it, in both indexes.
#[test]
fn a_queue_that_is_locked_for_each_job_anew_takes_work_in_proportion_while_an_old_snapshot_is_held() {
    const INDEXES: [&str; 2] = ["jobs_queue_name_priority_run_at_id_idx", "job_queues_pkey"];
    let cluster = cluster(&["kongtask.workers = 1", "synchronous_commit = off", "autovacuum = off"]);
    cluster.sql(
        "create function turn(n int, queue text, other text) returns void language plpgsql as $$ begin
           if n > 1 then
             perform graphile_worker.add_job('run', json_build_object('do', format('select turn(%s, %L, %L)', n - 1, other, queue)), other);
           end if; end $$;
         create table tried (job bigint primary key);
         create function at_second(job bigint) returns void language plpgsql as $$ begin
           insert into tried values (job) on conflict do nothing;
           if not found then return; end if;
           perform kongtask.snooze('0');
         end $$",
    );
    let mut holder = cluster.connect();
    holder.batch_execute("begin isolation level repeatable read").expect("begin");
    text(&mut holder, "select count(*) from done");
    let mut db = cluster.connect();
    for (how, most) in [
        // Two queues in turn, each of which runs empty.
        (
            "select graphile_worker.add_job('run', json_build_object('do', 'select turn({jobs}, ''a'', ''b'')'), 'a')",
            30,
        ),
        // Each job of a queue is tried twice.
        (
            "select count(graphile_worker.add_job('run', '{\"do\": \"select at_second((kongtask.current_job()).id)\"}', 'c')) from generate_series(1, {jobs})",
            60,
        ),
        // All are found by searches of the table.
        (
            "select kongtask.pause('run');
             select count(graphile_worker.add_job('run', '{\"do\": \"select\"}', 'c')) from generate_series(1, {jobs});
             select kongtask.resume('run')",
            30,
        ),
    ] {
        let mut read = |jobs: i64| {
            cluster.wait_for(IDLE, "1");
            let before = read_of(&mut db, "idx_tup_read", &INDEXES);
            db.batch_execute(&how.replace("{jobs}", &jobs.to_string())).unwrap_or_else(|e| panic!("{}", describe(&e)));
            cluster.wait_for(JOBS, "0");
            // It reports as it goes to sleep.
            cluster.wait_for(IDLE, "1");
            (read_of(&mut db, "idx_tup_read", &INDEXES) - before) / jobs
        };
        let (few, many) = (read(1000), read(2000));
        assert!(few < most && many < most, "{how}: {few} entries a job of 1000, {many} a job of 2000");
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
    // What is no lock any more is removed after a while.
    assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues where locked_at is not null"), "0");
    // While the snapshot is held, a search is slow, and the next one comes after fifty times as long: but that of a new
    // scheduler at once.
    holder.batch_execute("rollback").expect("rollback");
    cluster.sql("vacuum graphile_worker.jobs, graphile_worker.job_queues");
    cluster.reload(&["kongtask.poll_interval = '500ms'"]);
    cluster.sql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'kongtask scheduler'");
    cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
}

/// More of them than one search returns, and no worker that would search the whole table.
#[test]
fn what_falls_due_is_found_behind_many_jobs_of_a_locked_queue() {
    let cluster = cluster(&[
        "kongtask.workers = 1",
        "kongtask.poll_interval = '1h'",
        "kongtask.worker_idle_timeout = '50ms'",
        "kongtask.scheduler_idle_timeout = -1",
    ]);
    cluster.sql("select graphile_worker.add_job('run', '{\"do\": \"select\"}')");
    cluster.wait_for("select count(*) from kongtask.workers", "0");
    // The scheduler has seen the lock when it looks for what falls due.
    cluster.sql(
        "insert into graphile_worker.job_queues (queue_name, job_count, locked_at, locked_by) values ('q', 1, now(), 'other');
         select count(graphile_worker.add_job('run', '{\"do\": \"select\"}', 'q', now() + interval '1 s'))
           from generate_series(1, 2000);
         select graphile_worker.add_job('run', '{\"do\": \"select\"}', run_at := now() + interval '1001 ms')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs where queue_name is null", "0");
    assert_eq!(cluster.text(JOBS), "2000");
}

/// They are passed by their first, whoever looks for the next job.
#[test]
fn jobs_of_a_queue_that_are_scheduled_for_later_cost_nothing() {
    let cluster = cluster(&["kongtask.workers = 1", "synchronous_commit = off", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    let later = |task: &str, queue: &str| {
        format!(
            "insert into graphile_worker.jobs (task_identifier, queue_name, run_at, priority)
               select '{task}', {queue}, now() + interval '1 day', n % 3 from generate_series(1, 20000) n; analyze graphile_worker.jobs;"
        )
    };
    let read = |db: &mut Client, index: &str, work: &str, jobs: i64| {
        cluster.wait_for(IDLE, "1");
        text(db, "select pg_stat_force_next_flush()");
        let before = read_of(db, "idx_blks_hit + idx_blks_read", &[index]);
        db.batch_execute(work).unwrap_or_else(|e| panic!("{}", describe(&e)));
        cluster.wait_for("select count(*) from graphile_worker.jobs where run_at < now()", "0");
        cluster.wait_for(IDLE, "1");
        text(db, "select pg_stat_force_next_flush()");
        (read_of(db, "idx_blks_hit + idx_blks_read", &[index]) - before) / jobs
    };
    let ours = "select count(graphile_worker.add_job('run', '{\"do\": \"select 1\"}', 'q', priority := 5)) from generate_series(1, 50)";
    let theirs = "select count(graphile_worker.add_job('elsewhere', priority := 5)) from generate_series(1, 50);
        do $$ begin for n in 1..50 loop
          perform graphile_worker.complete_job('external-worker', (select id from graphile_worker.get_job('external-worker')));
          perform graphile_worker.get_job('external-worker', '{none}');
        end loop; end $$";
    let index = "jobs_queue_name_priority_run_at_id_idx";
    let without = read(&mut db, index, ours, 50);
    db.batch_execute(&later("run", "'q'")).expect("insert");
    let with = read(&mut db, index, ours, 50);
    assert!(with < without * 2 + 10, "{without} pages of {index} a job, and {with} with 20,000 jobs for later");
    let index = "jobs_priority_run_at_id_locked_at_without_failures_idx";
    db.batch_execute("truncate graphile_worker.jobs").expect("truncate");
    let without = read(&mut db, index, theirs, 50);
    db.batch_execute(&later("elsewhere", "null")).expect("insert");
    let with = read(&mut db, index, theirs, 50);
    assert!(with < without * 2 + 40, "{without} pages of {index} a job, and {with} with 20,000 jobs for later");
}

/// What a look saw of a transaction's own changes is forgotten with them: else the second job would run first.
#[test]
fn what_is_rolled_back_is_no_hint_where_a_queue_s_next_job_is() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    for undoes in [
        "begin; delete from graphile_worker.jobs where id = {first}; select graphile_worker.complete_job('external-worker', {held}); rollback",
        "begin; savepoint s; delete from graphile_worker.jobs where id = {first};
         select graphile_worker.complete_job('external-worker', {held}); rollback to s; commit",
        "do $$ begin
           begin
             delete from graphile_worker.jobs where id = {first};
             perform graphile_worker.complete_job('external-worker', {held});
             raise exception 'back';
           exception when others then null; end;
         end $$",
    ] {
        db.batch_execute("truncate done; select graphile_worker.add_job('elsewhere', queue_name := 'q')")
            .expect("add_job");
        let held = text(&mut db, "select id from graphile_worker.get_job('external-worker')");
        let first = add(&mut db, "select 1", ", queue_name := 'q'");
        let second = add(&mut db, "select 1", ", queue_name := 'q'");
        let undoes = undoes.replace("{first}", &first.to_string()).replace("{held}", &held);
        db.batch_execute(&undoes).unwrap_or_else(|e| panic!("{}", describe(&e)));
        assert_eq!(cluster.text("select count(*) from done"), "0", "{undoes}");
        text(&mut db, &format!("select graphile_worker.complete_job('external-worker', {held})"));
        cluster.wait_for(JOBS, "0");
        assert_eq!(done(&cluster), format!("{first} {second}"), "{undoes}");
    }
}

/// A row that is no lock holds nobody up, and goes.
#[test]
fn a_row_that_is_no_lock_is_removed() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '100ms'"]);
    cluster.sql("insert into graphile_worker.job_queues (queue_name, job_count) values ('q', 1), ('r', 1)");
    add(&mut cluster.connect(), "select 1", ", queue_name := 'q'");
    cluster.wait_for(JOBS, "0");
    cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// The row is written without the executor: it, its index entries and what its triggers do must be as of statements. Where the
/// table differs from what is installed, statements it is.
#[test]
fn the_row_of_a_lock_is_as_statements_would_have_left_it() {
    let cluster = cluster(&["kongtask.workers = 3", "kongtask.poll_interval = '1h'"]);
    let mut db = cluster.connect();
    let run = |cluster: &Cluster, db: &mut Client| {
        db.batch_execute(
            "select pg_advisory_lock(1);
             insert into graphile_worker.job_queues (queue_name, job_count, locked_at, locked_by) values
               ('unlocked', 7, null, null), ('expired', 7, now() - interval '5 h', 'external')",
        )
        .expect("rows");
        for queue in ["new", "unlocked", "expired"] {
            let queue = format!(", queue_name := '{queue}'");
            add(db, "select pg_advisory_xact_lock_shared(1)", &queue);
            add(db, "select 1", &queue);
        }
        cluster.wait_for(LOCKED, "6");
        let look = "select string_agg(concat_ws(' ', q.queue_name, job_count, q.locked_at >= j.created_at, q.locked_by = j.locked_by,
            q.locked_by like 'kongtask:%', q.job_id = j.id), ', ' order by q.queue_name)
          from graphile_worker.job_queues q join graphile_worker.jobs j on q.queue_name = j.queue_name and j.locked_at is not null";
        let seen = text(db, look);
        cluster.check_indexes();
        db.batch_execute("select pg_advisory_unlock(1)").expect("no lock");
        // The next job of each is known of by the release alone.
        cluster.wait_for(JOBS, "0");
        cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
        cluster.check_indexes();
        seen
    };
    let installed = run(&cluster, &mut db);
    assert_eq!(installed, "expired 1 t t t t, new 1 t t t t, unlocked 1 t t t t");
    cluster.sql("create index mine on graphile_worker.job_queues (locked_by)");
    assert_eq!(run(&cluster, &mut db), installed);
    cluster.sql(
        "drop index graphile_worker.mine;
         create table writes (what text, queue text);
         create function mine() returns trigger language plpgsql as $$ begin
           insert into writes values (tg_op, coalesce(new.queue_name, old.queue_name)); return coalesce(new, old); end $$;
         create trigger mine before insert or update or delete on graphile_worker.job_queues for each row execute function mine()",
    );
    assert_eq!(run(&cluster, &mut db), installed);
    assert_eq!(
        cluster.text("select string_agg(what, ' ' order by what) from writes where queue = 'new' and what <> 'UPDATE'"),
        "DELETE INSERT",
        "a user's trigger is fired"
    );
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// No kongtask function adds a row without the heavyweight lock of its queue. A user may: the worker that meets it waits, as an
/// INSERT does, and leaves no entry of the row behind that it could not add.
#[test]
fn a_worker_locks_a_queue_whose_row_a_session_adds_meanwhile() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    let (mut other, mut db) = (cluster.connect(), cluster.connect());
    for end in ["rollback", "commit"] {
        cluster.sql("truncate done");
        other
            .batch_execute("begin; insert into graphile_worker.job_queues (queue_name, job_count) values ('q', 1)")
            .expect("a row");
        let queued = add(&mut db, "select 1", ", queue_name := 'q'");
        let waiting = "select count(*) from pg_locks where not granted and locktype = 'transactionid'";
        cluster.wait_for(waiting, "1");
        other.batch_execute(end).expect("an end");
        cluster.wait_for(JOBS, "0");
        assert_eq!(done(&cluster), queued.to_string(), "{end}");
        cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
        cluster.check_indexes();
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// For a moment, a worker passes jobs of other queues, of the same priority, so that it need not lock a queue for each job.
#[test]
fn a_worker_goes_on_in_a_queue_for_a_moment_though_others_come_first() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'", "synchronous_commit = off"]);
    cluster.sql("create table added (job bigint primary key, queue text)");
    let run = |what: &str, count: i32, queue: &str| {
        cluster.sql(&format!(
            "truncate done, added;
             insert into added select id, queue_name from generate_series(1, {count}) n,
               graphile_worker.add_job('run', json_build_object('do', '{what}'), queue_name := {queue})",
        ));
        cluster.wait_for(JOBS, "0");
    };
    let turns = "select count(*) from (
        select queue is distinct from lag(queue) over (order by at) as turns from added join done using (job)) d where turns";
    let in_order = "select bool_and(job > before) from (
        select job, lag(job) over (partition by queue order by at) as before from added join done using (job)) d
        where before is not null";
    run("select 1", 400, "nullif('q' || n % 4, 'q0')");
    // Those that are in no queue come before the next job of any queue, so that none passes them.
    let all: i64 = cluster.text(turns).parse().expect("a number");
    assert!(all >= 399, "{all}");
    run("select 1", 400, "'q' || n % 4");
    let few: i64 = cluster.text(turns).parse().expect("a number");
    assert!(few < 200, "{few} turns of 400 jobs");
    assert_eq!(cluster.text(in_order), "t");
    // No longer than a moment.
    run("select pg_sleep(0.03)", 40, "'q' || n % 4");
    let slow: i64 = cluster.text(turns).parse().expect("a number");
    assert!(slow >= 39, "{slow} turns of 40 jobs");
    assert_eq!(cluster.text(in_order), "t");
}

/// Opens and shuts the gate at which handlers wait that run `WAITS`.
const GATE: &str = "create table gate (open boolean); insert into gate values (false)";
const WAITS: &str = "do $$ begin while not (select open from gate) loop perform pg_sleep(0.005); end loop; end $$";

/// Adds a job to queue q behind one that takes a moment, so that it runs in place, and waits until it is at its gate. Where the
/// former one took longer, on a busy machine, it is tried again. Returns its id.
fn in_place(cluster: &Cluster, db: &mut Client, what: &str) -> i64 {
    for _ in 0..50 {
        cluster.sql("update gate set open = false; truncate done");
        db.batch_execute("begin").expect("begin");
        add(db, "select 1", ", queue_name := 'q'");
        let job = add(db, &format!("{WAITS}; {what}"), ", queue_name := 'q'");
        db.batch_execute("commit").expect("commit");
        cluster.wait_for(&format!("select count(*) from done where job < {job}"), "1");
        let waits = format!(
            "select count(*) from kongtask.workers w join pg_stat_activity a using (pid)
             where w.job_id = {job} and w.state = 'running' and a.query like '%/* job {job}, %'"
        );
        cluster.wait_for(&waits, "1");
        if cluster.text(&format!("select locked_by is null from graphile_worker.jobs where id = {job}")) == "t" {
            return job;
        }
        cluster.sql("update gate set open = true");
        cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
        cluster.sql("delete from graphile_worker.jobs");
    }
    panic!("no job ran in place\n{}", cluster.log());
}

/// The job with which a worker locks a queue is claimed, and so is what cannot run in place.
#[test]
fn jobs_of_a_queue_run_in_place_behind_one_that_took_a_moment() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'", "synchronous_commit = off"]);
    cluster.sql(
        "create table seen (job bigint, claimed boolean);
         create function look() returns void language sql as
           $$ insert into seen select (kongtask.current_job()).id, (kongtask.current_job()).locked_at is not null $$;
         select kongtask.register_task('claimed', 'look()', in_place := false), kongtask.register_task('look', 'look()')",
    );
    let seen = |what: &str| {
        let seen = cluster.text(&format!("select count(*) filter (where claimed) || ' ' || count(*) from seen {what}"));
        let (claimed, all) = seen.split_once(' ').expect("two");
        (claimed.parse::<i32>().expect("a number"), all.parse::<i32>().expect("a number"))
    };
    let run = |jobs: &str| {
        cluster.sql(&format!("truncate seen; {jobs}"));
        cluster.wait_for(JOBS, "0");
        assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
        assert_eq!(
            cluster.text("select bool_and(job > before) from (select job, lag(job) over () as before from seen) s"),
            "t"
        );
    };
    run("select count(graphile_worker.add_job('look', queue_name := 'q')) from generate_series(1, 200)");
    let (claimed, all) = seen("");
    assert!((1..150).contains(&claimed) && all == 200, "{claimed} of {all} claimed");
    assert_eq!(seen("where job = (select min(job) from seen)"), (1, 1), "the first");
    run("select count(graphile_worker.add_job(case n % 2 when 0 then 'claimed' else 'look' end, queue_name := 'q'))
           from generate_series(1, 100) n");
    assert_eq!(
        seen("where job % 2 = (select min(job) + 1 from seen) % 2"),
        (50, 50),
        "of a task with in_place := false"
    );
    run(
        "select count(graphile_worker.add_job('look', queue_name := 'q', job_key := 'k' || n)) from generate_series(1, 50) n",
    );
    assert_eq!(seen(""), (50, 50), "with a key");
    // A worker reads it as it connects.
    let set = |isolation: &str| {
        cluster.sql(&format!("alter database postgres {isolation}"));
        let pid = cluster.text("select pid from kongtask.workers");
        cluster.sql(&format!("select pg_terminate_backend({pid})"));
        cluster.wait_for(&format!("select count(*) from kongtask.workers where state = 'idle' and pid <> {pid}"), "1");
    };
    set("set default_transaction_isolation = 'repeatable read'");
    run("select count(graphile_worker.add_job('look', queue_name := 'q')) from generate_series(1, 50)");
    assert_eq!(seen(""), (50, 50), "at another isolation level");
    set("reset default_transaction_isolation");
    run("create function slow() returns void language sql as $$ select look(); select pg_sleep(0.025) $$;
         select kongtask.register_task('slow', 'slow()');
         select count(graphile_worker.add_job('slow', queue_name := 'q')) from generate_series(1, 10)");
    assert_eq!(seen(""), (10, 10), "behind one that took long");
    run("create index mine on graphile_worker.jobs (created_at);
         select count(graphile_worker.add_job('look', queue_name := 'q')) from generate_series(1, 50)");
    assert_eq!(seen(""), (50, 50), "of a table that a user has changed");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// Its row is not marked: the queue's lock and the lock on the row keep others away, and nobody waits for either.
#[test]
fn a_job_of_a_queue_that_runs_in_place_is_seen_and_left_alone() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '100ms'"]);
    cluster.sql(GATE);
    let mut db = cluster.connect();
    let job = in_place(&cluster, &mut db, "select 1");
    db.batch_execute("set lock_timeout = '1s'").expect("set");
    let next = add(&mut db, "select 1", ", queue_name := 'q'");
    // As a clock that has been set forward sees it.
    db.batch_execute("update graphile_worker.job_queues set locked_at = locked_at - interval '5 hours'")
        .expect("update");
    for call in [
        "graphile_worker.get_job('external-worker', '{run}')".to_string(),
        format!("graphile_worker.complete_jobs('{{{job}}}')"),
        format!("graphile_worker.permanently_fail_jobs('{{{job}}}')"),
        format!("graphile_worker.reschedule_jobs('{{{job}}}', run_at := now())"),
    ] {
        assert_eq!(text(&mut db, &format!("select count(*) from {call} j where j.id is not null")), "0", "{call}");
    }
    let states = "select string_agg(concat_ws(' ', id, state, why), ', ' order by id) from kongtask.job_states";
    assert_eq!(text(&mut db, states), format!("{job} running, {next} waiting its queue is busy: it runs job {job}"));
    let queues = "select concat_ws(' ', queue_name, jobs, ready, head, running, locked_by like 'kongtask:%', pid is not null) from kongtask.queues";
    assert_eq!(text(&mut db, queues), format!("q 2 1 {next} {job} t t"));
    // What is due is looked for meanwhile.
    let other = add(&mut db, "select 1", "");
    cluster.wait_for(&format!("select count(*) from done where job = {other}"), "1");
    assert_eq!(text(&mut db, &format!("select count(*) from done where job = {next}")), "0");
    cluster.sql("update gate set open = true");
    cluster.wait_for(JOBS, "0");
    let order = format!("select string_agg(job::text, ' ' order by at) from done where job in ({job}, {next})");
    assert_eq!(cluster.text(&order), format!("{job} {next}"));
    assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// Whatever becomes of it, its queue goes on, and it has had its effect once or is there to have it.
#[test]
fn a_job_of_a_queue_that_runs_in_place_ends_as_any_other() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql(GATE);
    cluster.sql("select kongtask.alter_task('run', timeout := '10 s')");
    let mut db = cluster.connect();
    let left = "concat_ws(' ', queue_name, attempts, split_part(last_error, E'\\n', 1), attempts < max_attempts, run_at > now())";
    for (what, meanwhile, becomes) in [
        ("select 1", "", None),
        ("select 1 / 0", "", Some("q 1 division by zero (SQLSTATE 22012) t t")),
        ("select kongtask.snooze('1 hour')", "", Some("q 0 t t")),
        ("select kongtask.give_up('no use')", "", Some("q 25 no use f f")),
        ("select 1", "select kongtask.cancel($1, 'not wanted')", Some("q 25 cancelled by postgres: not wanted f f")),
    ] {
        let job = in_place(&cluster, &mut db, what);
        let next = add(&mut db, "select 1", ", queue_name := 'q'");
        assert_eq!(cluster.text(&format!("select count(*) from done where job = {next}")), "0");
        if !meanwhile.is_empty() {
            cluster.sql(&meanwhile.replace("$1", &job.to_string()));
        }
        cluster.sql("update gate set open = true");
        cluster.wait_for(&format!("select count(*) from done where job = {next}"), "1");
        cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
        let count = cluster.text(&format!("select count(*) from done where job = {job}"));
        match becomes {
            None => assert_eq!((count.as_str(), cluster.text(JOBS).as_str()), ("1", "0"), "{what}"),
            Some(becomes) => {
                let row = format!("select {left} from graphile_worker.jobs where id = {job} and locked_by is null");
                let row = cluster.text(&row);
                assert!(row.starts_with(becomes.trim_end_matches(" f f")), "{what}: {row}");
                assert_eq!(row.ends_with(" t t"), becomes.ends_with(" t t"), "{what}: {row}");
                assert_eq!(count, if what.contains("snooze") { "1" } else { "0" }, "{what}");
            }
        }
        cluster.sql("delete from graphile_worker.jobs");
    }
    // The queue's next job does not begin while the queue is paused.
    let job = in_place(&cluster, &mut db, "select 1");
    let next = add(&mut db, "select 1", ", queue_name := 'q'");
    cluster.sql("select kongtask.pause(queue_name := 'q'); update gate set open = true");
    cluster.wait_for(&format!("select count(*) from done where job = {job}"), "1");
    cluster.wait_for(IDLE, "2");
    assert_eq!(cluster.text(&format!("select count(*) from done where job = {next}")), "0");
    cluster.sql("select kongtask.resume(queue_name := 'q')");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
    // What holds it is the queue's lock: where that is taken away by hand, nothing of it stays, and it runs again.
    let job = in_place(&cluster, &mut db, "select 1");
    cluster.sql("delete from graphile_worker.job_queues; update gate set open = true");
    cluster.wait_for_log(&format!("job {job} (run) lost its lock while it ran"));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&format!("select count(*) from done where job = {job}")), "1");
    assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
}

/// Neither takes its effect, its turn or an attempt from it.
#[test]
fn a_job_of_a_queue_whose_worker_ends_in_place_runs_again_in_its_turn() {
    for kills in [false, true] {
        let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'", "restart_after_crash = on"]);
        cluster.sql(GATE);
        let mut db = cluster.connect();
        let job = in_place(&cluster, &mut db, "select 1");
        let next = add(&mut db, "select 1", ", queue_name := 'q'");
        // It does not wait again.
        cluster.sql(
            "create table attempts (job bigint, attempts int, said text);
             create or replace function run(p json, j graphile_worker.jobs) returns void language sql as $$
               insert into done values (j.id); insert into attempts values (j.id, j.attempts, j.last_error) $$",
        );
        let pid = cluster.text(&format!("select pid from kongtask.workers where job_id = {job}"));
        if kills {
            cluster.kill_9(pid.parse().expect("a pid"));
            cluster.wait_for_log("all server processes terminated; reinitializing");
        } else {
            cluster.sql(&format!("select pg_terminate_backend({pid})"));
        }
        let came = wait_until(SOON, || {
            cluster.try_connect_as("postgres", "postgres").is_ok_and(|mut db| text(&mut db, JOBS) == "0")
        });
        assert!(came, "{}", cluster.log());
        let order = format!("select string_agg(job::text, ' ' order by at) from done where job in ({job}, {next})");
        assert_eq!(cluster.text(&order), format!("{job} {next}"), "{kills}");
        let said = format!("select attempts || coalesce(' ' || said, '') from attempts where job = {job}");
        let crash = "1 worker process crashed while it ran this job: crash 1 of 3 (SQLSTATE 57P02)";
        assert_eq!(cluster.text(&said), if kills { crash } else { "1" });
        assert_eq!(cluster.text("select count(*) from graphile_worker.job_queues"), "0");
    }
}
