//! Cancelling jobs: those that wait and those that run, however they run, and what comes between.

use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::without_polling;
use kongtask_tests::{Cluster, IDLE, JOBS, RUNNING, error, rows, text};
use postgres::Client;

/// Handlers that note what they were given, and then sleep as long as a row of `sleepers` has that name.
const SLEEPERS: &str = "
    create table did (what text); create table sleepers (what text primary key); create sequence calls;
    create function rest(what text) returns void language plpgsql as $$ begin
      perform nextval('public.calls');
      for i in 1..6000 loop
        exit when not exists (select from public.sleepers s where s.what = rest.what);
        perform pg_sleep(0.01);
      end loop; end $$;
    create function does(p json) returns void language plpgsql as $$ begin
      insert into public.did values (p #>> '{}'); perform public.rest(p #>> '{}'); end $$;
    create function does_all(p json[]) returns void language plpgsql as $$ begin
      insert into public.did select x #>> '{}' from unnest(p) x; perform public.rest(x #>> '{}') from unnest(p) x; end $$;
    create function stubborn(p json) returns void language plpgsql as $$ begin
      insert into public.did values (p #>> '{}');
      begin perform public.rest(p #>> '{}'); exception when query_canceled then null; end; end $$;
    create function gives_out(p json) returns void language plpgsql as $$ begin
      perform public.does(p); raise 'gave out'; end $$;
    select kongtask.register_task('alone', 'does(json)'), kongtask.register_task('claimed', 'does(json)', in_place := false),
           kongtask.register_task('batch', 'does(json)', max_batch := 50),
           kongtask.register_task('claimed_batch', 'does(json)', max_batch := 50, in_place := false),
           kongtask.register_task('set', 'does_all(json[])'),
           kongtask.register_task('claimed_set', 'does_all(json[])', in_place := false),
           kongtask.register_task('stubborn', 'stubborn(json)'), kongtask.register_task('gives_out', 'gives_out(json)')";

fn with_sleepers(settings: &[&str]) -> Cluster {
    let cluster = without_polling(settings);
    cluster.sql(SLEEPERS);
    cluster
}

fn add(cluster: &Cluster, task: &str, what: &str, more: &str) -> String {
    cluster.text(&format!("select id from graphile_worker.add_job('{task}', to_json('{what}'::text){more})"))
}

/// Waits until the handler of a job sleeps, having done something.
fn wait_for_call(cluster: &Cluster, job: &str) {
    cluster.wait_for(&format!("select count(*) from kongtask.workers where job_id = {job} and state = 'running'"), "1");
    cluster.wait_for("select count(*) > 0 from pg_stat_activity where wait_event = 'PgSleep'", "t");
}

/// What became of a job.
fn state(job: &str) -> String {
    format!(
        "select format('%s/%s %s %s', attempts, max_attempts, locked_by, last_error) from graphile_worker.jobs where id = {job}"
    )
}

const CANCELLED: &str = "25/25  cancelled by postgres: not wanted";

#[test]
fn a_job_that_waits_is_failed_for_good_by_the_transaction_that_cancels_it() {
    let cluster = with_sleepers(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql("insert into sleepers values ('first')");
    let first = add(&cluster, "alone", "first", "");
    wait_for_call(&cluster, &first);
    // The only worker is busy: whatever is added waits.
    for more in ["", ", job_key := 'k'", ", queue_name := 'q'", ", run_at := now() + interval '1 hour'"] {
        let job = add(&cluster, "alone", "waits", more);
        let cancel = format!("select kongtask.cancel({job}, 'not wanted')");
        db.batch_execute("begin").expect("begin");
        assert_eq!(text(&mut db, &cancel), "cancelled");
        assert_eq!(text(&mut db, &state(&job)), CANCELLED);
        db.batch_execute("rollback").expect("rollback");
        assert_eq!(text(&mut db, &state(&job)), "0/25  ", "{more}");
        assert_eq!(text(&mut db, &cancel), "cancelled");
        assert_eq!(text(&mut db, &state(&job)), CANCELLED);
        assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'again')")), "gone");
        assert_eq!(text(&mut db, &state(&job)), CANCELLED);
    }
    let retried = add(&cluster, "alone", "waits", "");
    cluster.sql(&format!(
        "update graphile_worker.jobs set attempts = 3, last_error = 'e', run_at = now() + interval '1 hour' where id = {retried}"
    ));
    assert_eq!(text(&mut db, &format!("select kongtask.cancel({retried})")), "cancelled");
    assert_eq!(text(&mut db, &state(&retried)), "25/25  cancelled by postgres");
    // One that is added and cancelled at once never runs, and what is behind it in its queue does.
    cluster.sql("select kongtask.cancel((graphile_worker.add_job('alone', '\"never\"', queue_name := 'q')).id)");
    add(&cluster, "alone", "next", ", queue_name := 'q'");
    assert_eq!(text(&mut db, "select kongtask.cancel(-1)"), "gone");
    assert_eq!(error(&mut db, "select kongtask.cancel(null)"), ("22004".into(), "job_id must not be null".into()));
    cluster.sql("delete from sleepers");
    cluster.wait_for("select string_agg(what, ' ') from did", "first next");
    assert_eq!(text(&mut db, &format!("select kongtask.cancel({first})")), "gone");
    cluster.wait_for(IDLE, "1");
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.jobs where attempts < max_attempts"), "0");
}

#[test]
fn a_job_that_runs_is_stopped_without_a_trace_and_those_beside_it_run_again() {
    let cluster = with_sleepers(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.wait_for(IDLE, "1");
    let worker = text(&mut db, "select pid from kongtask.workers");
    for task in ["alone", "claimed", "stubborn", "gives_out"] {
        for more in ["", ", job_key := 'k'", ", queue_name := 'q'"] {
            cluster.sql("insert into sleepers values ('victim')");
            let victim = add(&cluster, task, "victim", more);
            let next = add(&cluster, "alone", "next", if more.contains("queue") { more } else { "" });
            wait_for_call(&cluster, &victim);
            assert_eq!(text(&mut db, &format!("select kongtask.cancel({victim}, 'not wanted')")), "stopping");
            cluster.wait_for(&state(&victim), CANCELLED);
            cluster.wait_for(&state(&next), "");
            assert_eq!(rows(&mut db, "select what from did"), ["next"], "{task}{more}");
            cluster.wait_for_log(&format!("job {victim} ({task}) cancelled by postgres: not wanted"));
            // Given further attempts, it runs.
            cluster.sql("delete from sleepers");
            if task != "gives_out" {
                cluster.sql(&format!(
                    "select graphile_worker.reschedule_jobs('{{{victim}}}', run_at := now(), attempts := 0)"
                ));
                cluster.wait_for(&state(&victim), "");
                assert_eq!(rows(&mut db, "select what from did"), ["next", "victim"], "{task}{more}");
            }
            cluster.sql("truncate did; delete from graphile_worker.jobs");
        }
    }
    for task in ["batch", "claimed_batch", "set", "claimed_set"] {
        for victim in ["a", "d", "g"] {
            cluster.sql(&format!("insert into sleepers values ('{victim}')"));
            let names = "unnest(array['a', 'b', 'c', 'd', 'e', 'f', 'g']) n";
            cluster.sql(&format!("select count(graphile_worker.add_job('{task}', to_json(n))) from {names}"));
            let job =
                text(&mut db, &format!("select id from graphile_worker.jobs where payload #>> '{{}}' = '{victim}'"));
            cluster.wait_for("select count(*) > 0 from pg_stat_activity where wait_event = 'PgSleep'", "t");
            assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "stopping");
            cluster.wait_for(JOBS, "1");
            assert_eq!(text(&mut db, &state(&job)), CANCELLED);
            let others = "select string_agg(what, '' order by what) from did";
            assert_eq!(text(&mut db, others), "abcdefg".replace(victim, ""), "{task}");
            cluster.sql("truncate did, sleepers; delete from graphile_worker.jobs");
        }
    }
    // One that has not begun yet is not called.
    for task in ["batch", "claimed_batch", "set"] {
        cluster.sql("insert into sleepers values ('a'); select setval('calls', 1)");
        cluster.sql(&format!(
            "select count(graphile_worker.add_job('{task}', to_json(n))) from unnest(array['a', 'b']) n"
        ));
        let job = text(&mut db, "select id from graphile_worker.jobs where payload #>> '{}' = 'b'");
        cluster.wait_for("select count(*) > 0 from pg_stat_activity where wait_event = 'PgSleep'", "t");
        cluster.sql(&format!("select kongtask.cancel({job}, 'not wanted')"));
        cluster.sql("delete from sleepers");
        cluster.wait_for(&state(&job), CANCELLED);
        cluster.wait_for("select string_agg(what, '') from did", "a");
        cluster.wait_for(JOBS, "1");
        cluster.sql("truncate did; delete from graphile_worker.jobs");
    }
    assert_eq!(text(&mut db, "select pid from kongtask.workers"), worker, "{}", cluster.log());
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_cancel_of_a_running_job_waits_for_the_commit_and_goes_with_a_rollback() {
    let cluster = with_sleepers(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    cluster.sql("insert into sleepers values ('a')");
    let job = add(&cluster, "alone", "a", "");
    wait_for_call(&cluster, &job);
    let cancel = format!("select kongtask.cancel({job}, 'not wanted')");
    let stopping = |db: &mut Client| assert_eq!(text(db, &cancel), "stopping");
    db.batch_execute("begin").expect("begin");
    stopping(&mut db);
    db.batch_execute("rollback").expect("rollback");
    db.batch_execute("begin; savepoint s; savepoint t").expect("savepoints");
    stopping(&mut db);
    db.batch_execute("release t; rollback to s; commit").expect("a commit");
    let calls = text(&mut db, "select last_value from calls");
    cluster.sql("delete from sleepers");
    cluster.wait_for(JOBS, "0");
    assert_eq!(rows(&mut db, "select what from did"), ["a"]);
    assert_eq!(text(&mut db, "select last_value from calls"), calls);
    // Twice, and many more than can be kept at once.
    cluster.sql("insert into sleepers values ('b')");
    let job = add(&cluster, "alone", "b", "");
    wait_for_call(&cluster, &job);
    db.batch_execute("begin; savepoint s").expect("a savepoint");
    let cancel = format!("select kongtask.cancel({job}, 'not wanted')");
    for _ in 0..300 {
        db.batch_execute(&format!("{cancel}; rollback to s")).expect("a cancel");
    }
    db.batch_execute(&format!("{cancel}; {cancel}; commit")).expect("a commit");
    cluster.wait_for(&state(&job), CANCELLED);
}

#[test]
fn a_job_is_cancelled_whatever_becomes_of_it_before_the_commit() {
    let cluster = with_sleepers(&["kongtask.workers = 2"]);
    let mut db = cluster.connect();
    // Its worker dies, and another takes it.
    for task in ["alone", "claimed"] {
        cluster.sql("insert into sleepers values ('a')");
        let job = add(&cluster, task, "a", "");
        wait_for_call(&cluster, &job);
        let pid = format!("select pid from kongtask.workers where job_id = {job}");
        let first = cluster.text(&pid);
        db.batch_execute("begin").expect("begin");
        assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "stopping");
        cluster.sql(&format!("select pg_terminate_backend({first})"));
        cluster.wait_for(&format!("select count(*) from ({pid}) w where pid <> {first}"), "1");
        wait_for_call(&cluster, &job);
        db.batch_execute("commit").expect("commit");
        cluster.wait_for(&state(&job), CANCELLED);
        cluster.sql("delete from sleepers; delete from graphile_worker.jobs");
    }
    // It fails by itself, and waits for its retry: then nobody runs it, and the scheduler does it.
    cluster.sql("insert into sleepers values ('b')");
    let job = add(&cluster, "gives_out", "b", "");
    wait_for_call(&cluster, &job);
    db.batch_execute("begin").expect("begin");
    assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "stopping");
    cluster.sql("delete from sleepers");
    cluster.wait_for(&format!("select attempts from graphile_worker.jobs where id = {job} and locked_at is null"), "1");
    db.batch_execute("commit").expect("commit");
    cluster.wait_for(&state(&job), CANCELLED);
    cluster.wait_for_log(&format!("job {job} (gives_out) cancelled by postgres: not wanted"));
    // A row that another session has locked, of a job that no worker has: when it is unlocked.
    let job = add(&cluster, "alone", "c", ", run_at := now() + interval '1 hour'");
    let mut other = cluster.connect();
    other
        .batch_execute(&format!("begin; select from graphile_worker.jobs where id = {job} for update"))
        .expect("a lock");
    assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "stopping");
    other.batch_execute("commit").expect("commit");
    cluster.wait_for(&state(&job), CANCELLED);
    assert_eq!(rows(&mut db, "select what from did"), Vec::<String>::new());
}

#[test]
fn a_cancel_hits_no_other_job_and_is_not_lost_between_two_steps() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(SLEEPERS);
    let mut db = cluster.connect();
    let cancel_in_thread = |job: &str| {
        let mut session = cluster.connect();
        let cancel = format!("select kongtask.cancel({job}, 'not wanted')");
        std::thread::spawn(move || text(&mut session, &cancel))
    };
    // The job ends, and the next begins, before the session has asked, and before it has signalled.
    for point in ["cancel_committed", "cancel_asked"] {
        cluster.sql("truncate did; insert into sleepers values ('a'), ('b')");
        let job = add(&cluster, "alone", "a", "");
        let next = add(&cluster, "alone", "b", "");
        wait_for_call(&cluster, &job);
        cluster.arm(point, "stop");
        let session = cancel_in_thread(&job);
        let pid = stopped(&cluster, &mut db);
        if point == "cancel_asked" {
            // It sees the request before it commits, signal or none.
            cluster.sql("delete from sleepers where what = 'a'");
            cluster.wait_for(&state(&job), CANCELLED);
        } else {
            cluster.sql("delete from sleepers where what = 'a'");
            cluster.wait_for(&state(&job), "");
        }
        wait_for_call(&cluster, &next);
        go_on(pid);
        assert_eq!(session.join().expect("a session"), "stopping");
        cluster.sql("delete from sleepers");
        cluster.wait_for(&state(&next), "");
        let expected: &[&str] = if point == "cancel_asked" { &["b"] } else { &["a", "b"] };
        assert_eq!(rows(&mut db, "select what from did"), expected);
        cluster.sql("delete from graphile_worker.jobs");
    }
    // The handler has returned: before the worker's last look it is cancelled, after that it is done.
    for task in ["alone", "claimed"] {
        for (point, is_done) in [("returned", false), ("completed", true)] {
            cluster.sql("truncate did");
            cluster.wait_for(IDLE, "1");
            cluster.arm(point, "stop");
            let job = add(&cluster, task, "a", "");
            let pid = stopped(&cluster, &mut db);
            assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "stopping");
            go_on(pid);
            cluster.wait_for(&state(&job), if is_done { "" } else { CANCELLED });
            cluster.wait_for("select count(*) from did", if is_done { "1" } else { "0" });
            cluster.sql("delete from graphile_worker.jobs");
        }
    }
    // The worker ends when it has stopped the call and not yet said so.
    cluster.sql("truncate did");
    for task in ["alone", "claimed"] {
        for point in ["failing", "failed"] {
            cluster.sql("insert into sleepers values ('a')");
            let job = add(&cluster, task, "a", "");
            wait_for_call(&cluster, &job);
            let calls = text(&mut db, "select last_value from calls");
            cluster.arm(point, "exit");
            cluster.sql(&format!("select kongtask.cancel({job}, 'not wanted')"));
            cluster.wait_for(&state(&job), CANCELLED);
            assert!(!cluster.is_armed(point));
            assert_eq!(text(&mut db, "select last_value from calls"), calls, "{task} {point}");
            cluster.sql("delete from sleepers; delete from graphile_worker.jobs");
        }
    }
    assert_eq!(text(&mut db, "select count(*) from did"), "0");
    assert_eq!(text(&mut db, RUNNING), "0");
}

