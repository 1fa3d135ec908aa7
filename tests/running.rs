//! Workers in the server run jobs.

use kongtask_tests::{Cluster, SOON, rows, text, wait_until};
use std::time::Duration;

/// What handlers did, outside the queue.
const DONE: &str = "create table done (at bigserial, job bigint, what text);";

/// A handler that writes down what it was given, and a task of the same name.
fn note(name: &str) -> String {
    format!(
        "create function {name}(payload json) returns void language plpgsql as $$ begin
           insert into done (job, what) values ((kongtask.current_job()).id, payload #>> '{{}}');
         end $$;
         select kongtask.register_task('{name}', '{name}(json)');"
    )
}

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(DONE);
    cluster.sql(&note("note"));
    cluster
}

#[test]
fn every_signature_gets_what_it_asks_for() {
    let cluster = cluster(&[]);
    cluster.sql(
        "create function s_none() returns int language sql as
           $$ insert into done (job, what) values ((kongtask.current_job()).id, 'none') returning 1 $$;
         create function s_json(json) returns void language sql as
           $$ insert into done (job, what) values (0, $1 ->> 'a') $$;
         create function s_jsonb(p jsonb) returns jsonb language plpgsql as
           $$ begin insert into done (job, what) values (0, p::text); return p; end $$;
         create function s_row(j graphile_worker.jobs) returns void language plpgsql as
           $$ begin insert into done (job, what) values (j.id, j.payload ->> 'a' || j.attempts); end $$;
         create function s_both(p json, j graphile_worker.jobs) returns text language plpgsql as
           $$ begin insert into done (job, what) values (j.id, (p ->> 'a') || j.task_identifier); return 'x'; end $$;
         select kongtask.register_task(s, (s || a)::regprocedure) from (values ('s_none', '()'), ('s_json', '(json)'),
           ('s_jsonb', '(jsonb)'), ('s_row', '(graphile_worker.jobs)'), ('s_both', '(json, graphile_worker.jobs)')) v (s, a);
         select graphile_worker.add_job(s, '{\"a\": \"A\"}', queue_name := 'q')
           from unnest(array['s_none', 's_json', 's_jsonb', 's_row', 's_both']) s;",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let mut db = cluster.connect();
    assert_eq!(
        rows(&mut db, "select job, what from done order by at"),
        ["1|none", "0|A", "0|{\"a\": \"A\"}", "4|A1", "5|As_both"]
    );
    assert_eq!(text(&mut db, "select kongtask.current_job() is null"), "t");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn order_is_priority_then_run_at_then_id() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "1");
    // Workers are told of those that are added now, and have to search for those whose task nobody has registered yet.
    for task in ["note", "later"] {
        cluster.sql(&format!(
            "truncate done;
             select graphile_worker.add_job('{task}', '3', run_at := now() - interval '1 min'),
                    graphile_worker.add_job('{task}', '4'),
                    graphile_worker.add_job('{task}', '5'),
                    graphile_worker.add_job('{task}', '2', run_at := now() - interval '2 min'),
                    graphile_worker.add_job('{task}', '7', priority := 2147483647),
                    graphile_worker.add_job('{task}', '1', priority := -1),
                    graphile_worker.add_job('{task}', '0', priority := -2147483648),
                    graphile_worker.add_job('{task}', '6', priority := 1, run_at := '2000-01-01')"
        ));
        if task == "later" {
            cluster.sql("select kongtask.register_task('later', 'note(json)')");
        }
        cluster.wait_for("select string_agg(what, '' order by at) from done", "01234567");
    }
}

