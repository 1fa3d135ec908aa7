//! Statements that rewrite tables, replace handlers or take rights, while jobs run.

use crate::{Stops, load};
use kongtask_tests::every_kind::drains_once;
use kongtask_tests::fixtures::with_every_kind;
use kongtask_tests::{Cluster, IDLE, JOBS, LOCKED, SOON, describe, rows, text, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

/// Does something to a cluster under load, a few times; that each job ran once.
fn under_load(cluster: &Cluster, mut disturb: impl FnMut(&mut Client)) {
    let (stop, added) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| load(cluster, &stop, &added));
        let _stops = Stops(&stop);
        let mut db = cluster.connect();
        for round in 1..=5 {
            // Something has been added since, and runs.
            let some = added.load(SeqCst) + 200;
            assert!(wait_until(SOON, || added.load(SeqCst) > some), "round {round}\n{}", cluster.log());
            disturb(&mut db);
        }
    });
    drains_once(cluster, added.load(SeqCst));
    // A deadlock with one of those is an error, and nothing else comes of it.
    assert_eq!(cluster.log_lines(&["WARNING", "PANIC"]), Vec::<String>::new());
}

#[test]
fn statements_that_rewrite_the_tables_lose_and_repeat_nothing() {
    let cluster = with_every_kind(&[]);
    let mut statements = [
        "vacuum full graphile_worker.jobs",
        "vacuum full graphile_worker.job_queues",
        "reindex table graphile_worker.jobs",
        "reindex table concurrently graphile_worker.jobs",
        "cluster graphile_worker.jobs using jobs_pkey",
        "alter table graphile_worker.jobs set (fillfactor = 70)",
        "alter table graphile_worker.jobs add column more int; alter table graphile_worker.jobs drop column more",
        "alter table graphile_worker.jobs alter priority set statistics 10",
        "vacuum (full, freeze)",
        "analyze",
    ]
    .iter()
    .cycle();
    under_load(&cluster, |db| {
        for _ in 0..2 {
            let statement = statements.next().expect("a cycle");
            db.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
        }
    });
}

#[test]
fn handlers_can_be_replaced_and_rights_taken_while_they_run() {
    let cluster = with_every_kind(&[]);
    cluster.sql("update naps set seconds = 0.7");
    cluster.wait_for(IDLE, "4");
    let mut db = cluster.connect();
    let workers = rows(&mut db, "select pid from kongtask.workers order by 1");
    for (n, (take, sqlstate, give)) in [
        (
            "create or replace function rest(p json) returns void language plpgsql as $$ begin raise 'new'; end $$",
            "P0001",
            "create or replace function rest(p json) returns void language plpgsql as $$ begin
               insert into public.done (n) values ((p #>> '{}')::bigint); perform pg_sleep(seconds) from public.naps; end $$",
        ),
        (
            "revoke execute on function rest(json) from alice, public",
            "42501",
            "grant execute on function rest(json) to public",
        ),
        ("revoke insert on done from alice", "42501", "grant insert on done to alice"),
        ("revoke usage on schema public from public, alice", "42501", "grant usage on schema public to public, alice"),
        (
            "alter function rest(json) rename to rested",
            "42883",
            "alter function rested(json) rename to rest",
        ),
    ]
    .iter()
    .enumerate()
    {
        let (during, after) = (n * 2 + 1, n * 2 + 2);
        db.batch_execute(&format!("select graphile_worker.add_job('rest', '{during}')")).expect("add_job");
        // The handler itself, not only its worker.
        cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
        db.batch_execute(take).expect(take);
        // The one that runs ends as it began; the next meets what is there now.
        db.batch_execute(&format!("select graphile_worker.add_job('rest', '{after}')")).expect("add_job");
        cluster.wait_for("select count(*) from graphile_worker.jobs where last_error is not null", "1");
        let says = text(&mut db, "select last_error from graphile_worker.jobs where last_error is not null");
        assert!(says.contains(&format!("(SQLSTATE {sqlstate})")), "{take}: {says}");
        db.batch_execute(give).expect(give);
        drains_once(&cluster, after);
    }
    assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers);
}

#[test]
fn the_extension_can_be_dropped_and_created_again_under_load() {
    let cluster = Cluster::with_extension(&["kongtask.shutdown_timeout = '1s'"]);
    let tasks = "create or replace function note(p json) returns void language sql as
          $$ insert into public.done (n) values ((p #>> '{}')::bigint) $$;
        select kongtask.register_task('note', 'note(json)')";
    cluster.sql(&format!("create table done (n bigint); {tasks}"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut db = cluster.connect();
            while !stop.load(SeqCst) {
                // While it is away that fails.
                let _ = db.batch_execute("select graphile_worker.add_job('note', '0') from generate_series(1, 20)");
            }
        });
        let _stops = Stops(&stop);
        let mut db = cluster.connect();
        for round in 1..=6 {
            let (drop, create) = ("drop extension kongtask", "create extension kongtask");
            if round % 2 == 0 {
                db.batch_execute(&format!("begin; {drop}; {create}; commit")).expect("in one transaction");
            } else {
                db.batch_execute(drop).expect(drop);
                db.batch_execute(create).expect(create);
            }
            db.batch_execute(tasks).expect("register");
            db.batch_execute(&format!("select graphile_worker.add_job('note', '{round}')")).expect("add_job");
            let count = format!("select count(*) from done where n = {round}");
            assert!(wait_until(SOON, || text(&mut db, &count) == "1"), "round {round}\n{}", cluster.log());
        }
    });
    cluster.wait_for(JOBS, "0");
    cluster.wait_for(IDLE, "4");
    assert_eq!(cluster.text(LOCKED), "0");
    assert_eq!(cluster.log_lines(&["PANIC"]), Vec::<String>::new());
}

/// DROP EXTENSION would lock the sequence first, and the table then; who adds a job, the other way round.
#[test]
fn drop_extension_and_add_job_do_not_wait_for_each_other() {
    let cluster = with_every_kind(&[]);
    let mut db = cluster.connect();
    db.batch_execute("begin; lock table graphile_worker.jobs in row exclusive mode").expect("lock");
    thread::scope(|scope| {
        let dropping = scope.spawn(|| cluster.connect().batch_execute("drop extension kongtask cascade"));
        cluster.wait_for(
            "select count(*) from pg_stat_activity where query = 'drop extension kongtask cascade' and wait_event_type = 'Lock'",
            "1",
        );
        db.batch_execute("select graphile_worker.add_job('note', '1'); commit")
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
        dropping.join().expect("a thread").unwrap_or_else(|e| panic!("{}", describe(&e)));
    });
}
