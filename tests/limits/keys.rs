//! Limits that tell jobs apart by a member of the payload, or by their queues.

use crate::{add, add_gated, at_once, cluster, prepare, wait_for_mark};
use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::programs::cpu_time;
use kongtask_tests::{Cluster, JOBS, RUNNING};
use std::time::Instant;

#[test]
fn each_key_is_limited_apart() {
    let cluster = cluster(&["kongtask.workers = 8"]);
    cluster.sql(
        "select kongtask.register_task('claimed', 'work(json)', in_place := false),
                kongtask.register_task('batch', 'work(json)', max_batch := 10),
                kongtask.set_limit('tenants', by := 'key', concurrency := 2)",
    );
    for task in ["work", "claimed", "batch"] {
        cluster.sql(&add(task, 1, 50, "'s', 0.004, 'key', n % 5"));
        cluster.sql(&format!(
            "select graphile_worker.add_job('{task}', json_build_object('s', 0.004, 'key', n % 5), queue_name := 'q' || n % 3)
             from generate_series(1, 10) n"
        ));
    }
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) from account"), "180");
    assert_eq!(cluster.text(&at_once(true)), "2");
    assert!(cluster.text(&at_once(false)).parse::<i32>().expect("a number") > 2);
}

#[test]
fn jobs_without_the_member_share_one_limit() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 1)");
    add_gated(&cluster, 1, 2, "'s', 0");
    add_gated(&cluster, 3, 4, "'key', ''");
    cluster.wait_for(RUNNING, "2");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "2");
    // A payload that Postgres cannot read is as if it had no member; its handler fails.
    cluster.sql("select graphile_worker.add_job('work', '{\"n\": 5, \"key\": \"\\u0000\"}', max_attempts := 1)");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "2");
    cluster.sql("delete from gate");
    cluster.wait_for("select count(*) from account", "4");
    cluster.wait_for(
        "select left(last_error, 35) from graphile_worker.jobs where attempts = 1",
        "unsupported Unicode escape sequence",
    );
}

#[test]
fn queues_are_keys_too() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql("select kongtask.set_limit('queues', '{work}', by := 'queue_name', rate := 2, per := '1 second')");
    cluster.sql(
        "select graphile_worker.add_job('work', json_build_object('n', n, 'key', q), queue_name := q)
         from generate_series(1, 4) n, unnest('{a,b,c}'::text[]) q",
    );
    cluster.wait_for(JOBS, "0");
    let fastest = "select min(began - before) > interval '450 ms' from
        (select began, lag(began) over (partition by key order by began) as before from account) started";
    assert_eq!(cluster.text(fastest), "t");
    assert_eq!(cluster.text("select max(began) - min(began) < interval '4 s' from account"), "t");
}

#[test]
fn a_great_tenant_does_not_delay_the_small_ones() {
    let cluster = cluster(&["kongtask.workers = 4", "synchronous_commit = off"]);
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 1)");
    cluster.sql(&add("work", 1, 100_000, "'s', 0.01, 'key', 'great'"));
    cluster.wait_for("select count(*) > 0 from account", "t");
    cluster.sql(&add("work", 100_001, 100_100, "'s', 0, 'key', n"));
    cluster.sql("create table added as select clock_timestamp() as committed");
    // Each takes 10 ms or more.
    let passed = passed(&cluster, 100);
    assert!(passed <= 40, "{passed} jobs of the great tenant began before the last of the small ones");
    assert_eq!(cluster.text(&at_once(true)), "1");
    assert!(cluster.text(JOBS).parse::<i32>().expect("a number") > 95_000);
    // One that comes later is not delayed at all.
    let begun = Instant::now();
    cluster.sql(&add("work", 100_101, 100_101, "'s', 0, 'key', 'late'"));
    cluster.wait_for("select count(*) from account where key = 'late'", "1");
    assert!(begun.elapsed().as_secs_f64() < 1.0, "{:?}", begun.elapsed());
}

/// How many jobs of the great tenant began between the commit of the others' jobs and the last start of those.
fn passed(cluster: &Cluster, others: usize) -> i32 {
    let began = "select count(*) from account where key <> 'great'";
    cluster.wait_for(began, &others.to_string());
    let passed = "select count(*) from account where key = 'great'
        and began between (select committed from added) and (select max(began) from account where key <> 'great')";
    cluster.text(passed).parse().expect("a number")
}

