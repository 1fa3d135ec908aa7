//! `kongtask.job_states`, `queues` and `overview`.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{Cluster, SOON, error, rows, text, wait_until};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// What the overview says of them.
const OVERVIEW: &str = "select ready, waiting, running, scheduled, retrying, failed from kongtask.overview";

#[test]
fn each_job_is_in_one_state_and_says_why_it_does_not_run() {
    let cluster = with_note_and_nap(&["kongtask.workers = 1", "kongtask.forbidden_flags = 'slow'"]);
    cluster.sql(
        "create function fails() returns void language plpgsql as $$ begin raise 'no'; end $$;
         select kongtask.register_task('fails', 'fails()'),
                kongtask.register_task('naps', 'nap(json)', in_place := false);
         select graphile_worker.add_job('fails', max_attempts := 1), graphile_worker.add_job('fails')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts > 0", "2");
    cluster.sql(
        "select graphile_worker.add_job('nap', '60', 'q', priority := -1);
         select graphile_worker.add_job('nap', '60', 'q');
         select graphile_worker.add_job('note', run_at := '2100-01-01');
         select graphile_worker.add_job('nobody');
         select graphile_worker.add_job('note', flags := '{slow}');
         select graphile_worker.add_job('note')",
    );
    let states = "select string_agg(concat_ws(' ', task_identifier, queue_name, state, regexp_replace(why, '2[0-9-]+ [0-9:.+]+', 'T')), '; ' order by id)
                  from kongtask.job_states";
    let expected = "fails failed failed for good after 1 attempts; fails retrying attempt 1 of 25 failed; not due before T; \
                    nap q running; nap q waiting its queue is busy: it runs job 3; note scheduled not due before T; \
                    nobody waiting no task of that name is registered here; note waiting flag \"slow\" is forbidden; note ready";
    // The second try of `fails` comes in less than three seconds.
    cluster.sql("update graphile_worker.jobs set run_at = '2099-01-01' where id = 2");
    cluster.wait_for(states, expected);
    assert_eq!(rows(&mut cluster.connect(), OVERVIEW), ["1|3|1|1|1|1"]);
    assert_eq!(
        rows(
            &mut cluster.connect(),
            "select queue_name, jobs, ready, failed, head, running, pid is not null, since <= now(), oldest_wait > '0' from kongtask.queues"
        ),
        ["q|2|1|0|4|3|t|t|t"]
    );
    assert_eq!(
        text(&mut cluster.connect(), "select workers_busy || ' of ' || workers from kongtask.overview"),
        "1 of 1"
    );
}

#[test]
fn jobs_that_run_in_place_are_running() {
    let cluster = with_note_and_nap(&["kongtask.workers = 2"]);
    cluster.sql(
        "create function naps(p json[]) returns void language sql as $$ select pg_sleep(60) $$;
         select kongtask.register_task('naps', 'naps(json[])'), kongtask.register_task('batch', 'nap(json)', max_batch := 10);
         select graphile_worker.add_job('nap', '60'), graphile_worker.add_job('note', run_at := '2100-01-01')",
    );
    let running =
        "select string_agg(task_identifier, ',' order by id) from kongtask.job_states where state = 'running'";
    cluster.wait_for(running, "nap");
    cluster.sql("select count(graphile_worker.add_job('naps')) from generate_series(1, 4)");
    // A worker leaves the other one its share.
    cluster
        .wait_for("select count(*) from kongtask.job_states where state = 'running' and task_identifier = 'naps'", "2");
    assert_eq!(cluster.text("select sum(running) from kongtask.stat_tasks"), "3");
    // A row that another session has locked is not running.
    let mut other = cluster.connect();
    other
        .batch_execute("begin; select from graphile_worker.jobs where task_identifier = 'note' for update")
        .expect("a lock");
    assert_eq!(cluster.text("select state from kongtask.job_states where task_identifier = 'note'"), "scheduled");
    assert_eq!(rows(&mut cluster.connect(), OVERVIEW), ["2|0|3|1|0|0"]);
}

#[test]
fn states_say_what_keeps_all_jobs_from_running() {
    let cluster = with_note_and_nap(&["kongtask.workers = 0"]);
    cluster.sql("select graphile_worker.add_job('note')");
    let why = "select state || ': ' || why from kongtask.job_states";
    cluster.wait_for(why, "waiting: no worker: kongtask.workers is 0");
    cluster.reload(&["kongtask.workers = 1", "kongtask.databases = ''"]);
    cluster.wait_for(why, "waiting: no worker: kongtask.databases does not list this database");
    cluster.reload(&["kongtask.databases = '*'"]);
    cluster.wait_for("select count(*) from done", "1");
    cluster.sql(
        "create role alice login; create schema app authorization alice; set role alice;
         create function app.nop() returns void language sql as '';
         reset role; grant usage on schema kongtask to alice; grant execute on all functions in schema kongtask to alice;
         set role alice; select kongtask.register_task('hers', 'app.nop()'); reset role;
         revoke connect on database postgres from public; select graphile_worker.add_job('hers')",
    );
    cluster.wait_for(why, "waiting: role \"alice\" may not connect to this database");
    cluster.sql("grant connect on database postgres to public; alter role alice nologin; select graphile_worker.add_job('hers', run_at := '2100-01-01')");
    if cluster.version() < 17 {
        cluster.sql("select graphile_worker.add_job('hers')");
        cluster.wait_for(
            "select distinct why from kongtask.job_states where state = 'waiting'",
            "role \"alice\" cannot log in",
        );
    }
    cluster.sql("drop owned by alice; drop role alice; select graphile_worker.add_job('hers')");
    cluster
        .wait_for("select distinct why from kongtask.job_states where state = 'waiting'", "its role has been dropped");
    cluster.sql("update kongtask.tasks set role = 'carol'");
    cluster
        .wait_for("select distinct why from kongtask.job_states where state = 'waiting'", "role carol does not exist");
}

#[test]
fn the_states_of_all_jobs_add_up_under_load() {
    let cluster = with_note_and_nap(&["log_min_messages = warning"]);
    cluster.sql(
        "create function act(p json) returns void language plpgsql as $$ begin
           perform pg_sleep(0.001); if (p #>> '{}')::int % 5 = 0 then raise 'no'; end if; end $$;
         create function act_on_all(p json[]) returns void language plpgsql as $$ begin perform act(x) from unnest(p) x; end $$;
         select kongtask.register_task('plain', 'act(json)'), kongtask.register_task('batch', 'act(json)', max_batch := 10),
                kongtask.register_task('claimed', 'act(json)', in_place := false), kongtask.register_task('set', 'act_on_all(json[])', max_batch := 20)",
    );
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut db = cluster.connect();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                db.batch_execute(
                    "select graphile_worker.add_job(t, to_json(n), case when n % 3 = 0 then 'q' || n % 7 end, run_at := now() + n % 2 * interval '1 s')
                     from generate_series(1, 20) n, unnest('{plain,batch,claimed,set}'::text[]) t",
                )
                .expect("jobs");
            }
            over.store(true, SeqCst);
        });
        let mut db = cluster.connect();
        let mut most = 0;
        while !over.load(SeqCst) {
            // One statement, one snapshot.
            let sums = rows(
                &mut db,
                "select (select count(*) from graphile_worker.jobs) = (select count(*) from kongtask.job_states),
                   (select count(*) from graphile_worker.jobs) = ready + waiting + running + scheduled + retrying + failed,
                   (select count(*) from kongtask.job_states where state = 'failed') = failed,
                   running from kongtask.overview",
            );
            let (sums, running) = sums[0].rsplit_once('|').expect("columns");
            assert_eq!(sums, "t|t|t");
            most = most.max(running.parse::<i64>().expect("a number"));
        }
        assert!((1..=4 * 20).contains(&most), "{most} ran at once");
    });
}

