//! Batches: jobs that share a transaction (`max_batch`); after a failure, each in a subtransaction of its own.

use kongtask_tests::fixtures::{add, without_polling};
use kongtask_tests::{JOBS, RUNNING, rows, say, text};
use std::time::{Duration, Instant};

#[test]
fn jobs_share_a_transaction_and_a_failure_leaves_the_others() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
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
fn a_batch_of_which_no_job_fails_has_one_transaction_id() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql("select kongtask.register_task('many', 'note(json)', max_batch := 1000)");
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "truncate done;
             select count(graphile_worker.add_job('many', to_json(n), job_key := {key})) from generate_series(1, 1000) n"
        ));
        cluster.wait_for(JOBS, "0");
        assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "1000 1000");
        // A subtransaction that writes would have one of its own.
        assert_eq!(cluster.text("select count(*) from done where xmin <> xid::xid"), "0");
        let shared = cluster.text("select max(count) from (select count(*) from done group by xid) shared");
        assert!(shared.parse::<usize>().expect("a number") > 60, "{shared}");
    }
}

/// The next jobs are searched for before the list is empty: nobody waits for them, and nobody has to share out what is left.
#[test]
fn batches_are_as_large_as_they_may_be_as_long_as_there_is_a_backlog() {
    let cluster = without_polling(&["kongtask.workers = 4"]);
    cluster.sql("select kongtask.register_task('batch', 'note(json)', max_batch := 50)");
    cluster.sql("select kongtask.pause(task := 'batch')");
    cluster.sql(&add("batch", 5000));
    // The end of the pause has them searched for.
    cluster.sql("select kongtask.resume(task := 'batch')");
    cluster.wait_for(JOBS, "0");
    let batches: i32 = cluster.text("select count(distinct xid) from done").parse().expect("a number");
    assert!((100..=180).contains(&batches), "{batches} batches of 50 for 5000 jobs");
}

#[test]
fn a_job_of_a_batch_sees_what_those_before_it_have_defined() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table seen (n int, version int, xid xid8 default pg_current_xact_id());
         create view current_version as select 0 as version;
         create function define(n int) returns void language plpgsql as $$ begin
           if n % 10 = 0 then execute format('create or replace view current_version as select %s as version', n / 10); end if; end $$;
         create function see(p json) returns void language sql as $$
           select define((p #>> '{}')::int);
           insert into seen (n, version) select (p #>> '{}')::int, version from current_version $$;
         select kongtask.register_task('see', 'see(json)', max_batch := 1000)",
    );
    cluster.sql(&add("see", 200));
    cluster.wait_for(JOBS, "0");
    // One that defines was parsed before it began; from 18 on, its second statement is parsed after its first has run.
    assert_eq!(cluster.text("select count(*) from seen where version in ((n - 1) / 10, n / 10)"), "200");
    assert_eq!(cluster.text("select count(distinct xid) < 100 from seen"), "t");
}

#[test]
fn a_job_of_a_batch_begins_as_if_it_were_alone() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function meddle(p json) returns void language plpgsql as $$ begin
           insert into done (n) values (case when
             current_setting('transaction_read_only') = 'off' and current_setting('work_mem') = '4MB'
             and current_setting('search_path') = '\"$user\", public' and current_setting('timezone') <> 'Asia/Tokyo'
             then (p #>> '{}')::int end);
           perform set_config('work_mem', '5MB', true), set_config('search_path', 'pg_catalog', false);
           set local timezone = 'Asia/Tokyo';
           set transaction read only; end $$;
         select kongtask.register_task('meddle', 'meddle(json)', max_batch := 50)",
    );
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "truncate done;
             select count(graphile_worker.add_job('meddle', to_json(n), job_key := {key})) from generate_series(1, 200) n"
        ));
        cluster.wait_for(JOBS, "0");
        assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "200 200");
        assert_eq!(cluster.text("select count(distinct xid) < 100 from done"), "t");
    }
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
}

