//! The ready list: the order in which jobs are taken, and that none is lost between the list and the table.

use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::{NOTE_NUMBERS, with_note, without_polling};
use kongtask_tests::{Cluster, IDLE, JOBS, RUNNING, SOON, rows, text, wait_until};
use std::thread;
use std::time::Duration;

/// More than a ready list holds, added in every way at once, with the safety net away: all of it runs, once.
#[test]
fn no_job_is_lost_between_the_shelves_and_the_table() {
    let cluster = without_polling(&["kongtask.workers = 3", "max_worker_processes = 12"]);
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
    let cluster = without_polling(&["kongtask.workers = 2", "kongtask.forbidden_flags = 'later'"]);
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

/// A search tells where the rows are, so that workers need not look them up in an index; but they may be elsewhere by then.
#[test]
fn jobs_that_a_search_has_found_are_taken_where_they_lie_or_where_they_have_gone() {
    let cluster = without_polling(&["kongtask.workers = 1", "autovacuum = off"]);
    let mut holder = cluster.connect();
    holder.batch_execute("select pg_advisory_lock(1)").expect("lock");
    cluster.sql(
        "create function hold() returns void language sql as 'select pg_advisory_xact_lock(1)';
         select kongtask.register_task('note', 'note(json)', max_batch := 50), kongtask.register_task('hold', 'hold()'),
           kongtask.register_task('set', 'note_all(json[])', max_batch := 50)",
    );
    let add = |from: usize, to: usize| {
        cluster.sql("select kongtask.pause()");
        cluster.sql(&format!(
            "select graphile_worker.add_job('hold', priority := -1);
             select count(graphile_worker.add_job(case when n % 200 < 100 then 'note' else 'set' end, to_json(n)))
             from generate_series({from}, {to}) n;
             select kongtask.resume()"
        ));
        cluster.wait_for(RUNNING, "1");
    };
    let let_go = |holder: &mut postgres::Client| {
        holder.batch_execute("select pg_advisory_unlock(1)").expect("unlock");
        cluster.wait_for(JOBS, "0");
        cluster.wait_for(IDLE, "1");
    };
    let mut db = cluster.connect();
    let mut looked_up = || {
        text(&mut db, "select pg_stat_force_next_flush()");
        let scans = "select idx_scan from pg_stat_user_indexes where indexrelname = 'jobs_pkey'";
        text(&mut db, scans).parse::<usize>().expect("a number")
    };
    add(1, 2000);
    let before = looked_up();
    let_go(&mut holder);
    let looked_up = looked_up() - before;
    assert!(looked_up < 100, "{looked_up} of 2000 jobs were looked up in the index");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "2000 2000");

    holder.batch_execute("select pg_advisory_lock(1)").expect("lock");
    add(2001, 4000);
    // Where rows were, there are others, or none.
    cluster.sql(
        "delete from graphile_worker.jobs where task_identifier <> 'hold' and payload::text::int <= 2500;
         update graphile_worker.jobs set payload = to_json(payload::text::int + 10000)
           where task_identifier <> 'hold' and payload::text::int <= 3000",
    );
    let mut vacuum = cluster.connect();
    let vacuum = thread::spawn(move || vacuum.batch_execute("vacuum full graphile_worker.jobs"));
    cluster.wait_for("select count(*) from pg_locks where not granted and locktype = 'relation'", "1");
    let_go(&mut holder);
    vacuum.join().expect("a thread").expect("vacuum");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from done"), "3500 3500");
    assert_eq!(
        cluster.text("select count(*) || ' ' || min(n) || ' ' || max(n) from done where n > 10000"),
        "500 12501 13000"
    );
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

/// The worker must not look for their rows where the table ends no more.
#[test]
fn a_handler_may_truncate_the_jobs_that_are_to_run_with_its_own() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create sequence calls;
         create function clear() returns void language plpgsql as $$ begin
           perform nextval('public.calls'); truncate graphile_worker.jobs; end $$;
         select kongtask.register_task('clear', 'clear()', max_batch := 50), kongtask.pause();
         select count(graphile_worker.add_job('clear')) from generate_series(1, 50);
         select kongtask.resume()",
    );
    cluster.wait_for(JOBS, "0");
    cluster.wait_for(IDLE, "1");
    assert_eq!(cluster.text("select last_value from calls"), "1");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn order_is_priority_then_run_at_then_id() {
    let cluster = with_note(&["kongtask.workers = 1"]);
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

/// Makes the search of the whole table take a second. As it takes a fiftieth of the time at most, the next one is a long time off.
fn make_a_search_slow(cluster: &Cluster, change: &str) {
    let mut db = cluster.connect();
    cluster.wait_for("select count(*) > 0 and bool_and(state = 'idle') from kongtask.workers", "t");
    cluster.arm("looking", "stop");
    // A change of tasks has everything searched.
    cluster.sql(change);
    let scheduler = stopped(cluster, &mut db);
    thread::sleep(Duration::from_secs(1));
    go_on(scheduler);
}

#[test]
fn what_falls_due_among_jobs_that_run_waits_for_no_search_of_the_whole_table() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 2"]);
    cluster.sql(
        "create table done (job bigint);
         create function rest_all(j graphile_worker.jobs[]) returns void language plpgsql as $$ begin
           insert into done select (unnest(j)).id; perform pg_sleep(1.5); end $$;
         select kongtask.register_task('set', 'rest_all(graphile_worker.jobs[])', max_batch := 10);
         select graphile_worker.add_job('set')",
    );
    cluster.wait_for("select count(*) from done", "1");
    cluster.wait_for(IDLE, "2");
    make_a_search_slow(&cluster, "select kongtask.alter_task('set', timeout := '1 hour')");
    cluster.sql(
        "select graphile_worker.add_job('set'), graphile_worker.add_job('set', run_at := now() + interval '0.4 s'),
           graphile_worker.add_job('set')",
    );
    cluster.wait_for(RUNNING, "1");
    cluster.wait_for("select count(*) from done", "4");
    cluster.wait_for(JOBS, "0");
}