#[test]
fn only_the_role_of_the_task_and_the_owner_may_cancel() {
    let cluster = with_sleepers(&["kongtask.workers = 2"]);
    cluster.sql(
        "create role alice login; create role bob login; create role carol login; grant alice to carol;
         grant usage on schema kongtask, graphile_worker to alice, bob;
         grant execute on function kongtask.cancel, kongtask.register_task, graphile_worker.add_job to alice, bob;
         grant usage on sequence calls to alice; grant select on sleepers to alice; grant insert on did to alice;
         insert into sleepers values ('runs')",
    );
    let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|role| cluster.connect_as(role, "postgres"));
    text(&mut alice, "select kongtask.register_task('hers', 'does(json)')");
    let jobs = [
        (add(&cluster, "hers", "waits", ", run_at := now() + interval '1 hour'"), "cancelled", "alice"),
        (add(&cluster, "hers", "runs", ""), "stopping", "carol"),
    ];
    wait_for_call(&cluster, &jobs[1].0);
    for (job, expected, role) in &jobs {
        let denied = ("42501".to_owned(), format!("permission denied to cancel job {job}"));
        assert_eq!(error(&mut bob, &format!("select kongtask.cancel({job})")), denied);
        let of_role = if *role == "alice" { &mut alice } else { &mut carol };
        assert_eq!(&text(of_role, &format!("select kongtask.cancel({job}, 'mine')")), expected);
        cluster.wait_for(&state(job), &format!("25/25  cancelled by {role}: mine"));
    }
    // A task that is not registered is no role's.
    let job = add(&cluster, "elsewhere", "x", "");
    assert_eq!(
        error(&mut alice, &format!("select kongtask.cancel({job})")),
        ("42501".into(), format!("permission denied to cancel job {job}"))
    );
    assert_eq!(cluster.text(&format!("select kongtask.cancel({job})")), "cancelled");
}

