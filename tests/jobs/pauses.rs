//! Pauses of tasks, of queues, and of everything. The poll is an hour away: what is resumed is told of.

use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::fixtures::{NOTE_AND_NAP, quiet, with_note_and_nap};
use kongtask_tests::{Cluster, JOBS, RUNNING, SOON, error, rows, text, wait_until};
use postgres::fallible_iterator::FallibleIterator;

const NO_POLL: &str = "kongtask.poll_interval = '1h'";
const DONE: &str = "select coalesce(string_agg(what, '' order by what), '') from done";
const PAUSES: &str =
    "select concat_ws(' ', coalesce(task, '*'), coalesce(queue_name, '*'), reason) from kongtask.pauses order by 1";

/// Two workers, tasks `note` and `nap`, and `mark`, of another role: what it has run, was told of later than what came before.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = with_note_and_nap(&[&[NO_POLL, "kongtask.workers = 2"], settings].concat());
    cluster.sql(
        "select kongtask.register_task('mark', 'note(json)');
         alter table done add column at timestamptz default clock_timestamp();",
    );
    cluster
}

/// Waits until a job has run that nobody paused and that was added last.
fn wait_for_mark(cluster: &Cluster) {
    let job = cluster.text("select id from graphile_worker.add_job('mark', '\"!\"')");
    cluster.wait_for(&format!("select count(*) from graphile_worker.jobs where id = {job}"), "0");
    cluster.sql("delete from done where what = '!'");
}

#[test]
fn a_paused_task_s_jobs_wait_and_run_once_it_is_resumed() {
    let cluster = cluster(&[]);
    cluster.sql("select kongtask.pause('note', reason := 'the disk is full')");
    assert_eq!(cluster.text(PAUSES), "note * the disk is full");
    cluster.sql(
        "select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 4) n;
         select graphile_worker.add_job('note', '5', job_key := 'k'), graphile_worker.add_job('note', '6', queue_name := 'q')",
    );
    wait_for_mark(&cluster);
    // Due later, while it is paused.
    cluster.sql("select graphile_worker.add_job('note', '7', run_at := now() + interval '100 ms')");
    cluster.wait_for("select (max(run_at) < now())::text from graphile_worker.jobs", "true");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(DONE), "");
    assert_eq!(cluster.text("select kongtask.resume('note')"), "t");
    cluster.wait_for(DONE, "1234567");
    assert_eq!(cluster.text("select kongtask.resume('note')"), "f");
    assert_eq!(cluster.text("select count(*) from kongtask.pauses"), "0");
}

#[test]
fn a_queue_a_task_in_a_queue_and_everything_can_be_paused() {
    let cluster = cluster(&[]);
    let add = "select graphile_worker.add_job('note', to_json(n), queue_name := q)
        from (values (1, 'q'), (2, 'r'), (3, null)) job (n, q);
        select graphile_worker.add_job('mark', '4', queue_name := 'q')";
    for (what, runs, mark_runs) in
        [("queue_name := 'q'", "23", true), ("'note', 'q'", "234", true), ("'mark', 'q'", "123", true), ("", "", false)]
    {
        cluster.sql(&format!("select kongtask.pause({what}); {add}"));
        if mark_runs {
            cluster.wait_for(DONE, runs);
            wait_for_mark(&cluster);
        }
        let resumed = cluster.text("select clock_timestamp()");
        assert_eq!(cluster.text(DONE), runs, "while {what} is paused");
        cluster.sql(&format!("select kongtask.resume({what})"));
        cluster.wait_for(DONE, "1234");
        cluster.wait_for(JOBS, "0");
        let early = format!("select coalesce(string_agg(what, '' order by what), '') from done where at < '{resumed}'");
        assert_eq!(cluster.text(&early), runs, "before {what} was resumed");
        cluster.sql("delete from done");
    }
}

#[test]
fn a_pause_ends_by_itself_and_is_gone_from_the_table() {
    let cluster = cluster(&[]);
    cluster.sql(
        "select kongtask.pause('note', until := clock_timestamp() + interval '700 ms');
         select graphile_worker.add_job('note', '1')",
    );
    wait_for_mark(&cluster);
    let (done, left) = (cluster.text(DONE), cluster.text("select until > clock_timestamp() from kongtask.pauses"));
    assert!(left != "t" || done.is_empty(), "{done} ran before the end");
    cluster.wait_for(DONE, "1");
    cluster.wait_for("select count(*) from kongtask.pauses", "0");
    // What the pause is replaced by, holds.
    cluster.sql("select kongtask.pause('note', until := clock_timestamp() + interval '1 hour', reason := 'a')");
    cluster.sql("select kongtask.pause('note', until := clock_timestamp() + interval '300 ms', reason := 'b')");
    assert_eq!(rows(&mut cluster.connect(), PAUSES), ["note * b"]);
    cluster.sql("select graphile_worker.add_job('note', '2')");
    cluster.wait_for(DONE, "12");
}

