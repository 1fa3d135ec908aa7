//! Procedures as handlers: what they commit, how they end, and what they leave.

use kongtask_tests::fixtures::with_crashing_handlers;
use kongtask_tests::{Cluster, IDLE, JOBS, LOCKED, RUNNING, SOON, error, rows, say, text, wait_until};
use std::time::{Duration, Instant};

/// A cluster with a table `steps`, and a procedure that writes a step to it, commits, and sleeps for a while, as often as its
/// payload's `steps` says.
fn with_steps(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(STEPS);
    cluster
}

const STEPS: &str =
    "create table steps (at bigserial, job bigint, attempt int, step int, xid xid8 default pg_current_xact_id());
    create procedure walk(p json) language plpgsql as $$
    declare v_job graphile_worker.jobs; begin
      for n in 1 .. (p ->> 'steps')::int loop
        v_job := kongtask.current_job();
        insert into steps (job, attempt, step) values (v_job.id, v_job.attempts, n);
        commit;
        perform pg_sleep(coalesce((p ->> 'nap')::float8, 0));
        if p ->> 'fails' = n::text and v_job.attempts = 1 then raise 'step % failed', n; end if;
      end loop;
    end $$;
    select kongtask.register_task('walk', 'walk(json)')";

#[test]
fn a_procedure_commits_and_rolls_back_as_it_goes() {
    let cluster = with_steps(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create procedure of_cursor(p jsonb) language plpgsql as $$
         declare v_n int; begin
           -- A loop over a query goes on over its commits.
           for v_n in select generate_series(1, (p ->> 'n')::int) loop
             insert into steps (step) values (v_n);
             if v_n % 2 = 0 then rollback; else commit; end if;
           end loop;
           insert into steps (step) values (100);
         end $$;
         create procedure of_row(j graphile_worker.jobs) language plpgsql as $$ begin
           commit; insert into steps (job, attempt) values (j.id, j.attempts); end $$;
         create procedure of_both(p json, j graphile_worker.jobs) language plpgsql as $$ begin
           commit; insert into steps (job, step) values (j.id, (p #>> '{}')::int); end $$;
         create procedure of_nothing() language sql as 'insert into steps (step) values (0)';
         select kongtask.register_task('of_cursor', 'of_cursor(jsonb)'), kongtask.register_task('of_row', 'of_row(graphile_worker.jobs)'),
           kongtask.register_task('of_both', 'of_both(json, graphile_worker.jobs)'), kongtask.register_task('of_nothing', 'of_nothing()')",
    );
    let mut db = cluster.connect();
    let mut run = |job: &str, steps: &str| {
        cluster.sql(&format!("truncate steps restart identity; select graphile_worker.add_job({job})"));
        cluster.wait_for(JOBS, "0");
        assert_eq!(text(&mut db, steps), "t", "{job}: {:?}", rows(&mut db, "select steps::text from steps"));
    };
    run(
        "'walk', '{\"steps\": 3}'",
        "select array_agg(step order by at) = '{1,2,3}' and count(distinct xid) = 3 from steps",
    );
    run("'of_cursor', '{\"n\": 5}'", "select array_agg(step order by at) = '{1,3,5,100}' from steps");
    run("'of_row', queue_name := 'q'", "select bool_and(attempt = 1 and job > 0) from steps");
    run("'of_both', '7', job_key := 'k'", "select bool_and(step = 7 and job > 0) from steps");
    run("'of_nothing'", "select array_agg(step) = '{0}' from steps");
    // A job that it adds begins when that is committed, not when it ends.
    cluster.sql(
        "create procedure adds() language plpgsql as $$ begin
           perform graphile_worker.add_job('of_nothing'); commit;
           for i in 1..1000 loop
             exit when exists (select 1 from steps where step = 0);
             commit; perform pg_sleep(0.01);
           end loop;
           insert into steps (step) select count(*) from steps;
         end $$;
         select kongtask.register_task('adds', 'adds()')",
    );
    run("'adds'", "select array_agg(step order by at) = '{0,1}' from steps");
    // While it runs, its job is claimed, and its steps are there for others.
    cluster.sql("truncate steps; select graphile_worker.add_job('walk', '{\"steps\": 1, \"nap\": 60}')");
    cluster.wait_for("select count(*) from steps", "1");
    assert_eq!(cluster.text(LOCKED), "1");
    assert_eq!(
        cluster.text("select regexp_replace(query, '[0-9]+', 'N') from pg_stat_activity where wait_event = 'PgSleep'"),
        "call public.walk(json) /* job N, task walk, attempt 1 */"
    );
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn what_a_procedure_committed_before_it_failed_stays_and_the_next_attempt_begins_again() {
    let cluster = with_steps(&["kongtask.workers = 1"]);
    cluster.sql("select graphile_worker.add_job('walk', '{\"steps\": 3, \"fails\": 2}')");
    let failed = "select attempts || ' ' || coalesce(locked_by, '-') || ' ' || split_part(last_error, E'\\n', 1) from graphile_worker.jobs";
    cluster.wait_for(failed, "1 - step 2 failed (SQLSTATE P0001)");
    assert_eq!(cluster.text("select array_agg(step order by at) from steps"), "{1,2}");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select array_agg(step order by at) from steps where attempt = 2"), "{1,2,3}");
}

#[test]
fn what_a_procedure_does_after_its_last_commit_is_one_transaction_with_the_completion() {
    let cluster = with_steps(&["kongtask.workers = 1"]);
    // It waits there until another session has changed its job.
    let mut other = cluster.connect();
    let mut change = |job: &str, set: &str| {
        other.batch_execute(&format!("select pg_advisory_lock(1), graphile_worker.add_job('{job}')")).expect("add");
        cluster.wait_for("select count(*) from pg_locks where locktype = 'advisory' and not granted", "1");
        other
            .batch_execute(&format!("update graphile_worker.jobs set {set}; select pg_advisory_unlock(1)"))
            .expect("change");
    };
    cluster.sql(
        "create procedure loses_its_lock() language plpgsql as $$ begin
           insert into steps (step) values (1);
           commit;
           insert into steps (step) values (2);
           perform pg_advisory_xact_lock(1);
         end $$;
         select kongtask.register_task('loses_its_lock', 'loses_its_lock()')",
    );
    change("loses_its_lock", "locked_by = 'another', locked_at = now()");
    cluster.wait_for_log("WARNING:  job 1 (loses_its_lock) lost its lock while it ran");
    assert_eq!(cluster.text("select array_agg(step) from steps"), "{1}");
    assert_eq!(cluster.text("select locked_by from graphile_worker.jobs"), "another");
    // Where the transaction's snapshot may be older than the lock, the completion is apart.
    cluster.sql(
        "truncate graphile_worker.jobs, steps;
         create procedure repeats() language plpgsql as $$ begin
           commit; set transaction isolation level repeatable read;
           insert into steps (step) values (3);
           perform pg_advisory_xact_lock(1);
         end $$;
         select kongtask.register_task('repeats', 'repeats()')",
    );
    change("repeats", "locked_at = now()");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select array_agg(step) from steps"), "{3}");
}

#[test]
fn a_deferred_constraint_that_fails_at_the_last_commit_fails_the_attempt() {
    let cluster = with_steps(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table parent (id int primary key);
         create table child (id int references parent deferrable initially deferred);
         create procedure breaks() language plpgsql as $$ begin
           create temporary table litter (n int);
           commit;
           insert into child values (1);
         end $$;
         create table seen (tables text);
         create function look() returns void language sql as $$
           insert into public.seen select coalesce(string_agg(relname, ','), '-') from pg_class where relnamespace = pg_my_temp_schema() $$;
         select kongtask.register_task('breaks', 'breaks()'), kongtask.register_task('look', 'look()');
         select graphile_worker.add_job('breaks', max_attempts := 1)",
    );
    let failed =
        "select split_part(last_error, E'\\n', 1) like '%violates foreign key constraint%' from graphile_worker.jobs";
    cluster.wait_for(failed, "t");
    cluster.sql("select graphile_worker.add_job('look')");
    cluster.wait_for("select tables from seen", "-");
}

#[test]
fn a_timeout_counts_a_procedure_as_a_whole() {
    let cluster = with_steps(&["kongtask.workers = 1"]);
    cluster.sql(
        "select kongtask.register_task('walk', 'walk(json)', timeout := '500 ms');
         select graphile_worker.add_job('walk', '{\"steps\": 1000, \"nap\": 0.02}', max_attempts := 1)",
    );
    cluster.wait_for(
        "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs",
        "timed out after 500ms (SQLSTATE 57014)",
    );
    let steps: usize = cluster.text("select count(*) from steps").parse().expect("a number");
    assert!((2..100).contains(&steps), "{steps}");
    // What is next has its own time.
    cluster.sql(
        "truncate steps; select graphile_worker.add_job('walk', '{\"steps\": 3, \"nap\": 0.1}');
         select graphile_worker.add_job('walk', '{\"steps\": 3, \"nap\": 0.1}')",
    );
    cluster.wait_for("select count(*) from steps", "6");
}

#[test]
fn a_procedure_is_cancelled_terminated_and_shut_down_between_its_commits() {
    let cluster =
        with_steps(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'", "kongtask.shutdown_timeout = '200ms'"]);
    let walk = "truncate steps; select graphile_worker.add_job('walk', '{\"steps\": 100000, \"nap\": 0.01}', max_attempts := 2)";
    let walks = "select count(*) >= 3 from steps";
    cluster.sql(walk);
    cluster.wait_for(walks, "t");
    cluster.sql("select pg_cancel_backend(pid) from kongtask.workers");
    let failed =
        "select attempts || ' ' || split_part(last_error, E'\\n', 1) from graphile_worker.jobs where locked_by is null";
    cluster.wait_for(failed, "1 canceling statement due to user request (SQLSTATE 57014)");
    cluster.sql("truncate graphile_worker.jobs");
    // Its worker is ended: the job runs again at once, the attempt not counted.
    cluster.sql(walk);
    cluster.wait_for(walks, "t");
    let begun = Instant::now();
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers; truncate steps");
    cluster.wait_for(walks, "t");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(cluster.text("select attempts from graphile_worker.jobs"), "1");
    // A shutdown does not wait for its end.
    assert!(cluster.stop("fast") < Duration::from_secs(5));
    cluster.start();
    cluster.sql("truncate steps");
    cluster.wait_for(walks, "t");
    assert_eq!(cluster.text("select attempts from graphile_worker.jobs"), "1");
}

#[test]
fn a_procedure_that_crashes_the_server_is_charged() {
    let cluster = with_crashing_handlers(&["kongtask.workers = 1"]);
    cluster.sql(STEPS);
    cluster.sql(
        "create procedure crashes() language plpgsql as $$ begin
           insert into steps (step) values (1); commit; perform crash(); end $$;
         select kongtask.register_task('crashes', 'crashes()')",
    );
    let _ = cluster.connect().batch_execute("select graphile_worker.add_job('crashes')");
    let came = wait_until(SOON * 2, || {
        cluster.try_connect_as("postgres", "postgres").is_ok_and(|mut db| {
            let charged = "select last_error from graphile_worker.jobs where attempts = 1 and locked_by is null";
            db.query_opt(charged, &[]).ok().flatten().and_then(|row| row.get::<_, Option<String>>(0)).as_deref()
                == Some("worker process crashed while it ran this job: crash 1 of 3 (SQLSTATE 57P02)")
        })
    });
    assert!(came, "{}", cluster.log());
    assert_eq!(cluster.text("select array_agg(step) from steps"), "{1}");
}

#[test]
fn a_claim_is_renewed_while_a_procedure_runs() {
    let cluster = with_steps(&["kongtask.workers = 1", "kongtask.job_expiry = '3s'"]);
    cluster.sql("select graphile_worker.add_job('walk', '{\"steps\": 400, \"nap\": 0.01}')");
    cluster.wait_for("select count(*) >= 1 from steps", "t");
    let claimed = cluster.text("select locked_at from graphile_worker.jobs");
    cluster.wait_for(&format!("select locked_at > '{claimed}' from graphile_worker.jobs"), "t");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(distinct step) || ' of ' || count(*) from steps"), "400 of 400");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

/// After a commit, none of it is undone by the end of a transaction.
#[test]
fn what_a_procedure_leaves_in_its_session_reaches_no_job() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create role other; grant create on schema public to other; create table seen (what jsonb); grant all on seen to other;
         create sequence litter_seq;
         create procedure litter(p json) language plpgsql as $$ begin
           execute p ->> 'what'; commit; perform 1; commit;
           if p ->> 'ends' = 'error' then raise 'after a commit'; end if;
         end $$;
         create function look() returns void language plpgsql as $$ declare last text = 'none'; begin
           begin last := lastval(); exception when others then null; end;
           insert into public.seen values (jsonb_build_object(
             'last value', last, 'roles', array[current_user, session_user],
             'settings', (select jsonb_object_agg(name, setting) from pg_settings
               where name in ('search_path', 'role', 'work_mem', 'application_name', 'synchronous_commit', 'session_replication_role',
                 'default_transaction_isolation', 'default_transaction_read_only', 'lock_timeout', 'timezone')),
             'custom', current_setting('my.setting', true),
             'tables', (select jsonb_agg(relname) from pg_class where relnamespace = pg_my_temp_schema()),
             'locks', (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
             'cursors', (select jsonb_agg(name) from pg_cursors), 'prepared', (select jsonb_agg(name) from pg_prepared_statements)));
         end $$;
         select kongtask.register_task('look', 'look()'), kongtask.register_task('litter', 'litter(json)')",
    );
    let mut db = cluster.connect();
    // A setting that was once there stays as an empty one, as in any session.
    let mut look = |jobs: &str| {
        cluster.sql(&format!(
            "truncate seen, graphile_worker.jobs; begin; {jobs} select graphile_worker.add_job('look'); commit"
        ));
        cluster.wait_for("select count(*) from seen", "1");
        rows(&mut db, "select replace(what::text, '\"custom\": null', '\"custom\": \"\"') from seen")
    };
    let clean = look("");
    let mut left = Vec::new();
    for litter in [
        "set search_path = nowhere",
        "set role other",
        "set session authorization other",
        "set work_mem = '1MB'",
        "set application_name = 'theirs'",
        "set synchronous_commit = off",
        "set session_replication_role = replica",
        "set session characteristics as transaction read only",
        "set default_transaction_isolation = serializable",
        "set lock_timeout = '1ms'",
        "select set_config('my.setting', 'theirs', false)",
        "create temporary table litter as select 1 as n",
        "select pg_advisory_lock(1)",
        "declare litter cursor with hold for select generate_series(1, 3)",
        "prepare litter as select 1",
        "select nextval('public.litter_seq')",
        "reset all",
    ] {
        for ends in ["well", "error"] {
            let job = format!(
                "select graphile_worker.add_job('litter', json_build_object('what', $litter${litter}$litter$, 'ends', '{ends}'), max_attempts := 1);"
            );
            let seen = look(&job);
            let failed = text(&mut cluster.connect(), JOBS);
            if seen != clean || failed != if ends == "error" { "1" } else { "0" } {
                left.push(format!("{litter}, {ends}: {seen:?}, {failed} failed"));
            }
        }
    }
    assert_eq!(left, Vec::<String>::new(), "clean: {clean:?}");
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL"]), Vec::<String>::new());
}

#[test]
fn what_a_procedure_sets_stays_over_its_commits_and_to_its_end() {
    let cluster = with_steps(&["kongtask.workers = 1", "kongtask.synchronous_commit = 'off'"]);
    cluster.sql(
        "create table seen (at serial, what text);
         create procedure sets() language plpgsql as $$ begin
           insert into seen (what) values (current_setting('synchronous_commit'));
           set work_mem = '1MB'; set local lock_timeout = '7s'; perform pg_advisory_lock(5);
           create temporary table mine (n int);
           commit;
           insert into mine values (1);
           insert into seen (what) select current_setting('synchronous_commit') || ' ' || current_setting('work_mem') || ' ' ||
             current_setting('lock_timeout') || ' ' || (select count(*) from mine) || ' ' ||
             (select count(*) from pg_locks where locktype = 'advisory');
         end $$;
         select kongtask.register_task('sets', 'sets()'), graphile_worker.add_job('sets')",
    );
    cluster.wait_for("select string_agg(what, ', ' order by at) from seen", "off, off 1MB 0 1 1");
    cluster.wait_for("select count(*) from pg_locks where locktype = 'advisory'", "0");
}

#[test]
fn a_procedure_that_cannot_be_a_handler_is_refused() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql(
        "create procedure with_out(p json, out n int) language plpgsql as 'begin n := 1; end';
         create procedure with_inout(inout p json) language plpgsql as 'begin end';
         create procedure of_set(p json[]) language plpgsql as 'begin end';
         create procedure of_text(p text) language plpgsql as 'begin end';
         create procedure fine(p json) language plpgsql as 'begin end';
         create function later(p json) returns void language sql as ''",
    );
    let mut refused = |arguments: &str| error(&mut db, &format!("select kongtask.register_task({arguments})"));
    let not_callable = |handler: &str| ("42809".to_owned(), format!("{handler} cannot be a handler"));
    assert_eq!(refused("'t', 'with_out(json)'"), not_callable("public.with_out(json)"));
    assert_eq!(refused("'t', 'with_inout(json)'"), not_callable("public.with_inout(json)"));
    assert_eq!(refused("'t', 'of_set(json[])'"), not_callable("public.of_set(json[])"));
    assert_eq!(
        refused("'t', 'of_text(text)'"),
        ("42P13".into(), "public.of_text(text) does not have a handler's signature".into())
    );
    assert_eq!(
        refused("'t', 'fine(json)', max_batch := 2"),
        ("22023".into(), "max_batch must be between 1 and 1 for this handler".into())
    );
    cluster.sql("select kongtask.register_task('fine', 'fine(json)', max_batch := 1)");
    assert_eq!(cluster.text("select in_place from kongtask.tasks"), "f");
}

/// Nothing says so but the catalog.
#[test]
fn a_function_that_was_made_a_procedure_since_is_run_as_one() {
    let cluster = with_steps(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function changes(p json) returns void language sql as '';
         select kongtask.register_task('changes', 'changes(json)'), kongtask.register_task('batch', 'changes(json)', max_batch := 10);
         drop function changes(json);
         create procedure changes(p json) language plpgsql as $$ begin
           insert into steps (step) values ((p #>> '{}')::int); commit; end $$;
         select graphile_worker.add_job('changes', '1'), graphile_worker.add_job('batch', '2'), graphile_worker.add_job('batch', '3')",
    );
    cluster.wait_for(JOBS, "0");
    cluster.wait_for("select array_agg(step order by step) from steps", "{1,2,3}");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn a_python_procedure_commits_too() {
    let cluster = with_steps(&["kongtask.workers = 1"]);
    if cluster.text("select count(*) from pg_available_extensions where name = 'plpython3u'") == "0" {
        return say("skipped: this server has no PL/Python");
    }
    cluster.sql(
        "create extension plpython3u;
         create procedure snake(p json) language plpython3u as $$
for n in range(3):
    plpy.execute(f'insert into steps (step) values ({n})')
    plpy.commit()
$$;
         create procedure spins() language plpython3u as $$
plpy.commit()
while True:
    pass
$$;
         select kongtask.register_task('snake', 'snake(json)'), kongtask.register_task('spins', 'spins()', timeout := '300 ms');
         select graphile_worker.add_job('snake'), graphile_worker.add_job('spins', max_attempts := 1)",
    );
    cluster.wait_for("select array_agg(step order by at) from steps", "{0,1,2}");
    cluster.wait_for(
        "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs",
        "timed out after 300ms (SQLSTATE 57014)",
    );
}

#[test]
fn many_procedures_run_beside_each_other_and_beside_functions() {
    let cluster = with_steps(&["kongtask.workers = 4"]);
    cluster.sql(
        "create table done (n int);
         create function note(p json) returns void language sql as $$ insert into public.done values ((p #>> '{}')::int) $$;
         select kongtask.register_task('note', 'note(json)', max_batch := 20);
         select count(graphile_worker.add_job('walk', '{\"steps\": 3}')), count(graphile_worker.add_job('note', to_json(n)))
         from generate_series(1, 500) n",
    );
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct (job, step)) from steps"), "1500 1500");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "500 500");
    cluster.wait_for(IDLE, "4");
    assert_eq!(cluster.text(RUNNING), "0");
}