#[test]
fn keys_that_have_room_take_turns() {
    take_turns(&cluster(&["kongtask.workers = 2", "synchronous_commit = off"]));
}

/// By those of the first one, in the order of the names.
#[test]
fn keys_that_have_room_take_turns_where_another_limit_has_keys_too() {
    let cluster = cluster(&["kongtask.workers = 2", "synchronous_commit = off"]);
    cluster.sql("select kongtask.set_limit('times', '{work}', by := 's', concurrency := 100)");
    take_turns(&cluster);
}

fn take_turns(cluster: &Cluster) {
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 100)");
    // Those of two great tenants are more than the ready list holds.
    cluster.sql(&add("work", 1, 12_000, "'s', 0.005, 'key', 'great'"));
    cluster.wait_for("select count(*) > 0 from account", "t");
    cluster.sql(&add("work", 12_001, 14_000, "'s', 0.005, 'key', 'great'"));
    cluster.sql(&add("work", 14_001, 14_005, "'s', 0, 'key', n"));
    cluster.sql("create table added as select clock_timestamp() as committed");
    let passed = passed(cluster, 5);
    assert!(passed <= 40, "{passed} jobs of the great tenant began before the last of the small ones");
    cluster.sql("select kongtask.pause()");
}

#[test]
fn a_search_passes_the_backlog_of_a_key_that_has_room() {
    let cluster = cluster(&["kongtask.workers = 2", "synchronous_commit = off"]);
    cluster.sql(
        "select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 100), kongtask.pause();
         create table added as select clock_timestamp() as committed",
    );
    cluster.sql(&add("work", 1, 3000, "'s', 0.005, 'key', 'great'"));
    cluster.sql(&add("work", 3001, 3005, "'s', 0, 'key', n"));
    cluster.sql("select kongtask.resume()");
    let passed = passed(&cluster, 5);
    assert!(passed <= 200, "{passed} jobs of the great tenant began before the last of the small ones");
    // Those that were passed are run, too.
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(distinct n) from account"), "3005");
}

#[test]
fn a_backlog_that_no_worker_runs_leaves_the_scheduler_asleep() {
    // For the launcher, the one of logical replication, and the scheduler.
    let cluster = cluster(&["max_worker_processes = 3"]);
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 10)");
    cluster.sql(&add("work", 1, 300, "'key', 'great'"));
    let scheduler = "select min(pid) from pg_stat_activity where backend_type like 'kongtask scheduler%'";
    cluster.wait_for_log("All slots for background workers are in use");
    let scheduler = cluster.text(scheduler).parse().expect("a pid");
    let before = cpu_time(scheduler);
    cluster.sql("select pg_sleep(0.6)");
    let used = cpu_time(scheduler) - before;
    assert!(used.as_millis() < 200, "the scheduler has used {used:?} of 0.6 s");
}

#[test]
fn ten_thousand_keys() {
    let cluster = cluster(&["kongtask.workers = 4", "synchronous_commit = off"]);
    cluster.sql(
        "select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 1, rate := 10, per := '1 second')",
    );
    cluster.sql(&add("work", 1, 12_000, "'s', 0, 'key', n % 10000"));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(distinct n) from account"), "12000");
    assert_eq!(cluster.text(&at_once(true)), "1");
    let fastest = "select min(began - before) > interval '50 ms' from
        (select began, lag(began) over (partition by key order by began) as before from account) started";
    assert_eq!(cluster.text(fastest), "t");
}

#[test]
fn a_key_that_cannot_be_remembered_waits_until_others_are_forgotten() {
    let cluster = cluster(&["kongtask.workers = 4", "kongtask.max_limit_keys = 5"]);
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', rate := 1, per := '1 s')");
    cluster.sql(&add("work", 1, 16, "'key', n % 8"));
    cluster.wait_for_log("jobs wait because too many keys are limited at once");
    cluster.wait_for(JOBS, "0");
    // A start is when the job gets its room; its handler begins a moment later.
    let fastest = "select min(began - before) > interval '500 ms' from
        (select began, lag(began) over (partition by key order by began) as before from account) started";
    assert_eq!(cluster.text(fastest), "t");
    assert_eq!(cluster.text("select count(*) from account"), "16");
}