#[test]
fn a_job_that_another_of_its_batch_has_completed_does_not_run() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function picks(p json) returns void language plpgsql as $$ begin
           insert into done (n) values ((p #>> '{}')::int);
           if p #>> '{}' = '2' then
             perform graphile_worker.complete_jobs(array(select id from graphile_worker.jobs where payload #>> '{}' = '4'));
             perform graphile_worker.reschedule_jobs(
               array(select id from graphile_worker.jobs where payload #>> '{}' = '6'), run_at := now() + interval '1 hour');
           end if; end $$;
         select kongtask.register_task('picks', 'picks(json)', max_batch := 50)",
    );
    cluster.sql(&add("picks", 8));
    cluster.wait_for(JOBS, "1");
    assert_eq!(cluster.text("select string_agg(n::text, ',' order by at) from done"), "1,2,3,5,7,8");
    assert_eq!(
        cluster.text("select payload || ' ' || attempts || ' ' || (run_at > now()) from graphile_worker.jobs"),
        "6 0 true"
    );
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
}

#[test]
fn a_job_that_would_wait_in_a_batch_waits_alone() {
    let cluster = without_polling(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table counters (n int primary key, c int default 0);
         insert into counters select generate_series(1, 50);
         create function count_up(p json) returns void language plpgsql as $$ begin
           update counters set c = c + 1 where n = (p #>> '{}')::int;
           perform pg_sleep(0.004);
           insert into done (n) values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('count_up', 'count_up(json)', max_batch := 50)",
    );
    // Some of its batch are left when the time is up. They do not wait for it.
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
    let cluster = without_polling(&["kongtask.workers = 1"]);
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
    let cluster = without_polling(&["kongtask.workers = 1"]);
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
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create sequence calls;
         create function nap(p json) returns void language plpgsql as $$ begin
           perform nextval('calls'), pg_sleep(0.03); insert into done (n) values ((p #>> '{}')::int); end $$;
         select kongtask.register_task('nap', 'nap(json)', max_batch := 50)",
    );
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "truncate done; alter sequence calls restart;
             select count(graphile_worker.add_job('nap', to_json(n), job_key := {key})) from generate_series(1, 20) n"
        ));
        cluster.wait_for("select count(*) || ' ' || count(distinct xid) from done", "20 20");
        cluster.wait_for(JOBS, "0");
        assert_eq!(
            cluster.text("select string_agg(n::text, ',' order by at) = string_agg(n::text, ',' order by n) from done"),
            "t"
        );
        // What has run when the time is up is committed.
        assert_eq!(cluster.text("select last_value from calls"), "20");
    }
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
}

#[test]
fn add_job_never_waits_for_a_batch() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
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

/// As `pg_stat_get_backend_subxact` tells, which there is since 16: before, what is counted here cannot be seen from SQL.
#[test]
fn a_batch_never_has_more_subtransactions_than_others_can_be_told_of() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
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
         create function plain(p json) returns void language plpgsql as $$ begin
           if p #>> '{}' = '1' then raise 'the first'; end if; perform note(p), look(); end $$;
         create function in_blocks(p json) returns void language plpgsql as $$ begin
           begin perform note(p); exception when division_by_zero then null; end;
           begin perform look(); exception when division_by_zero then null; end; end $$;
         select kongtask.register_task('plain', 'plain(json)', max_batch := 1000),
           kongtask.register_task('in_blocks', 'in_blocks(json)', max_batch := 1000)",
    );
    for task in ["plain", "in_blocks"] {
        cluster.sql("truncate done, seen");
        cluster.sql(&add(task, 600));
        // One that fails, so that the others are guarded.
        let done = if task == "plain" { "599" } else { "600" };
        cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 0", "0");
        assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), format!("{done} {done}"));
        assert_eq!(cluster.text("select bool_or(overflowed) from seen"), "f", "{task}");
        let shared = "select max(subtransactions) between 10 and 64 and count(distinct xid) < 300 from seen";
        assert_eq!(cluster.text(shared), "t", "{task}: {:?}", cluster.text("select max(subtransactions) from seen"));
    }
}