#[test]
fn the_overview_of_many_jobs_is_quick() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 0"]);
    cluster.sql(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, run_at) select 'task_' || n % 5, now() + (n % 2) * interval '1 h' from generate_series(1, 200000) n",
    );
    cluster.sql("vacuum analyze graphile_worker.jobs");
    assert_eq!(rows(&mut cluster.connect(), OVERVIEW), ["0|100000|0|100000|0|0"]);
    let mut db = cluster.connect();
    let quick = wait_until(SOON, || {
        let begun = Instant::now();
        text(&mut db, OVERVIEW);
        // A fifth of the million, and room for a busy machine.
        begun.elapsed() < Duration::from_millis(100)
    });
    assert!(quick);
}

#[test]
fn states_are_seen_by_those_who_may_read_jobs() {
    let cluster = with_note_and_nap(&["kongtask.workers = 0"]);
    cluster.sql(
        "create role reader login; grant usage on schema kongtask, graphile_worker to reader;
         grant execute on all functions in schema kongtask to reader;
         grant select on kongtask.job_states, kongtask.overview, kongtask.queues to reader;
         select graphile_worker.add_job('note', queue_name := 'q')",
    );
    let mut reader = cluster.connect_as("reader", "postgres");
    for view in ["job_states", "overview", "queues"] {
        assert_eq!(error(&mut reader, &format!("select * from kongtask.{view}")).0, "42501", "{view}");
    }
    // Row level security hides the rows.
    cluster.sql("grant select on graphile_worker.jobs, graphile_worker.job_queues to reader");
    assert_eq!(text(&mut reader, "select count(*) from kongtask.job_states"), "0");
    assert_eq!(text(&mut reader, "select count(*) from kongtask.queues"), "0");
    assert_eq!(
        error(&mut reader, "select * from kongtask.overview"),
        ("42501".into(), "permission denied for table jobs".into())
    );
    cluster.sql("grant execute on function graphile_worker.get_job to reader");
    assert_eq!(text(&mut reader, "select count(*) from kongtask.job_states"), "1");
    assert_eq!(text(&mut reader, "select waiting from kongtask.overview"), "1");
    assert_eq!(text(&mut reader, "select jobs from kongtask.queues"), "1");
}

#[test]
fn paused_jobs_wait_and_say_until_when_and_why() {
    let cluster = with_note_and_nap(&["kongtask.workers = 1"]);
    cluster.sql(
        "select kongtask.pause('note', reason := 'the mail server is down');
         select kongtask.pause(queue_name := 'q', until := '2100-01-01 00:00+00');
         select graphile_worker.add_job('note');
         select graphile_worker.add_job('nap', '0', 'q');
         select graphile_worker.add_job('note', queue_name := 'q')",
    );
    let states = "select string_agg(concat_ws(' ', id, state, why), '; ' order by id) from kongtask.job_states";
    cluster.wait_for(
        &format!("set timezone = 'UTC'; {states}"),
        "1 waiting paused: the mail server is down; 2 waiting paused until 2100-01-01 00:00:00+00; \
         3 waiting paused: the mail server is down",
    );
    assert_eq!(rows(&mut cluster.connect(), OVERVIEW), ["0|3|0|0|0|0"]);
    cluster.sql("select kongtask.resume('note'), kongtask.resume(queue_name := 'q')");
    cluster.wait_for("select count(*) from kongtask.job_states", "0");
}