#[test]
fn a_job_that_a_session_had_locked_waits_for_no_search_of_the_whole_table() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1"]);
    cluster.sql(NOTE_NUMBERS);
    cluster.sql(
        "select kongtask.register_task('plain', 'note(json)'),
                kongtask.register_task('claimed', 'note(json)', in_place := false),
                kongtask.register_task('batch', 'note(json)', max_batch := 10),
                kongtask.register_task('guarded', 'note(json)', max_batch := 10),
                kongtask.register_task('claimed_batch', 'note(json)', max_batch := 10, in_place := false),
                kongtask.register_task('set', 'note_all(json[])'),
                kongtask.register_task('claimed_set', 'note_all(json[])', in_place := false),
                kongtask.register_task('queue', 'note(json)');
         select graphile_worker.add_job('plain', '0')",
    );
    cluster.wait_for("select count(*) from done", "1");
    make_a_search_slow(&cluster, "select kongtask.alter_task('plain', timeout := '1 hour')");
    cluster.sql(
        "select graphile_worker.add_job(
           identifier, to_json(n), run_at := now() + interval '1 s', queue_name := case identifier when 'queue' then 'q' || n end)
         from kongtask.tasks, generate_series(1, 3) n;
         -- The handler fails, so that the others of its batch run guarded.
         select graphile_worker.add_job('guarded', '\"x\"', run_at := now() + interval '1 s', max_attempts := 1)",
    );
    let mut session = cluster.connect();
    let mut locker = session.transaction().expect("a transaction");
    let locked = "select from graphile_worker.jobs where payload::text = '1' for update";
    assert_eq!(locker.query(locked, &[]).expect("rows").len(), 8);
    cluster.wait_for("select count(*) from done", "17");
    locker.rollback().expect("a rollback");
    cluster.wait_for("select count(*) from done", "25");
    cluster.wait_for("select string_agg(task_identifier, ',') from graphile_worker.jobs", "guarded");
}

/// The worker that has skipped it runs the others meanwhile, so that it looks as if it had that one, too.
#[test]
fn a_locked_job_of_several_that_run_for_long_waits_for_no_search_of_the_whole_table() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1"]);
    cluster.sql(NOTE_NUMBERS);
    cluster.sql(
        "create function rest_all(p json[]) returns void language plpgsql as $$ begin
           perform public.note_all(p); perform pg_sleep(1.5); end $$;
         select kongtask.register_task('set', 'rest_all(json[])');
         select graphile_worker.add_job('set', '0')",
    );
    cluster.wait_for("select count(*) from done", "1");
    cluster.sql("select kongtask.pause(task := 'set')");
    cluster.sql("select graphile_worker.add_job('set', to_json(n)) from generate_series(1, 3) n");
    let mut session = cluster.connect();
    let mut locker = session.transaction().expect("a transaction");
    let locked = "select from graphile_worker.jobs where payload::text = '1' for update";
    assert_eq!(locker.query(locked, &[]).expect("rows").len(), 1);
    make_a_search_slow(&cluster, "select kongtask.resume(task := 'set')");
    cluster.wait_for("select count(*) from done", "3");
    locker.rollback().expect("a rollback");
    cluster.wait_for("select count(*) from done", "4");
}
