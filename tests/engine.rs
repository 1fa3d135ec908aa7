//! How jobs are taken and run: in place, sharing a transaction, in sets; and the shelves that they are taken from.

use kongtask_tests::{Cluster, SOON, error, rows, say, text, wait_until};
use std::thread;
use std::time::{Duration, Instant};

/// A cluster whose safety net is an hour away: what runs was told of.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&[&["kongtask.poll_interval = '1h'"], settings].concat());
    cluster.sql(
        "create table done (at bigserial, n int, xid xid8 default pg_current_xact_id());
         create function note(p json) returns void language plpgsql as $$ begin
           insert into done (n) values ((p #>> '{}')::int); end $$;
         create function note_all(p json[]) returns void language plpgsql as $$ begin
           insert into done (n) select (x #>> '{}')::int from unnest(p) x; end $$;",
    );
    cluster
}

const JOBS: &str = "select count(*) from graphile_worker.jobs";
const RUNNING: &str = "select count(*) from kongtask.workers where state = 'running'";

/// Adds jobs 1 to `count` of a task, in one transaction.
fn add(task: &str, count: usize) -> String {
    format!("select count(graphile_worker.add_job('{task}', to_json(n))) from generate_series(1, {count}) n")
}

#[test]
fn a_first_attempt_in_place_marks_nothing_and_keeps_nobody_waiting() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "create function nap(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
           insert into done (n) values (j.attempts * 10 + (kongtask.current_job()).attempts);
           perform pg_sleep(1); end $$;
         select kongtask.register_task('nap', 'nap(json, graphile_worker.jobs)');
         select kongtask.register_task('marked', 'nap(json, graphile_worker.jobs)', in_place := false);
         select graphile_worker.add_job('nap'), graphile_worker.add_job('marked')",
    );
    cluster.wait_for(RUNNING, "2");
    let begun = Instant::now();
    let mut db = cluster.connect();
    assert_eq!(
        rows(&mut db, "select task_identifier, attempts, locked_by is null from graphile_worker.jobs order by id"),
        ["nap|0|t", "marked|1|f"]
    );
    assert_eq!(rows(&mut db, "select task_identifier from kongtask.workers order by 1"), ["marked", "nap"]);
    for statement in [
        "select graphile_worker.complete_jobs('{1,2}')",
        "select graphile_worker.permanently_fail_jobs('{1,2}')",
        "select graphile_worker.reschedule_jobs('{1,2}', run_at := now())",
        "select id from graphile_worker.get_job('an external worker')",
        "select '' from graphile_worker.add_job('elsewhere')",
    ] {
        assert_eq!(text(&mut db, statement), "", "{statement}");
    }
    assert!(begun.elapsed() < Duration::from_millis(700), "somebody waited");
    cluster.wait_for("select string_agg(task_identifier, '') from graphile_worker.jobs", "elsewhere");
    assert_eq!(rows(&mut db, "select n from done"), ["11", "11"]);
}

#[test]
fn a_first_attempt_in_place_that_fails_is_recorded_at_whatever_moment_it_does() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table late (n int unique deferrable initially deferred); insert into late values (1);
         create function at_once() returns void language plpgsql as $$ begin
           insert into done values (1, 1); raise 'no'; end $$;
         create function at_commit() returns void language sql as $$ insert into late values (1) $$;
         select kongtask.register_task('at_once', 'at_once()'), kongtask.register_task('at_commit', 'at_commit()');
         select graphile_worker.add_job('at_once', max_attempts := 1), graphile_worker.add_job('at_commit')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 1", "2");
    let mut db = cluster.connect();
    assert_eq!(
        rows(
            &mut db,
            "select task_identifier, split_part(last_error, E'\\n', 1), run_at - updated_at between '2.7 s' and '2.72 s',
               locked_by from graphile_worker.jobs order by id"
        ),
        [
            "at_once|no (SQLSTATE P0001)|t|",
            "at_commit|duplicate key value violates unique constraint \"late_n_key\" (SQLSTATE 23505)|t|"
        ]
    );
    assert_eq!(text(&mut db, "select count(*) from done"), "0");
    cluster.wait_for_log("job 1 (at_once) failed for good on attempt 1 of 1: no");
    // The second attempt is claimed, and runs when it is due.
    cluster.sql("delete from late; select graphile_worker.reschedule_jobs('{2}', run_at := now())");
    cluster.wait_for(JOBS, "1");
}