#[test]
fn an_external_worker_s_job_loses_its_further_attempts() {
    let cluster = with_sleepers(&["kongtask.workers = 1"]);
    let mut db = cluster.connect();
    let job = add(&cluster, "elsewhere", "x", ", queue_name := 'q'");
    cluster.sql("select graphile_worker.get_job('an-external-worker')");
    assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "stopping");
    assert_eq!(text(&mut db, &state(&job)), "25/25 an-external-worker cancelled by postgres: not wanted");
    cluster.sql(&format!("select graphile_worker.fail_job('an-external-worker', {job}, 'e')"));
    assert_eq!(text(&mut db, &state(&job)), "25/25  e");
    let job = add(&cluster, "elsewhere", "y", ", queue_name := 'q'");
    cluster.sql("select graphile_worker.get_job('an-external-worker')");
    cluster.sql(&format!(
        "select kongtask.cancel({job}); select graphile_worker.complete_job('an-external-worker', {job})"
    ));
    assert_eq!(text(&mut db, &state(&job)), "");
    // One whose lock is dead waits, as far as anybody can tell.
    let job = add(&cluster, "elsewhere", "z", ", queue_name := 'q'");
    cluster.sql(
        "select graphile_worker.get_job('an-external-worker');
         update graphile_worker.jobs set locked_at = now() - interval '5 hours' where locked_by is not null",
    );
    assert_eq!(text(&mut db, &format!("select kongtask.cancel({job}, 'not wanted')")), "cancelled");
    assert_eq!(text(&mut db, &state(&job)), CANCELLED);
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues"), "0");
}
