//! How many jobs run at once.

use crate::{add, add_gated, at_once, cluster, prepare, wait_for_mark};
use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::{Cluster, JOBS, RUNNING, SOON, wait_until};

const EIGHT: &str = "kongtask.workers = 8";

#[test]
fn no_more_jobs_of_a_task_run_at_once_than_its_concurrency() {
    let cluster = cluster(&[EIGHT]);
    cluster.sql("select kongtask.register_task('work', 'work(json)', concurrency := 3)");
    cluster.sql(&add("work", 1, 100, "'s', 0.01"));
    wait_for_mark(&cluster);
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&at_once(false)), "3");
    assert_eq!(cluster.text("select count(distinct n) from account"), "100");
    cluster.sql("select kongtask.alter_task('work', concurrency := 0); truncate account");
    cluster.sql(&add("work", 1, 40, "'s', 0.05"));
    cluster.wait_for(JOBS, "0");
    assert_ne!(cluster.text(&at_once(false)), "3", "it is not limited any more");
}

#[test]
fn tasks_share_a_limit_and_a_job_needs_room_under_each() {
    let cluster = cluster(&[EIGHT]);
    cluster.sql(
        "select kongtask.register_task('other', 'work(json)', concurrency := 2),
                kongtask.set_limit('both', '{work,other}', concurrency := 3)",
    );
    cluster.sql(&add("other", 1, 40, "'s', 0.01, 'key', 'other'"));
    cluster.sql(&add("work", 41, 80, "'s', 0.01, 'key', 'work'"));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&at_once(false)), "3");
    assert_eq!(cluster.text(&at_once(false).replace("from account", "from account where key = 'other'")), "2");
    assert_eq!(cluster.text("select count(distinct n) from account"), "80");
}

#[test]
fn jobs_of_every_kind_are_limited() {
    let cluster = cluster(&[EIGHT, "kongtask.synchronous_commit = off"]);
    cluster.sql(
        "create procedure steps(p json) language plpgsql as $$ begin
           perform public.work(p); commit; end $$;
         select kongtask.register_task('plain', 'work(json)'), kongtask.register_task('claimed', 'work(json)', in_place := false),
                kongtask.register_task('batch', 'work(json)', max_batch := 5),
                kongtask.register_task('steps', 'steps(json)'),
                kongtask.register_task('set', 'work_all(json[])', max_batch := 5),
                kongtask.set_limit('all', concurrency := 2)",
    );
    for task in ["plain", "claimed", "batch", "set", "steps"] {
        let plain = if task == "set" { 40 } else { 10 };
        cluster.sql(&add(task, 1, plain, "'s', 0.002"));
        cluster.sql(&format!(
            "select graphile_worker.add_job('{task}', '{{\"s\": 0.002}}', job_key := '{task}' || n) from generate_series(1, 5) n"
        ));
        cluster.sql(&format!(
            "select graphile_worker.add_job('{task}', '{{\"s\": 0.002}}', queue_name := 'q' || n % 4) from generate_series(1, 8) n"
        ));
    }
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select sum(jobs) from account"), "145");
    assert_eq!(cluster.text(&at_once(false)), "2");
    // All room is free: the first set takes as many.
    cluster.sql("truncate account");
    cluster.sql(&add("set", 1, 40, "'s', 0.002"));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&at_once(false)), "2");
    assert_eq!(cluster.text("select max(jobs) || ' ' || sum(jobs) from account"), "2 40");
}

/// Two jobs of a concurrency of 1: the first runs, and waits for its gate.
fn one_runs_and_one_waits(settings: &[&str]) -> (Cluster, i32) {
    let cluster = cluster(&[&["kongtask.workers = 3"], settings].concat());
    cluster.sql("select kongtask.set_limit('one', '{work}', concurrency := 1)");
    add_gated(&cluster, 1, 2, "'s', 0");
    cluster.wait_for(RUNNING, "1");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "1");
    let pid = cluster.text("select pid from kongtask.workers where state = 'running'").parse().expect("a pid");
    (cluster, pid)
}