#[test]
fn what_runs_goes_on_and_what_is_on_the_list_stays_where_it_is() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql("select graphile_worker.add_job('nap', '0.7')");
    cluster.wait_for(RUNNING, "1");
    cluster.sql("select graphile_worker.add_job('note', to_json(n % 10)) from generate_series(1, 100) n");
    cluster.sql("select kongtask.pause('note'), kongtask.pause('nap')");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(DONE), "nap");
    assert_eq!(cluster.text(JOBS), "100");
    cluster.sql("select kongtask.resume('note')");
    cluster.wait_for(JOBS, "0");
}

#[test]
fn a_pause_is_part_of_its_transaction() {
    let cluster = cluster(&[]);
    let mut db = cluster.connect();
    db.batch_execute("begin; select kongtask.pause('note')").expect("a pause");
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for(DONE, "1");
    db.batch_execute("rollback").expect("a rollback");
    db.batch_execute("select kongtask.pause('note')").expect("a pause");
    db.batch_execute("begin; select kongtask.resume('note')").expect("a resume");
    cluster.sql("select graphile_worker.add_job('note', '2')");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(DONE), "1");
    db.batch_execute("rollback").expect("a rollback");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(DONE), "1");
    // One job is added while the pause lasts, and committed after its end, by a resume and by time.
    db.batch_execute("begin; select graphile_worker.add_job('note', '3')").expect("a job");
    cluster.sql("select kongtask.resume('note')");
    cluster.wait_for(DONE, "12");
    db.batch_execute("commit").expect("a commit");
    cluster.wait_for(DONE, "123");
    cluster.sql("select kongtask.pause('note', until := clock_timestamp() + interval '300 ms')");
    db.batch_execute("begin; select graphile_worker.add_job('note', '4')").expect("a job");
    cluster.wait_for("select count(*) from kongtask.pauses", "0");
    wait_for_mark(&cluster);
    db.batch_execute("commit").expect("a commit");
    cluster.wait_for(DONE, "1234");
    // Who has paused something sees it at once.
    db.batch_execute("begin; select kongtask.pause('note'); select graphile_worker.add_job('note', '5'); commit")
        .expect("a job");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text(DONE), "1234");
}

/// Between the claim of a job and the call of its handler.
#[test]
fn a_job_that_is_claimed_as_its_task_is_paused_is_given_back() {
    for queue in ["null", "'q'"] {
        let cluster = Cluster::with_faults(&[NO_POLL, "kongtask.workers = 1"]);
        cluster.sql(NOTE_AND_NAP);
        cluster.sql("select kongtask.alter_task('note', in_place := false)");
        cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "1");
        let point = if queue == "null" { "claimed" } else { "chosen" };
        cluster.arm(point, "stop");
        cluster.sql(&format!("select graphile_worker.add_job('note', '1', queue_name := {queue})"));
        let mut db = cluster.connect();
        let pid = stopped(&cluster, &mut db);
        db.batch_execute("select kongtask.pause('note')").expect("a pause");
        go_on(pid);
        cluster.wait_for("select attempts || ' ' || count(*) over () from graphile_worker.jobs where locked_at is null and now() > updated_at and (select state from kongtask.workers) = 'idle'", "0 1");
        assert_eq!(cluster.text(DONE), "");
        db.batch_execute("select kongtask.resume('note')").expect("a resume");
        cluster.wait_for(DONE, "1");
    }
}

#[test]
fn in_a_queue_jobs_of_a_paused_task_are_passed() {
    let cluster = cluster(&[]);
    cluster.sql("select kongtask.pause('note')");
    cluster.sql(
        "select graphile_worker.add_job('note', to_json(n), queue_name := 'q') from generate_series(1, 3) n;
         select graphile_worker.add_job('mark', to_json(n), queue_name := 'q') from generate_series(4, 6) n",
    );
    cluster.wait_for(DONE, "456");
    cluster.sql("select kongtask.resume('note')");
    cluster.wait_for(DONE, "123456");
}