#[test]
fn a_worker_that_is_terminated_in_place_gives_its_job_back_at_once() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table naps (n int); insert into naps values (60);
         create function nap() returns void language plpgsql as $$ declare s int; begin
           select n into s from naps; perform pg_sleep(s); insert into done (n) values (s); end $$;
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap')",
    );
    cluster.wait_for(RUNNING, "1");
    // In a transaction of its own: whoever takes the job next is to see that.
    cluster.sql("update naps set n = 0");
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers where state = 'running'");
    let begun = Instant::now();
    cluster.wait_for(JOBS, "0");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(cluster.text("select string_agg(n::text, '') from done"), "0");
}

#[test]
fn a_trigger_of_a_user_s_on_the_queue_fails_the_job_not_the_worker() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "select kongtask.register_task('note', 'note(json)');
         create function keep() returns trigger language plpgsql as $$ begin
           if old.payload::text = '1' then raise 'kept'; end if; return old; end $$;
         create trigger keep before delete on graphile_worker.jobs for each row execute function keep();",
    );
    cluster.sql(&add("note", 3));
    cluster.wait_for("select split_part(last_error, E'\\n', 1) from graphile_worker.jobs", "kept (SQLSTATE P0001)");
    cluster.wait_for("select string_agg(n::text, ',' order by n) from done", "2,3");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn jobs_share_a_transaction_and_a_failure_leaves_the_others() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function most() returns void language plpgsql as $$ declare n int = (kongtask.current_job()).payload #>> '{}'; begin
           insert into done (n) values (n);
           if n % 10 = 0 then raise 'tenth'; end if; end $$;
         select kongtask.register_task('most', 'most()', max_batch := 50)",
    );
    cluster.sql(&add("most", 200));
    cluster.wait_for(JOBS, "20");
    let mut db = cluster.connect();
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), "180 180");
    let transactions: usize = text(&mut db, "select count(distinct xid) from done").parse().expect("a number");
    assert!((4..60).contains(&transactions), "{transactions}");
    assert_eq!(
        rows(&mut db, "select distinct attempts, left(last_error, 23), locked_by from graphile_worker.jobs"),
        ["1|tenth (SQLSTATE P0001)\n|"]
    );
    // Those that failed are tried again, together too: they are claimed then.
    cluster.sql(
        "create or replace function most() returns void language sql as $$
           insert into done (n) values (((kongtask.current_job()).payload #>> '{}')::int + 1000 * (kongtask.current_job()).attempts) $$;
         select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())",
    );
    cluster.wait_for(JOBS, "0");
    assert_eq!(
        text(&mut db, "select count(*) || ' ' || min(n) || ' ' || max(n) from done where n > 1000"),
        "20 2010 2200"
    );
}

#[test]
fn a_job_that_would_wait_in_a_batch_waits_alone() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table counters (n int primary key, c int default 0);
         insert into counters select generate_series(1, 50);
         create function count_up(p json) returns void language plpgsql as $$ begin
           update counters set c = c + 1 where n = (p #>> '{}')::int;
           insert into done (n) values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('count_up', 'count_up(json)', max_batch := 50)",
    );
    let mut holder = cluster.connect();
    holder.batch_execute("begin; update counters set c = 0 where n = 25").expect("a lock");
    cluster.sql(&add("count_up", 50));
    cluster.wait_for("select count(*) from done", "49");
    assert_eq!(cluster.text("select attempts from graphile_worker.jobs"), "0");
    cluster.wait_for(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and backend_type = 'kongtask worker'",
        "1",
    );
    holder.batch_execute("commit").expect("commit");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select sum(c) from counters"), "50");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
}