const OTHER_RUNS: &str = "select count(*) from kongtask.workers where state = 'running' and pid <> ";

#[test]
fn room_is_back_at_once_after_a_terminated_worker_and_a_failed_or_cancelled_job() {
    let (cluster, pid) = one_runs_and_one_waits(&[]);
    cluster.sql(&format!("select pg_terminate_backend({pid})"));
    cluster.wait_for(&format!("{OTHER_RUNS}{pid}"), "1");
    let running = || cluster.text("select job_id from kongtask.workers where state = 'running'");
    // Either of both may be the one that runs now.
    let job = running();
    assert_eq!(cluster.text(&format!("select kongtask.cancel({job})")), "stopping");
    assert!(wait_until(SOON, || cluster.text(RUNNING) == "1" && running() != job), "the other did not begin");
    cluster.sql("delete from gate");
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts < max_attempts", "0");
    // One that fails gives back its room, too.
    cluster.sql("create function fail(p json) returns void language plpgsql as $$ begin raise 'no'; end $$");
    cluster.sql("select kongtask.register_task('fail', 'fail(json)'), kongtask.set_limit('one', '{work,fail}', concurrency := 1)");
    cluster.sql("select graphile_worker.add_job('fail', max_attempts := 1) from generate_series(1, 5)");
    cluster.sql(&add("work", 3, 3, "'s', 0"));
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts < max_attempts", "0");
    assert_eq!(cluster.text("select count(*) from account where n = 3"), "1");
}

#[test]
fn room_is_back_after_a_crash() {
    let (cluster, pid) = one_runs_and_one_waits(&["restart_after_crash = on"]);
    cluster.kill_9(pid);
    assert!(wait_until(SOON, || cluster.try_connect_as("postgres", "postgres").is_ok()));
    assert!(wait_until(SOON, || {
        let Ok(mut db) = cluster.try_connect_as("postgres", "postgres") else { return false };
        db.query_one(RUNNING, &[]).is_ok_and(|row| row.get::<_, i64>(0) == 1)
    }));
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&at_once(false)), "1");
}

#[test]
fn lowering_lets_running_jobs_end_and_raising_starts_others_at_once() {
    let cluster = cluster(&[EIGHT]);
    cluster.sql("select kongtask.set_limit('some', '{work}', concurrency := 4)");
    add_gated(&cluster, 1, 20, "'s', 0");
    cluster.wait_for(RUNNING, "4");
    cluster.sql("select kongtask.set_limit('some', '{work}', concurrency := 2)");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "4");
    let end_one = |left: &str| {
        let ended = cluster.text("select count(*) from account");
        let job = cluster.text("select job_id from kongtask.workers where state = 'running' order by 1 limit 1");
        cluster.sql(&format!(
            "delete from gate where n = (select (payload ->> 'n')::int from graphile_worker.jobs where id = {job})"
        ));
        cluster.wait_for(&format!("select count(*) > {ended} from account"), "t");
        wait_for_mark(&cluster);
        cluster.wait_for(RUNNING, left);
    };
    end_one("3");
    end_one("2");
    end_one("2");
    cluster.sql("select kongtask.set_limit('some', '{work}', concurrency := 6)");
    cluster.wait_for(RUNNING, "6");
    cluster.sql("begin; select kongtask.set_limit('some', '{work}', concurrency := 1); rollback");
    end_one("6");
    cluster.sql("select kongtask.drop_limit('some')");
    cluster.wait_for(RUNNING, "8");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(distinct n) from account"), "20");
}