#[test]
fn a_queue_runs_one_job_at_a_time_in_order_while_others_go_on() {
    let cluster = cluster(&["kongtask.workers = 4"]);
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

#[test]
fn a_failed_attempt_leaves_no_effect_and_is_recorded() {
    let cluster = cluster(&[]);
    cluster.sql(
        "create function bad(p json) returns void language plpgsql as $$ begin
           insert into done (job, what) values (1, 'an effect');
           raise exception 'boom %', p ->> 'n' using errcode = 'XX123', detail = 'the detail', hint = 'the hint';
         end $$;
         select kongtask.register_task('bad', 'bad(json)');
         select graphile_worker.add_job('bad', '{\"n\": 7}', max_attempts := 2, queue_name := 'q')",
    );
    cluster.wait_for("select attempts from graphile_worker.jobs where last_error is not null", "1");
    let mut db = cluster.connect();
    let last_error = text(&mut db, "select last_error from graphile_worker.jobs");
    assert!(
        last_error.starts_with("boom 7 (SQLSTATE XX123)\nDETAIL: the detail\nHINT: the hint\nCONTEXT: "),
        "{last_error}"
    );
    assert!(last_error.contains("PL/pgSQL function"), "{last_error}");
    assert_eq!(
        rows(
            &mut db,
            "select locked_at, locked_by, run_at - updated_at between '2.7 s' and '2.72 s' from graphile_worker.jobs"
        ),
        ["||t"]
    );
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues"), "0");
    cluster.wait_for_log("LOG:  job 1 (bad) failed on attempt 1 of 2: boom 7");
    // Given its second attempt now, it fails for good, and stays.
    cluster.sql("select graphile_worker.reschedule_jobs('{1}', run_at := now())");
    cluster.wait_for("select attempts from graphile_worker.jobs", "2");
    cluster.wait_for_log("WARNING:  job 1 (bad) failed for good on attempt 2 of 2: boom 7");
    // With further attempts it comes back to life.
    cluster.sql("create or replace function bad(p json) returns void language sql as $$ insert into done (what) values ('good') $$");
    cluster.sql("select graphile_worker.reschedule_jobs('{1}', run_at := now(), attempts := 0)");
    cluster.wait_for("select string_agg(what, ',') from done", "good");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}

#[test]
fn a_failing_deferred_constraint_is_a_failed_attempt() {
    let cluster = cluster(&[]);
    cluster.sql(
        "create table parent (id int primary key);
         create table child (id int references parent deferrable initially deferred);
         create function orphan() returns void language sql as 'insert into child values (1)';
         select kongtask.register_task('orphan', 'orphan()');
         select graphile_worker.add_job('orphan')",
    );
    cluster.wait_for(
        "select last_error like '%violates foreign key constraint%SQLSTATE 23503%' from graphile_worker.jobs",
        "t",
    );
    assert_eq!(cluster.text("select count(*) from child"), "0");
}

#[test]
fn a_handler_that_is_gone_or_forbidden_fails_clearly_and_the_worker_lives() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function h() returns void language sql as ''; select kongtask.register_task('h', 'h()');
         select graphile_worker.add_job('h', job_key := 'k')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let worker = cluster.text("select pid from kongtask.workers");
    cluster.sql("drop function h(); select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for(
        "select last_error like 'function \"public.h()\" does not exist (SQLSTATE 42883)%' from graphile_worker.jobs",
        "t",
    );
    cluster.sql("create function h() returns setof int language sql as 'select 1'; select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for("select last_error like '%cannot be a handler%returns a set%' from graphile_worker.jobs", "t");
    cluster.sql("drop function h(); create procedure h() language sql as ''; select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for("select last_error like '%(SQLSTATE 42%)%' from graphile_worker.jobs", "t");
    cluster.sql("drop procedure h(); create function h() returns void language sql as ''; select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
}

#[test]
fn forbidden_flags_hold_jobs_back_by_list_and_by_function() {
    let cluster = cluster(&["kongtask.forbidden_flags = 'one, two'"]);
    cluster.sql(
        "select graphile_worker.add_job('note', '1', flags := array['one']);
         select graphile_worker.add_job('note', '2', flags := array['x', 'two']);
         select graphile_worker.add_job('note', '3', flags := array['three']);
         select graphile_worker.add_job('note', '4');",
    );
    cluster.wait_for("select string_agg(what, '' order by what) from done", "34");
    assert_eq!(cluster.text("select string_agg(id::text, '' order by id) from graphile_worker.jobs"), "12");
    cluster.sql(
        "create table forbidden (flag text); insert into forbidden values ('three');
         create function flags() returns text[] language sql as 'select array_agg(flag) from forbidden';",
    );
    cluster.reload(&[
        "kongtask.forbidden_flags = ''",
        "kongtask.forbidden_flags_function = 'public.flags()'",
        "kongtask.poll_interval = '100ms'",
    ]);
    cluster.wait_for("select string_agg(what, '' order by what) from done", "1234");
    cluster.sql("select graphile_worker.add_job('note', '5', flags := array['three']); select graphile_worker.add_job('note', '6')");
    cluster.wait_for("select string_agg(what, '' order by what) from done", "12346");
    cluster.sql("delete from forbidden");
    cluster.wait_for("select string_agg(what, '' order by what) from done", "123456");
    // While the function fails, nothing runs, and the log says so.
    cluster.reload(&["kongtask.forbidden_flags_function = 'public.no_such()'"]);
    cluster.wait_for("show kongtask.forbidden_flags_function", "public.no_such()");
    cluster.sql("select pg_sleep(1.1); select graphile_worker.add_job('note', '7')");
    cluster.wait_for_log("kongtask.forbidden_flags_function failed");
    assert_eq!(cluster.text("select count(*) from graphile_worker.jobs"), "1");
    cluster.reload(&["kongtask.forbidden_flags_function = ''"]);
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}

#[test]
fn external_locks_expire_and_external_identifiers_are_left() {
    let cluster = cluster(&["kongtask.job_expiry = '1h'", "kongtask.poll_interval = '100ms'"]);
    cluster.sql(
        "select graphile_worker.add_job('elsewhere', '0');
         begin;
         select graphile_worker.add_job('note', '1'), graphile_worker.add_job('note', '2', queue_name := 'q');
         update graphile_worker.jobs set locked_at = now() - interval '30 min', locked_by = 'external' where id > 1;
         insert into graphile_worker.job_queues values ('q', 1, now() - interval '30 min', 'external', 3);
         commit;",
    );
    cluster.sql("select graphile_worker.add_job('note', '3')");
    cluster.wait_for("select string_agg(what, '' order by what) from done", "3");
    cluster.reload(&["kongtask.job_expiry = '20min'"]);
    cluster.wait_for("select string_agg(what, '' order by what) from done", "123");
    assert_eq!(
        cluster.text("select string_agg(task_identifier, ',') from graphile_worker.jobs where attempts = 0"),
        "elsewhere"
    );
}

#[test]
fn enqueuing_inside_a_handler_chains() {
    let cluster = cluster(&["kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function countdown(p json) returns void language plpgsql as $$ begin
           insert into done (what) values (p #>> '{}');
           if (p #>> '{}')::int > 0 then
             perform graphile_worker.add_job('countdown', to_json((p #>> '{}')::int - 1), job_key := 'same', queue_name := 'q');
           end if;
         end $$;
         select kongtask.register_task('countdown', 'countdown(json)');
         select graphile_worker.add_job('countdown', '20', job_key := 'same', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from done", "21");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn add_job_with_the_key_or_queue_of_a_running_job_does_not_wait() {
    let cluster = cluster(&[]);
    cluster.sql(
        "create function nap() returns void language sql as 'select pg_sleep(3)';
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap', job_key := 'k', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    let mut db = cluster.connect();
    db.batch_execute(
        "set statement_timeout = '1s';
         select graphile_worker.add_job('note', '\"with the key\"', job_key := 'k');
         select graphile_worker.add_job('note', '\"in the queue\"', queue_name := 'q');
         select graphile_worker.complete_jobs('{1}'), graphile_worker.reschedule_jobs('{1}', priority := 3);",
    )
    .expect("nobody waits");
    cluster.wait_for("select count(*) from done where what = 'with the key'", "1");
    assert_eq!(text(&mut db, "select count(*) from done where what = 'in the queue'"), "0");
    cluster.wait_for("select count(*) from done where what = 'in the queue'", "1");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}

#[test]
fn a_job_whose_lock_was_taken_commits_nothing() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function nap() returns void language sql as $$
           insert into done (what) values ('nap'); select pg_sleep(1) $$;
         select kongtask.register_task('nap', 'nap()', in_place := false);
         select graphile_worker.add_job('nap')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    cluster.sql("update graphile_worker.jobs set locked_by = 'somebody-else'");
    cluster.wait_for_log("WARNING:  job 1 (nap) lost its lock while it ran");
    assert_eq!(cluster.text("select count(*) from done"), "0");
    assert_eq!(cluster.text("select locked_by from graphile_worker.jobs"), "somebody-else");
}

#[test]
fn a_handler_longer_than_job_expiry_is_not_run_twice() {
    let cluster = cluster(&["kongtask.job_expiry = '1s'"]);
    cluster.sql(
        "create function nap() returns void language sql as $$
           insert into done (what) values ('nap'); select pg_sleep(4) $$;
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "1");
    let mut db = cluster.connect();
    let mut tries = 0;
    let finished = wait_until(SOON, || {
        tries += 1;
        let got = text(&mut db, "select id from graphile_worker.get_job('external-worker', job_expiry := '1 second')");
        assert_eq!(got, "", "stolen at try {tries}");
        text(&mut db, "select count(*) from graphile_worker.jobs") == "0"
    });
    assert!(finished && tries > 100, "{tries}");
    assert_eq!(text(&mut db, "select count(*) from done"), "1");
}

#[test]
fn nothing_of_one_handler_s_settings_reaches_the_next() {
    let cluster = cluster(&["kongtask.workers = 1"]);
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

#[test]
fn hostile_defaults_of_a_role_do_not_stop_its_worker() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "alter role postgres set default_transaction_isolation = serializable;
         alter role postgres set search_path = nowhere;
         alter role postgres set default_transaction_deferrable = on;
         create function quiet() returns void language sql as 'select 1';",
    );
    cluster.sql("set search_path = public; select kongtask.register_task('quiet', 'public.quiet()')");
    cluster.sql("alter role postgres set default_transaction_read_only = on");
    cluster.sql("set default_transaction_read_only = off; select pg_terminate_backend(pid) from kongtask.workers");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "1");
    cluster.sql("begin read write; select graphile_worker.add_job('quiet'); commit");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}

/// Eight connections add ten thousand jobs, four workers run them.
fn exactly_once(fails_first: bool) {
    const JOBS: usize = 10_000;
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql("create table effect (n int)");
    cluster.sql(
        "create function effect(p json) returns void language plpgsql as $$ declare j graphile_worker.jobs := kongtask.current_job(); begin
           insert into effect values ((p ->> 'n')::int);
           if (p ->> 'fails')::boolean and j.attempts = 1 then raise exception 'first attempt'; end if;
         end $$;
         select kongtask.register_task('effect', 'effect(json)');",
    );
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let mut db = cluster.connect();
            std::thread::spawn(move || {
                for n in (thread..JOBS).step_by(8) {
                    let fails = fails_first && n % 10 == 0;
                    db.batch_execute(&format!(
                        "select graphile_worker.add_job('effect', '{{\"n\": {n}, \"fails\": {fails}}}')"
                    ))
                    .expect("add_job");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("an enqueuer");
    }
    let mut db = cluster.connect();
    let emptied = wait_until(Duration::from_secs(120), || {
        if fails_first {
            // Shortens the back-off.
            text(
                &mut db,
                "select count(*) from graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where last_error is not null), run_at := now())",
            );
        }
        text(&mut db, "select count(*) from graphile_worker.jobs") == "0"
    });
    assert!(emptied, "{} left", text(&mut db, "select count(*) from graphile_worker.jobs"));
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from effect"), format!("{JOBS} {JOBS}"));
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC", "WARNING"]), Vec::<String>::new());
    cluster.wait_for_log_times("failed on attempt 1", if fails_first { JOBS / 10 } else { 0 });
}

#[test]
fn ten_thousand_jobs_exactly_once() {
    exactly_once(false);
}

#[test]
fn ten_thousand_jobs_exactly_once_where_a_tenth_fails_first() {
    exactly_once(true);
}