#[test]
fn deadlocks_and_serialization_failures_in_a_batch_are_nobody_s_fault() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function picky(p json) returns void language plpgsql as $$ begin
           if exists (select from done where xid = pg_current_xact_id()) then
             raise 'not in company' using errcode = case when random() < 0.5 then '40001' else '40P01' end;
           end if;
           insert into done (n) values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('picky', 'picky(json)', max_batch := 50)",
    );
    cluster.sql(&add("picky", 30));
    cluster.wait_for("select count(*) from done", "30");
    cluster.wait_for(JOBS, "0");
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
    // Alone, it is a failure.
    cluster.sql(
        "create function lonely() returns void language plpgsql as $$ begin raise 'no' using errcode = '40001'; end $$;
         select kongtask.register_task('lonely', 'lonely()', max_batch := 50);
         select graphile_worker.add_job('lonely')",
    );
    cluster.wait_for(
        "select attempts || last_error from graphile_worker.jobs",
        "1no (SQLSTATE 40001)\nCONTEXT: PL/pgSQL function lonely() line 1 at RAISE",
    );
}

#[test]
fn a_batch_that_cannot_commit_is_run_one_by_one() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table late (n int unique deferrable initially deferred); insert into late values (7);
         create function late(p json) returns void language sql as $$ insert into late values ((p #>> '{}')::int) $$;
         select kongtask.register_task('late', 'late(json)', max_batch := 50)",
    );
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "select count(graphile_worker.add_job('late', to_json(n), job_key := {key})) from generate_series(1, 20) n"
        ));
        cluster.wait_for("select count(*) from late", "20");
        cluster.wait_for("select string_agg(payload::text || attempts, ',') from graphile_worker.jobs", "71");
        cluster.sql("delete from graphile_worker.jobs; delete from late where n <> 7");
    }
}

#[test]
fn no_job_is_begun_in_a_batch_whose_time_is_up() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function nap(p json) returns void language plpgsql as $$ begin
           perform pg_sleep(0.03); insert into done (n) values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('nap', 'nap(json)', max_batch := 50)",
    );
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "truncate done;
             select count(graphile_worker.add_job('nap', to_json(n), job_key := {key})) from generate_series(1, 20) n"
        ));
        cluster.wait_for("select count(*) || ' ' || count(distinct xid) from done", "20 20");
        cluster.wait_for(JOBS, "0");
        assert_eq!(
            cluster.text("select string_agg(n::text, ',' order by at) = string_agg(n::text, ',' order by n) from done"),
            "t"
        );
    }
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
}

#[test]
fn add_job_never_waits_for_a_batch() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function nap(p json) returns void language plpgsql as $$ begin
           insert into done (n) values ((p #>> '{}')::int); perform pg_sleep(1); end $$;
         select kongtask.register_task('nap', 'nap(json)', max_batch := 50);
         create function nap_all(p json[]) returns void language plpgsql as $$ begin perform pg_sleep(1); end $$;
         select kongtask.register_task('nap_all', 'nap_all(json[])')",
    );
    for task in ["nap", "nap_all"] {
        cluster.sql(&format!(
            "select graphile_worker.add_job('{task}', to_json(n), job_key := 'k' || n) from generate_series(1, 5) n"
        ));
        cluster.wait_for(RUNNING, "1");
        let begun = Instant::now();
        cluster.sql(&format!("select graphile_worker.add_job('{task}', to_json(0), job_key := 'k1')"));
        assert!(begun.elapsed() < Duration::from_millis(700), "{task}: {:?}", begun.elapsed());
        cluster.wait_for(JOBS, "0");
    }
    assert_eq!(cluster.text("select count(*) from done where n = 0"), "1");
}