#[test]
fn jobs_that_run_already_are_counted_under_a_new_limit() {
    let cluster = cluster(&[EIGHT]);
    add_gated(&cluster, 1, 3, "'s', 0, 'key', 'a'");
    cluster.wait_for(RUNNING, "3");
    cluster.sql("select kongtask.set_limit('three', '{work}', concurrency := 3), kongtask.set_limit('each', '{work}', 'key', 3)");
    add_gated(&cluster, 4, 5, "'s', 0, 'key', 'b'");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "3");
    cluster.sql("delete from gate where n = 1");
    cluster.wait_for("select count(*) from account", "1");
    cluster.wait_for(RUNNING, "3");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "3");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&at_once(false)), "3");
}

#[test]
fn a_limit_that_is_set_while_a_job_is_taken_is_kept() {
    let cluster = Cluster::with_faults(&["kongtask.poll_interval = '1h'", "kongtask.workers = 2"]);
    prepare(&cluster);
    add_gated(&cluster, 1, 1, "'s', 0");
    cluster.wait_for(RUNNING, "1");
    cluster.arm("taken", "stop");
    add_gated(&cluster, 2, 2, "'s', 0");
    let mut db = cluster.connect();
    let pid = stopped(&cluster, &mut db);
    db.batch_execute("select kongtask.set_limit('one', '{work}', concurrency := 1)").expect("a limit");
    go_on(pid);
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(RUNNING), "1");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text(&at_once(false)), "1");
}

/// The worker that found no room for it still holds it then, as if it ran it.
#[test]
fn a_job_that_has_just_found_no_room_is_found_by_who_gives_some_back() {
    let cluster = Cluster::with_faults(&["kongtask.poll_interval = '1h'", "kongtask.workers = 2"]);
    prepare(&cluster);
    cluster.sql("select kongtask.alter_task('work', concurrency := 1)");
    add_gated(&cluster, 1, 1, "'s', 0");
    cluster.wait_for(RUNNING, "1");
    cluster.arm("no_room", "stop");
    let mut db = cluster.connect();
    cluster.sql(&add("work", 2, 2, "'s', 0"));
    let pid = stopped(&cluster, &mut db);
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
    go_on(pid);
}

#[test]
fn workers_that_come_and_go_keep_to_the_limit_and_leave_no_job_behind() {
    let cluster = cluster(&[EIGHT, "kongtask.worker_idle_timeout = '20ms'"]);
    cluster.sql("select kongtask.register_task('work', 'work(json)', concurrency := 2)");
    for _ in 0..5 {
        cluster.sql(&add("work", 1, 20, "'s', 0.005"));
        cluster.wait_for("select count(*) from kongtask.workers", "0");
    }
    assert_eq!(cluster.text(JOBS), "0");
    assert_eq!(cluster.text(&at_once(false)), "2");
}

/// The first worker that finds no room searches the table without the task, while the others work off what was found
/// before.
#[test]
fn a_backlog_is_worked_off_though_a_search_left_it_out() {
    let cluster = cluster(&["kongtask.workers = 4", "kongtask.worker_idle_timeout = '1s'", "synchronous_commit = off"]);
    cluster.sql(
        "create function count_it() returns void language sql as 'select';
         select kongtask.register_task('work', 'count_it()', concurrency := 3), kongtask.pause();
         select count(graphile_worker.add_job('work')) from generate_series(1, 20000)",
    );
    cluster.sql("select kongtask.resume()");
    cluster.wait_for(JOBS, "0");
}

#[test]
fn a_backlog_that_waits_is_passed_by_other_jobs() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql("select kongtask.register_task('work', 'work(json)', concurrency := 1)");
    add_gated(&cluster, 1, 1, "'s', 0");
    cluster.wait_for(RUNNING, "1");
    cluster.sql(&add("work", 2, 15_000, "'s', 0"));
    for _ in 0..3 {
        wait_for_mark(&cluster);
    }
    assert_eq!(cluster.text(JOBS), "15000");
    cluster.sql("delete from gate");
    cluster.wait_for("select count(*) > 100 from account", "t");
    cluster.sql("select kongtask.alter_task('work', concurrency := 0)");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(distinct n) from account"), "15000");
}
