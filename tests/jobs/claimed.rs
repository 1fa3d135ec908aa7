//! Claimed jobs: whose lock a job carries while it runs, and how long that is kept.

use kongtask_tests::fixtures::{with_note, without_polling};
use kongtask_tests::{JOBS, LOCKED, SOON, rows, text, wait_until};

#[test]
fn a_job_whose_lock_was_taken_commits_nothing() {
    let cluster = with_note(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function nap() returns void language sql as $$
           insert into done (what) values ('nap'); select pg_sleep(1) $$;
         select kongtask.register_task('nap', 'nap()', in_place := false);
         select graphile_worker.add_job('nap')",
    );
    cluster.wait_for(LOCKED, "1");
    cluster.sql("update graphile_worker.jobs set locked_by = 'somebody-else'");
    cluster.wait_for_log("WARNING:  job 1 (nap) lost its lock while it ran");
    assert_eq!(cluster.text("select count(*) from done"), "0");
    assert_eq!(cluster.text("select locked_by from graphile_worker.jobs"), "somebody-else");
}

#[test]
fn a_handler_longer_than_job_expiry_is_not_run_twice() {
    let cluster = with_note(&["kongtask.job_expiry = '1s'"]);
    cluster.sql(
        "create function nap() returns void language sql as $$
           insert into done (what) values ('nap'); select pg_sleep(4) $$;
         select kongtask.register_task('nap', 'nap()');
         select graphile_worker.add_job('nap', queue_name := 'q')",
    );
    cluster.wait_for(LOCKED, "2");
    let mut db = cluster.connect();
    let mut tries = 0;
    let finished = wait_until(SOON, || {
        tries += 1;
        let got = text(&mut db, "select id from graphile_worker.get_job('external-worker', job_expiry := '1 second')");
        assert_eq!(got, "", "stolen at try {tries}");
        text(&mut db, "select count(*) from graphile_worker.jobs") == "0"
    });
    assert!(finished && tries > 10, "{tries}");
    assert_eq!(text(&mut db, "select count(*) from done"), "1");
}

#[test]
fn the_transaction_that_completes_a_claimed_job_claims_the_next() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table claims (n int, attempts int, claimed xid, xid xid8 default pg_current_xact_id());
         create function keyed(p json) returns void language sql as $$
           insert into claims (n, attempts, claimed)
             select (p #>> '{}')::int, attempts, xmin from graphile_worker.jobs where id = (kongtask.current_job()).id $$;
         select kongtask.register_task('keyed', 'keyed(json)'),
           kongtask.register_task('apart', 'keyed(json)', in_place := false);
         select count(graphile_worker.add_job('keyed', to_json(n), job_key := 'k' || n)),
           count(graphile_worker.add_job('apart', to_json(-n))),
           count(graphile_worker.add_job('apart', to_json(100 + n), queue_name := 'q' || n % 3))
         from generate_series(1, 10) n",
    );
    cluster.wait_for(JOBS, "0");
    let mut db = cluster.connect();
    assert_eq!(
        text(&mut db, "select count(*) || ' ' || count(distinct xid) || ' ' || max(attempts) from claims"),
        "30 30 1"
    );
    // A reload, or a task that is registered, has a worker look around in between.
    let together = "select count(*) from claims a join claims b on a.claimed = b.xid::xid";
    let together: usize = text(&mut db, together).parse().expect("a number");
    assert!((25..30).contains(&together), "{together}");
    // In their order, whatever they are claimed with.
    assert_eq!(
        text(&mut db, "select string_agg(n::text, ',' order by xid) from claims"),
        (1..=10).map(|n| format!("{n},-{n},{}", 100 + n)).collect::<Vec<_>>().join(",")
    );
}

#[test]
fn a_job_that_was_claimed_by_a_transaction_that_fails_runs_at_once_all_the_same() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table late (n int unique deferrable initially deferred); insert into late values (3), (7);
         create function late(p json) returns void language plpgsql as $$ begin
           insert into late values ((p #>> '{}')::int);
           insert into done (n) values ((kongtask.current_job()).attempts); end $$;
         select kongtask.register_task('late', 'late(json)');
         select count(graphile_worker.add_job('late', to_json(n), job_key := 'k' || n)) from generate_series(1, 10) n",
    );
    cluster.wait_for("select count(*) || ' ' || max(n) from done", "8 1");
    cluster.wait_for(
        "select string_agg(payload || ' ' || attempts || (locked_by is null)::text, ',' order by id) from graphile_worker.jobs",
        "3 1true,7 1true",
    );
}

/// Such a claim bypasses the executor: the row, its index entries and what its triggers do must be as of an UPDATE.
#[test]
fn a_claimed_job_is_as_an_update_would_have_left_it() {
    let cluster = without_polling(&["kongtask.workers = 8"]);
    cluster.sql(
        "create function hold() returns void language sql as 'select pg_advisory_xact_lock_shared(1)';
         select kongtask.register_task('hold', 'hold()')",
    );
    let mut holder = cluster.connect();
    let add = "select graphile_worker.add_job('hold', job_key := 'k');
        select graphile_worker.add_job('hold', queue_name := 'q');
        select graphile_worker.add_job('hold', job_key := 'l', max_attempts := 1);
        select graphile_worker.add_job('hold', queue_name := 'r', max_attempts := 1, flags := '{a}');
        select graphile_worker.add_job('hold', job_key := 'm', payload := to_json(repeat('x', 100000)));
        insert into graphile_worker.jobs (task_identifier, attempts, run_at, created_at) values ('hold', 2, now(), now() - interval '1 s')";
    let look = "select key, queue_name, attempts, max_attempts, locked_at >= created_at, locked_by like 'kongtask:%',
        updated_at > created_at, length(payload::text), flags, revision, last_error, run_at <= locked_at
        from graphile_worker.jobs order by id";
    let mut seen = Vec::new();
    for with_trigger in [true, false] {
        if with_trigger {
            cluster.sql(
                "create table updates (n int);
                 create function mine() returns trigger language plpgsql as $$ begin
                   insert into updates values (1); return new; end $$;
                 create trigger mine before update on graphile_worker.jobs for each row execute function mine()",
            );
        }
        holder.batch_execute("select pg_advisory_lock(1)").expect("a lock");
        cluster.sql(add);
        cluster.wait_for("select count(*) from graphile_worker.jobs where locked_at is not null", "6");
        seen.push(rows(&mut holder, look));
        cluster.check_indexes();
        holder.batch_execute("select pg_advisory_unlock(1)").expect("no lock");
        cluster.wait_for(JOBS, "0");
        if with_trigger {
            assert_eq!(cluster.text("select count(*) >= 6 from updates"), "t", "a user's trigger is fired");
            cluster.sql("drop trigger mine on graphile_worker.jobs");
        }
    }
    assert_eq!(seen[0].len(), 6);
    assert_eq!(seen[0], seen[1]);
}