#[test]
fn a_set_is_one_call_and_is_halved_until_the_culprits_are_alone() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table calls (n int);
         create function all_rows(j graphile_worker.jobs[]) returns void language plpgsql as $$ begin
           insert into calls values (cardinality(j));
           insert into done (n) select (x.payload #>> '{}')::int + 1000 * (x.attempts - 1) from unnest(j) x;
           if exists (select from unnest(j) x where x.payload #>> '{}' in ('13', '77') and x.attempts = 1) then raise 'culprit'; end if;
         end $$;
         select kongtask.register_task('set', 'note_all(json[])', max_batch := 10000),
                kongtask.register_task('rows', 'all_rows(graphile_worker.jobs[])')",
    );
    cluster.sql(&add("set", 25_000));
    cluster.wait_for(JOBS, "0");
    let mut db = cluster.connect();
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), "25000 25000");
    let transactions: usize = text(&mut db, "select count(distinct xid) from done").parse().expect("a number");
    assert!(transactions <= 6, "{transactions}");
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "truncate done; truncate calls;
             select count(graphile_worker.add_job('rows', to_json(n), job_key := {key})) from generate_series(1, 100) n"
        ));
        cluster.wait_for(JOBS, "2");
        assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), "98 98");
        assert_eq!(
            rows(
                &mut db,
                "select payload, attempts, left(last_error, 24), locked_by from graphile_worker.jobs order by id"
            ),
            ["13|1|culprit (SQLSTATE P0001)|", "77|1|culprit (SQLSTATE P0001)|"]
        );
        // What was undone left no trace: only the calls that completed.
        assert_eq!(text(&mut db, "select sum(n) from calls"), "98");
        cluster
            .sql("select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())");
        cluster.wait_for(JOBS, "0");
        assert_eq!(text(&mut db, "select string_agg(n::text, ' ' order by n) from done where n > 1000"), "1013 1077");
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn register_task_says_what_is_wrong_with_its_options() {
    let cluster = cluster(&[]);
    let mut db = cluster.connect();
    for (handler, max_batch, most) in [
        ("note(json)", "61", "60"),
        ("note(json)", "0", "60"),
        ("note(json)", "-1", "60"),
        ("note_all(json[])", "10001", "10000"),
    ] {
        let statement = format!("select kongtask.register_task('t', '{handler}', max_batch := {max_batch})");
        assert_eq!(
            error(&mut db, &statement),
            ("22023".into(), format!("max_batch must be between 1 and {most} for this handler"))
        );
    }
    let options = "select max_batch, in_place from kongtask.tasks";
    for (arguments, expected) in [
        ("'note(json)'", "1|t"),
        ("'note_all(json[])'", "1000|t"),
        ("'note_all(json[])', max_batch := 10000, in_place := false", "10000|f"),
        ("'note(json)', max_batch := 60, in_place := null", "60|t"),
        ("'note(json)'", "1|t"),
    ] {
        db.batch_execute(&format!("select kongtask.register_task('t', {arguments})")).expect(arguments);
        assert_eq!(rows(&mut db, options), [expected], "{arguments}");
    }
}

#[test]
fn a_commit_wakes_as_many_as_it_adds_jobs() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql("select kongtask.register_task('note', 'note(json)')");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    let mut db = cluster.connect();
    let since = "select pid, since from kongtask.workers order by pid";
    for jobs in [1, 2] {
        // Once what the scheduler has woken some for, the new task, is done with.
        let mut before = Vec::new();
        let is_quiet = wait_until(SOON, || {
            let now = rows(&mut db, since);
            let is_same = now == before;
            before = now;
            thread::sleep(Duration::from_millis(300));
            is_same
        });
        assert!(is_quiet);
        db.batch_execute(&format!("truncate done; {}", add("note", jobs))).expect("add_job");
        cluster.wait_for("select count(*) from done", &jobs.to_string());
        cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
        let changed = rows(&mut db, since).iter().zip(&before).filter(|(after, before)| after != before).count();
        assert!((1..=jobs).contains(&changed), "{changed} woken for {jobs}");
    }
}