#[test]
fn external_workers_get_no_paused_jobs_and_are_told_of_what_is_resumed() {
    let (cluster, mut db) = quiet();
    cluster.sql(
        "select graphile_worker.add_job('a', queue_name := 'q'), graphile_worker.add_job('b', queue_name := 'r'),
           graphile_worker.add_job('a')",
    );
    let get = |db: &mut _, tasks: &str| {
        let job = text(db, &format!("begin; select id from graphile_worker.get_job('an-external-worker', {tasks})"));
        text(db, "rollback");
        job
    };
    let first = |db: &mut _, what: &str| {
        text(db, &format!("select kongtask.pause({what})"));
        let jobs = [get(db, "null"), get(db, "'{a,b}'")];
        text(db, &format!("select kongtask.resume({what})"));
        jobs
    };
    assert_eq!([get(&mut db, "null"), get(&mut db, "'{a,b}'")], ["1", "1"]);
    assert_eq!(first(&mut db, "'a'"), ["2", "2"]);
    assert_eq!(first(&mut db, "queue_name := 'q'"), ["2", "2"]);
    assert_eq!(first(&mut db, "'a', 'q'"), ["2", "2"]);
    assert_eq!(first(&mut db, "'b', 'q'"), ["1", "1"]);
    assert_eq!(first(&mut db, ""), ["", ""]);
    db.batch_execute("select kongtask.pause('a'); listen \"jobs:insert\"; select kongtask.resume('a')")
        .expect("a resume");
    assert!(db.notifications().timeout_iter(SOON).next().expect("a connection").is_some());
}

#[test]
fn what_cannot_be_paused_is_said() {
    let (cluster, mut db) = quiet();
    cluster.sql("create function f() returns void language sql as ''; select kongtask.register_task('t', 'f()')");
    for (arguments, message) in [
        ("''", "task must have 1 to 128 characters"),
        ("repeat('a', 129)", "task must have 1 to 128 characters"),
        ("queue_name := ''", "queue_name must have 1 to 128 characters"),
        ("until := now()", "until must be later than now"),
        ("until := '-infinity'", "until must be later than now"),
    ] {
        assert_eq!(
            error(&mut db, &format!("select kongtask.pause({arguments})")),
            ("22023".into(), message.into()),
            "{arguments}"
        );
    }
    let said =
        |statement: &str| String::from_utf8(cluster.speak("UTF8", statement.as_bytes(), "postgres")).expect("text");
    assert_eq!(said("select (kongtask.pause('t')).task"), "t\n");
    let notice = said("select (kongtask.pause('unknown')).task");
    assert!(notice.contains("NOTICE:  task \"unknown\" is not registered"), "{notice}");
    let notice = said("select kongtask.resume()");
    assert!(notice.starts_with("f\n") && notice.contains("NOTICE:  2 other pauses last"), "{notice}");
    db.batch_execute("select kongtask.pause(until := 'infinity')").expect("for ever");
    assert_eq!(text(&mut db, "select kongtask.resume()"), "t");
}

#[test]
fn a_role_pauses_its_own_tasks_and_the_owner_everything() {
    let (cluster, _db) = quiet();
    cluster.sql(
        "create role theirs login; create role other login; grant usage on schema kongtask to public;
         grant execute on function kongtask.pause, kongtask.resume, kongtask.redrive to public;
         grant execute on function kongtask.register_task to theirs;
         create function f() returns void language sql as '';
         set role theirs; select kongtask.register_task('t', 'f()')",
    );
    let statements = [
        "pause('t')",
        "pause('t', 'q')",
        "pause('unknown')",
        "pause(queue_name := 'q')",
        "pause()",
        "resume('t')",
        "resume()",
        "redrive('t')",
        "redrive()",
        "redrive(ids := '{1}')",
    ];
    for (role, may) in [("theirs", "yy---y-y--"), ("other", "----------"), ("postgres", "yyyyyyyyyy")] {
        let mut db = cluster.connect_as(role, "postgres");
        let mut outcomes = String::new();
        for statement in statements {
            let result = db.batch_execute(&format!("begin; select kongtask.{statement}"));
            let code = result.as_ref().err().and_then(|error| error.code()).map(|code| code.code().to_string());
            assert!(result.is_ok() || code.as_deref() == Some("42501"), "{role}: {statement}: {code:?}");
            outcomes.push(if result.is_ok() { 'y' } else { '-' });
            db.batch_execute("rollback").expect("a rollback");
        }
        assert_eq!(outcomes, may, "{role}");
    }
}

#[test]
fn pauses_are_dumped_and_hold_where_they_are_restored() {
    let cluster = cluster(&[]);
    cluster.sql("select kongtask.pause('note', reason := 'why'); select graphile_worker.add_job('note', '1')");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    cluster.sql("create database restored");
    cluster.restore(&dump, "restored", &[]);
    let mut db = cluster.connect_as("postgres", "restored");
    assert_eq!(rows(&mut db, PAUSES), ["note * why"]);
    db.batch_execute("select graphile_worker.add_job('mark', '2')").expect("a job");
    assert!(wait_until(SOON, || text(&mut db, DONE) == "2"), "{}", cluster.log());
    db.batch_execute("select kongtask.resume('note')").expect("a resume");
    assert!(wait_until(SOON, || text(&mut db, DONE) == "12"), "{}", cluster.log());
}