#[test]
fn a_job_whose_key_changes_while_it_is_taken_needs_room_under_the_new_one() {
    for (task, size) in [("plain", 1), ("claimed", 1), ("batch", 3)] {
        let cluster = Cluster::with_faults(&["kongtask.poll_interval = '1h'", "kongtask.workers = 2"]);
        prepare(&cluster);
        cluster.sql(
            "select kongtask.register_task('plain', 'work(json)'), kongtask.register_task('claimed', 'work(json)', in_place := false),
                    kongtask.register_task('batch', 'work(json)', max_batch := 10),
                    kongtask.set_limit('tenants', by := 'key', concurrency := 1)",
        );
        add_gated(&cluster, 1, 1, "'key', 'b'");
        cluster.wait_for(RUNNING, "1");
        cluster.arm("granted", "stop");
        cluster.sql(&add(task, 2, 1 + size, "'s', 0, 'key', n"));
        let mut db = cluster.connect();
        let pid = stopped(&cluster, &mut db);
        db.batch_execute(
            "update graphile_worker.jobs set payload = '{\"n\": 2, \"key\": \"b\"}' where payload ->> 'key' = '2'",
        )
        .expect("another key");
        go_on(pid);
        // The others of its batch run.
        cluster.wait_for("select count(*) from account", &(size - 1).to_string());
        wait_for_mark(&cluster);
        cluster.wait_for("select why from kongtask.job_states where state <> 'running'", "limit tenants is reached");
        cluster.sql("delete from gate");
        cluster.wait_for(JOBS, "0");
        assert_eq!(cluster.text(&at_once(true)), "1", "{task}");
        assert_eq!(cluster.text("select count(*) from account"), (size + 1).to_string(), "{task}");
    }
}

#[test]
fn a_job_that_waits_under_one_limit_leaves_its_room_under_another_to_the_next() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql(
        "select kongtask.set_limit('keys', '{work}', by := 'key', concurrency := 1),
                kongtask.set_limit('services', '{work}', by := 'service', concurrency := 1)",
    );
    add_gated(&cluster, 1, 1, "'key', 'a', 'service', 'busy'");
    add_gated(&cluster, 2, 2, "'key', 'b', 'service', 'free'");
    cluster.wait_for(RUNNING, "2");
    cluster.sql(&add("work", 3, 3, "'key', 'b', 'service', 'busy'"));
    cluster.sql(&add("work", 4, 4, "'key', 'b', 'service', 'idle'"));
    wait_for_mark(&cluster);
    cluster.sql("delete from gate where n = 2");
    cluster.wait_for("select string_agg(n::text, ' ' order by n) from account", "2 4");
    assert_eq!(cluster.text(JOBS), "2");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
}

#[test]
fn many_keys_each_begin_as_their_rate_says() {
    let cluster = cluster(&["kongtask.workers = 4", "synchronous_commit = off"]);
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', rate := 1, per := '1 second')");
    // The jobs of a key are far apart, so that a search for each alone would pass all of the others.
    cluster.sql(&add("work", 1, 2500, "'s', 0, 'key', n % 500"));
    cluster.wait_for(JOBS, "0");
    let as_the_rate_says =
        "select min(began - before) > interval '900 ms' and max(began) - min(began) < interval '8 s' from
        (select began, lag(began) over (partition by key order by began) as before from account) started";
    assert_eq!(cluster.text(as_the_rate_says), "t");
}

#[test]
fn a_job_that_is_added_while_a_backlog_is_passed_begins_at_once() {
    let cluster = Cluster::with_faults(&["kongtask.poll_interval = '1h'", "kongtask.workers = 3"]);
    prepare(&cluster);
    cluster.sql("select kongtask.set_limit('tenants', '{work}', by := 'key', concurrency := 1), kongtask.pause()");
    cluster.sql("insert into gate values (1)");
    cluster.sql(
        "select count(graphile_worker.add_job('work', '{\"n\": 1, \"key\": \"great\"}')) from generate_series(1, 5000)",
    );
    cluster.sql(&add("work", 2, 2, "'key', 'behind'"));
    cluster.arm("searched", "stop");
    cluster.sql("select kongtask.resume()");
    let mut db = cluster.connect();
    let first = stopped(&cluster, &mut db);
    // The second search, too, finds nothing but jobs that have no room.
    cluster.arm("searched", "stop");
    go_on(first);
    cluster.wait_for(RUNNING, "1");
    let second = stopped(&cluster, &mut db);
    cluster.sql(&add("work", 3, 3, "'key', 'late'"));
    cluster.wait_for("select string_agg(key, ' ') from account", "late");
    go_on(second);
    cluster.wait_for("select string_agg(key, ' ') from account", "late behind");
}