/// More than a shelf holds, added in every way at once, with the safety net away: all of it runs, once.
#[test]
fn no_job_is_lost_between_the_shelves_and_the_table() {
    let cluster = cluster(&["kongtask.workers = 3", "max_worker_processes = 12"]);
    cluster.sql(
        "create role other login; grant usage on schema public to other; grant insert on done to other;
         grant usage on sequence done_at_seq to other; grant usage on schema kongtask to other;
         grant execute on function kongtask.register_task to other;
         create function fails_once(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
           if j.attempts = 1 then raise 'first'; end if;
           insert into done (n) values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('note', 'note(json)'), kongtask.register_task('set', 'note_all(json[])'),
                kongtask.register_task('batch', 'note(json)', max_batch := 20),
                kongtask.register_task('again', 'fails_once(json, graphile_worker.jobs)');
         set role other; select kongtask.register_task('theirs', 'note(json)')",
    );
    let (threads, each) = (4, 3000);
    thread::scope(|scope| {
        for thread in 0..threads {
            let mut db = cluster.connect();
            scope.spawn(move || {
                let mut n = thread * each;
                let end = n + each;
                let mut step = thread;
                while n < end {
                    // One, some, or more than a list has room for, at random priorities and times, keyed and queued.
                    step += 1;
                    let count = [1, 7, 1, 400][step % 4].min(end - n);
                    let (first, last) = (n + 1, n + count);
                    db.batch_execute(&format!(
                        // Queues in order: no enqueuer waits for another in a circle.
                        "select graphile_worker.add_job(
                           (array['note', 'set', 'batch', 'theirs', 'again'])[1 + n % 5], to_json(n),
                           priority := n * 7 % 5,
                           run_at := now() + (n % 3 - 1) * interval '10 ms',
                           job_key := case when n % 11 = 0 then 'k' || n end,
                           queue_name := case when n % 13 = 0 then 'q' || n % 4 end)
                         from (
                           select n from generate_series({first}, {last}) n order by case when n % 13 = 0 then n % 4 end
                         ) ns"
                    ))
                    .expect("add_job");
                    n += count;
                }
            });
        }
    });
    // Beside them, everything that is to be found by a search.
    cluster.sql(&format!(
        "begin; select count(graphile_worker.add_job('note', to_json(n))) from generate_series({0}, {0} + 24999) n; commit",
        threads * each + 1
    ));
    let total = threads * each + 25_000;
    let mut db = cluster.connect();
    let done = wait_until(SOON * 2, || text(&mut db, JOBS) == "0");
    assert!(done, "{:?}\n{}", rows(&mut db, "select * from graphile_worker.jobs limit 10"), cluster.log());
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), format!("{total} {total}"));
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
    // No statement reads an index from end to end, whatever the planner thought of a table that was empty once.
    let read = "select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = 'graphile_worker'";
    let read: usize = text(&mut db, read).parse().expect("a number");
    assert!(read < total * 20, "{read} index entries read for {total} jobs");
}

#[test]
fn what_was_passed_runs_once_nothing_keeps_it() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.forbidden_flags = 'later'"]);
    cluster.sql("select kongtask.register_task('note', 'note(json)')");
    cluster.sql(
        "select count(graphile_worker.add_job('note', to_json(n), flags := '{later}')) from generate_series(1, 700) n;
         select count(graphile_worker.add_job('unknown', to_json(n))) from generate_series(701, 1400) n;
         select graphile_worker.add_job('note', to_json(0))",
    );
    cluster.wait_for("select string_agg(n::text, ',') from done", "0");
    cluster.reload(&["kongtask.forbidden_flags = ''"]);
    cluster.wait_for("select count(*) from done", "701");
    cluster.sql("select kongtask.register_task('unknown', 'note(json)')");
    cluster.wait_for("select count(distinct n) || ' ' || count(*) from done", "1401 1401");
}

#[test]
fn a_plain_job_is_added_without_an_insert_unless_the_table_was_changed() {
    let cluster = Cluster::with(&["kongtask.workers = 0", "track_functions = all"]);
    cluster.sql("create extension kongtask");
    let mut db = cluster.connect();
    // An INSERT fires the trigger.
    let fired =
        "select coalesce(sum(calls), 0) from pg_stat_xact_user_functions where funcname = 'tg_jobs__notify_new_jobs'";
    let mut add = || -> usize {
        let calls = |db: &mut postgres::Client| text(db, fired).parse::<usize>().expect("a number");
        db.batch_execute("begin").expect("begin");
        let before = calls(&mut db);
        db.batch_execute("select graphile_worker.add_job('t', '{\"a\": 1}')").expect("add_job");
        let after = calls(&mut db);
        db.batch_execute("commit").expect("commit");
        after - before
    };
    assert_eq!(add(), 0);
    cluster.sql(
        "create table seen (id bigint);
         create function see() returns trigger language plpgsql as $$ begin insert into public.seen values (new.id); return new; end $$;
         create trigger see after insert on graphile_worker.jobs for each row execute function see()",
    );
    assert_eq!(add(), 1);
    assert_eq!(cluster.text("select count(*) from seen"), "1");
    cluster.sql("drop trigger see on graphile_worker.jobs");
    assert_eq!(add(), 0);
    for (change, back) in [
        ("create index more on graphile_worker.jobs (created_at)", "drop index graphile_worker.more"),
        (
            "alter table graphile_worker.jobs add constraint small check (priority < 100)",
            "alter table graphile_worker.jobs drop constraint small",
        ),
        (
            "alter table graphile_worker.jobs alter updated_at set default '2000-01-01'",
            "alter table graphile_worker.jobs alter updated_at set default now()",
        ),
        (
            "alter table graphile_worker.jobs disable trigger _500_release_queue",
            "alter table graphile_worker.jobs enable trigger _500_release_queue",
        ),
    ] {
        cluster.sql(change);
        assert_eq!(add(), 1, "{change}");
        cluster.sql(back);
        assert_eq!(add(), 0, "{back}");
    }
    let mut db = cluster.connect();
    db.batch_execute("set session_replication_role = replica").expect("set");
    db.batch_execute("select graphile_worker.add_job('replicated')").expect("add_job");
    assert_eq!(error(&mut db, "begin read only; select graphile_worker.add_job('t')").0, "25006");
    db.batch_execute("rollback; set enable_seqscan = off; set enable_bitmapscan = off").expect("set");
    // Every index has every job.
    let all = text(&mut db, "select count(*) from graphile_worker.jobs");
    for (index, condition) in [
        ("jobs_pkey", "id > 0"),
        ("jobs_key_key", "key is null"),
        (
            "jobs_priority_run_at_id_locked_at_without_failures_idx",
            "priority > -1 and run_at > '2000-01-01' and attempts < max_attempts",
        ),
    ] {
        let query = format!("select count(*) from graphile_worker.jobs where {condition}");
        let plan = rows(&mut db, &format!("explain {query}")).join(" ");
        assert!(plan.contains(&format!("using {index}")), "{plan}");
        assert_eq!(text(&mut db, &query), all, "{index}");
    }
}

/// As `pg_stat_get_backend_subxact` tells, which there is since 16: before, what is counted here cannot be seen from SQL.
#[test]
fn a_batch_never_has_more_subtransactions_than_others_can_be_told_of() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    if cluster.version() < 16 {
        return say(
            "left out a_batch_never_has_more_subtransactions_than_others_can_be_told_of: PostgreSQL 16 and later tell",
        );
    }
    cluster.sql(
        "create table seen (xid xid8 default pg_current_xact_id(), subtransactions int, overflowed bool);
         create function look() returns void language plpgsql as $$ begin
           perform pg_stat_clear_snapshot();
           insert into seen (subtransactions, overflowed)
             select s.* from pg_stat_get_backend_idset() b, pg_stat_get_backend_subxact(b) s
             where pg_stat_get_backend_pid(b) = pg_backend_pid(); end $$;
         create function plain(p json) returns void language plpgsql as $$ begin perform note(p), look(); end $$;
         create function in_blocks(p json) returns void language plpgsql as $$ begin
           begin perform note(p); exception when division_by_zero then null; end;
           begin perform look(); exception when division_by_zero then null; end; end $$;
         select kongtask.register_task('plain', 'plain(json)', max_batch := 60),
           kongtask.register_task('in_blocks', 'in_blocks(json)', max_batch := 60)",
    );
    for task in ["plain", "in_blocks"] {
        cluster.sql("truncate done, seen");
        cluster.sql(&add(task, 600));
        cluster.wait_for(JOBS, "0");
        assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "600 600");
        assert_eq!(cluster.text("select bool_or(overflowed) from seen"), "f", "{task}");
        let shared = "select max(subtransactions) between 10 and 64 and count(distinct xid) < 300 from seen";
        assert_eq!(cluster.text(shared), "t", "{task}: {:?}", cluster.text("select max(subtransactions) from seen"));
    }
}
